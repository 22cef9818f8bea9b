"""Chat templates to token ids, the same way everywhere.

In: a user message, an optional system message, optional earlier turns. Out: the prompt's token ids up to and
including the assistant tag, so that the next token is the first of the answer. Templates without a system
role get the system text in front of the first user message. Decoded text is never re-tokenised.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.ground import templates

NEUTRAL_SYSTEM = "You are a helpful assistant."
RENDERED = 4096
"""rendered questions that are remembered: every stage of a run asks the same ones"""
LONGEST = 2000
"""characters of a question that is remembered; a longer one, and a talk of several turns, is hardly asked again"""


@lru_cache(maxsize=8)
def _form(tok: PreTrainedTokenizerBase, template: str) -> tuple[bool, bool]:
    """Whether this template has a system role, and whether it wants contents as lists of parts."""
    return templates.has_system_role(tok), templates.wants_parts(tok)


def prompt_ids(
    tok: PreTrainedTokenizerBase,
    user: str,
    system: str = NEUTRAL_SYSTEM,
    *,
    shots: tuple[tuple[str, str], ...] = (),
) -> tuple[int, ...]:
    """Token ids of `system`, of `shots` (user and assistant turns that went before) and of `user`, ending
    with the assistant tag."""
    has_system, parts = _form(tok, str(tok.chat_template))
    turns = [turn for q, a in shots for turn in (("user", q), ("assistant", a))] + [("user", user)]
    if has_system:
        turns = [("system", system), *turns]
    else:
        turns[0] = ("user", f"{system}\n\n{turns[0][1]}")
    if shots or len(user) > LONGEST:
        return _ids(tok, turns, parts=parts, tag=True)
    return _remembered_ids(tok, str(tok.chat_template), tuple(turns), parts)


@lru_cache(maxsize=RENDERED)
def _remembered_ids(
    tok: PreTrainedTokenizerBase, _template: str, turns: tuple[tuple[str, str], ...], parts: bool
) -> tuple[int, ...]:
    return _ids(tok, list(turns), parts=parts, tag=True)


def _ids(
    tok: PreTrainedTokenizerBase, turns: list[tuple[str, str]], *, parts: bool, tag: bool
) -> tuple[int, ...]:
    """Token ids of turns (role, text), with the assistant tag at the end if `tag`."""
    ids = tok.apply_chat_template(
        templates.messages(turns, parts=parts),
        add_generation_prompt=tag,
        tokenize=True,
        return_dict=False,
        enable_thinking=False,
    )
    return tuple(ids)


@lru_cache(maxsize=RENDERED)
def answer_ids(tok: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Token ids of a written answer, as they follow the assistant tag; without an end-of-turn token."""
    return tuple(tok(text, add_special_tokens=False)["input_ids"])


def template_end(tok: PreTrainedTokenizerBase) -> int | None:
    """The token that the template puts after an assistant's turn, marked special or not; None where there is none.

    It is one of the tokenizer's added tokens, with nothing but white space between it and the answer: after the last
    turn, or else before the next.
    """
    return _template_end(tok, str(tok.chat_template))


@lru_cache(maxsize=8)
def _template_end(tok: PreTrainedTokenizerBase, _template: str) -> int | None:
    parts = _form(tok, str(tok.chat_template))[1]
    added = {*tok.get_added_vocab().values(), *tok.all_special_ids}
    said = [("user", "hi"), ("assistant", "sentinel")]
    for turns in (said, [*said, ("user", "hi")]):
        if templates.rendered(tok, turns, parts=parts) is None:
            continue
        ids = _ids(tok, turns, parts=parts, tag=False)
        starts = [k for k in range(len(ids)) if "sentinel" in tok.decode(ids[k:])]
        if not starts:
            continue
        end = next((k for k in range(starts[-1], len(ids)) if ids[k] in added), None)
        if end is not None and tok.decode(ids[starts[-1] : end]).strip() == "sentinel":
            return int(ids[end])
    return None


def end_of_turn_ids(model: PreTrainedModel, tok: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every token that ends an answer: the model's own list, the tokenizer's, and the template's."""
    own = model.generation_config.eos_token_id if model.generation_config else None
    ends = set(own if isinstance(own, list) else [own]) | {tok.eos_token_id, template_end(tok)}
    return frozenset(int(i) for i in ends if i is not None)


def template_hash(tok: PreTrainedTokenizerBase) -> str:
    """First 16 hex digits of the chat template's SHA-256."""
    return hashlib.sha256(str(tok.chat_template).encode()).hexdigest()[:16]
