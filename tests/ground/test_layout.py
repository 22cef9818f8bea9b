"""Prompts that share rows are read as each is alone, and cost fewer tokens than padding does."""

from __future__ import annotations

import random

import pytest
import torch

from steer_heal_love.ground import layout, models, scoring
from steer_heal_love.ground.layout import Tree, lay, rows
from steer_heal_love.ground.reading import way
from steer_heal_love.ground.states import states
from steer_heal_love.nouns import Tokens

START = (5, 6, 7)


def drawn(n: int, seed: int = 0, longest: int = 40) -> list[Tokens]:
    """Sequences that begin alike; every second prompt is asked twice."""
    draw = random.Random(seed)
    word = lambda most: tuple(draw.randrange(10, 200) for _ in range(draw.randint(1, most)))
    prompts = [START + word(longest) for _ in range(n)]
    return [Tokens(p, word(longest)) for p in prompts] + [Tokens(p, word(longest)) for p in prompts[::2]]


@pytest.mark.parametrize(
    "sizes", [[3], [1] * 9, [200, 4, 4], [190, 191, 2, 1, 60, 61, 62], list(range(1, 70))]
)
def test_every_piece_has_one_row_with_room(sizes):
    found = rows(sizes)
    assert sorted(i for row in found for i in row) == list(range(len(sizes)))
    assert max(sum(sizes[i] for i in row) for row in found) <= max([layout.WIDEST, *sizes])
    assert len(rows(sizes, most=0)) == len(sizes), "no room to share"


def test_short_pieces_fill_the_rows_of_long_ones():
    assert sorted(map(sorted, rows([100, 60, 40]))) == [[0], [1, 2]]


def test_answers_read_beside_other_prompts_are_as_they_are_alone(model):
    sequences = drawn(12)
    found, batch = scoring.read_hidden(model, sequences)
    for s, hidden in zip(sequences, found.split(batch.lengths), strict=True):
        alone = scoring.answer_hidden(model, scoring.pack([s], model.device))
        torch.testing.assert_close(hidden, alone, atol=1e-5, rtol=1e-4)
    assert batch.targets.tolist() == [t for s in sequences for t in s.answer]


def test_a_token_sees_its_own_prompt_and_answer_alone():
    prompts, trees = [(1, 2), (3,)], [Tree.of([(4, 5, 6), (4, 7, 8)]), Tree.of([(9, 10)])]
    laid = lay(prompts, trees, torch.float32, before=2)
    assert len(laid.ids) == 1 and laid.ids[0].tolist() == [1, 2, 4, 5, 7, 3, 9], "last tokens follow nothing"
    assert laid.places[0].tolist() == [2, 3, 4, 5, 5, 2, 3]
    seen = [[laid.ids[0, k - 2].item() for k in range(2, 9) if m[k] == 0] for m in laid.mask[0, 0]]
    assert seen == [[1], [1, 2], [1, 2, 4], [1, 2, 4, 5], [1, 2, 4, 7], [3], [3, 9]]
    assert (laid.mask[..., :2] == 0).all(), "what all go on from"
    assert [w.tolist() for w in laid.where] == [[1, 2, 3, 2, 4], [5, 6]]


def test_an_answer_without_a_token_and_the_same_answer_twice(model):
    prompt = (*START, 20)
    sequences = [
        Tokens(prompt, ()),
        Tokens(prompt, (30, 31)),
        Tokens(prompt, (30, 31)),
        Tokens((*START, 9, 9), (8,)),
    ]
    found = scoring.token_nll(model, sequences)
    assert [len(v) for v in found] == [0, 2, 2, 1] and torch.equal(found[1], found[2])


def test_what_is_read_is_little_more_than_the_tokens_there_are(model):
    sequences, read = drawn(16), []
    own = sum(len(p) - len(START) for p in {s.prompt for s in sequences})
    needed = own + sum(len(s.answer) - 1 for s in sequences)
    way(model)  # found out by reading, before anyone counts
    hook = models.body(model).register_forward_pre_hook(
        lambda _m, _args, given: read.append(given["input_ids"].numel()), with_kwargs=True
    )
    try:
        scoring.hidden_states(model, sequences)
    finally:
        hook.remove()
    assert sum(read) < 1.1 * needed + len(START)


def test_states_at_the_tag_are_those_of_each_prompt_alone(model):
    prompts = [s.prompt for s in drawn(10)]
    together = states(model, prompts, [0, 2], 4096)
    for i, prompt in enumerate(prompts):
        alone = states(model, [prompt], [0, 2], 4096)
        for at in (0, 2):
            torch.testing.assert_close(together[at][i], alone[at][0], atol=1e-5, rtol=1e-4)
