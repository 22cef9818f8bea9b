"""Merges from SentencePiece's scores: the same pieces as joining the best-scored neighbours, and no text is lost."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import strategies as st

from fuzz import fuzz
from steer_heal_love.ground.sentencepiece import BYTE, CONTROL, SPACE, USER, build, merges

LETTERS = "abcd" + SPACE


def pieces(seed: int) -> tuple[list[str], list[float], list[int]]:
    """Special tokens, bytes, single letters, and joint pieces of two known ones, each with a score of its own."""
    draw = random.Random(seed)
    tokens, kinds = ["<pad>", "<bos>", "<unk>"], [CONTROL, CONTROL, 2]
    tokens += [f"<0x{i:02X}>" for i in range(256)]
    kinds += [BYTE] * 256
    plain = list(LETTERS)
    while len(plain) < 40:
        joint = draw.choice(plain) + draw.choice(plain)
        if joint not in plain and len(joint) < 7:
            plain.append(joint)
    scores = [0.0] * len(tokens) + [-float(i) for i in range(len(plain))]
    return [*tokens, *plain, "<x>"], [*scores, 0.0], [*kinds, *[1] * len(plain), USER]


def joined(text: str, score: dict[str, float]) -> list[str]:
    """SentencePiece's own rule, done slowly: join the neighbours whose joint piece scores highest, the leftmost first."""
    parts = list(text.replace(" ", SPACE))
    while True:
        pairs = [(score[a + b], -i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in score]
        if not pairs:
            return parts
        at = -max(pairs)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


@pytest.mark.parametrize("seed", range(3))
def test_merges_do_what_scores_do(seed):
    tokens, scores, kinds = pieces(seed)
    tok = build(tokens, scores, kinds, bos=1, unk=2)
    score = {t: s for t, s, k in zip(tokens, scores, kinds, strict=True) if k == 1}
    draw = random.Random(seed)
    for _ in range(100):
        text = "".join(draw.choice("abcd ") for _ in range(draw.randint(1, 14)))
        assert tok.encode(text, add_special_tokens=False).tokens == joined(text, score), text


TOK = build(*pieces(0), bos=1, unk=2)


@fuzz(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters=SPACE), max_size=20))
def test_no_text_is_lost(text):
    if any(mark in text for mark in ("<x>", "<pad>", "<bos>", "<unk>")):
        return
    assert TOK.decode(TOK.encode(text).ids) == text


def test_every_text_begins_with_the_first_token_and_whole_tokens_stay_whole():
    assert TOK.encode("ab<x>").tokens[0] == "<bos>" and TOK.encode("ab<x>").tokens[-1] == "<x>"


def test_ties_and_splits_have_one_order():
    known = {"a": 0, "b": 1, "ab": 2, "ba": 3, "aba": 4}
    assert merges(known, [0, 0, -1, -1, -2]) == [("a", "b"), ("b", "a"), ("a", "ba"), ("ab", "a")]
