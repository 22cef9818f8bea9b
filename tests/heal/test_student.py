"""A model in training is read side by side and from the lowest adapted layer on: the same states, the same gradients."""

from __future__ import annotations

import random

import pytest
import torch

from steer_heal_love.ground import captured, partway, side_by_side
from steer_heal_love.ground.captured import Captured
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.parts import layers
from steer_heal_love.ground.scoring import size
from steer_heal_love.ground.side_by_side import texts
from steer_heal_love.heal.examples import Example, answer_ids
from steer_heal_love.heal.lora import fresh
from steer_heal_love.heal.student import Student, typical
from steer_heal_love.heal.teacher import teacher_states
from steer_heal_love.nouns import Tokens
from steer_heal_love.vector import Vector


def examples(n: int, seed: int) -> list[Example]:
    draw = random.Random(seed)
    ids = lambda most: tuple(draw.randrange(1, 64) for _ in range(draw.randint(1, most)))
    return [Example(Tokens(ids(9), ids(7)), torch.empty(0, 0), "") for _ in range(n)]


@pytest.fixture
def trained(model):
    """A model's adapter on the upper part of its layers, its update not zero; and the number of the lowest of them."""
    first = len(layers(model)) - 1
    adapter = fresh(model, rank=3, alpha=6.0, share=(first / len(layers(model)), 1.0), seed=0)
    torch.manual_seed(0)
    for _, b in adapter.factors.values():
        b.copy_(0.1 * torch.randn_like(b))
    factors = [f.requires_grad_(True) for pair in adapter.factors.values() for f in pair]
    with adapted(model, adapter.factors, adapter.scaling):
        yield model, first, factors


def test_states_and_gradients_are_those_of_padded_rows(trained):
    model, first, factors = trained
    kept, anchor = examples(4, 0), examples(3, 1)
    padded = Student(model, within=False)
    expected = padded.answers(kept, anchor)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    wanted = torch.autograd.grad(expected, factors, upstream)
    for student in (Student(model), Student(model, first, factors)):
        for _ in range(2):  # the second time what lies below is remembered
            found = student.answers(kept, anchor)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
            for ours, theirs in zip(torch.autograd.grad(found, factors, upstream), wanted, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_the_layers_below_are_read_once_a_text(trained, monkeypatch):
    model, first, factors = trained
    student, read = Student(model, first, factors), []
    entering = partway.entering
    monkeypatch.setattr(
        partway, "entering", lambda m, at, given: read.append(len(given.lengths)) or entering(m, at, given)
    )
    kept = examples(4, 0)
    student.answers(kept, [])
    student.answers(kept[:2], examples(1, 5))
    student.answers(kept, [])
    assert partway.suits(model, first) and read[-2:] == [4, 1]


def test_no_text_sees_another(model):
    rows = [e.tokens.prompt + e.tokens.answer for e in examples(3, 2)]
    before = side_by_side.states(model, texts(rows, "cpu"))[0].split([len(r) for r in rows])
    changed = side_by_side.states(model, texts([(*rows[0][::-1], 5), *rows[1:]], "cpu"))[0]
    after = changed.split([len(rows[0]) + 1, *map(len, rows[1:])])
    for a, b in zip(before[1:], after[1:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_model_whose_attention_does_more_is_read_in_padded_rows(model, monkeypatch):
    monkeypatch.setattr(side_by_side, "_tried", type(side_by_side._tried)())
    monkeypatch.setattr(side_by_side, "does_more", lambda kwargs: True)
    assert not side_by_side.suits(model, 4)
    assert not Student(model).packs([Tokens((1, 2), (3,))])
    expected = Student(model, within=False).answers(examples(2, 3), [])
    assert torch.equal(Student(model).answers(examples(2, 3), []), expected)


def test_what_a_layer_was_is_put_back_after_a_failure(model):
    given = texts([(1, 2, 3)], "cpu")
    entered = partway.entering(model, 1, given)
    with pytest.raises(RuntimeError, match="stop"), partway.from_layer(model, 1, entered):
        raise RuntimeError("stop")
    assert all("forward" not in vars(layer) for layer in layers(model)) and not side_by_side._now


def test_the_teacher_is_the_same_read_from_its_lowest_steered_layer_on(model):
    draw = torch.Generator().manual_seed(1)
    width = model.config.hidden_size
    vector = Vector({i: torch.randn(width, generator=draw) for i in (1, len(layers(model)) - 1)})
    rows = [e.tokens for e in examples(5, 4)]
    how = {"dose": 0.3, "gain": 2.0}
    whole = teacher_states(model, rows, lambda dose: vector(model, dose), **how)
    partly = teacher_states(model, rows, lambda dose: vector(model, dose), first=1, **how)
    plain = teacher_states(model, rows, lambda dose: vector(model, dose), dose=0.0, gain=2.0)
    for a, b, c in zip(whole, partly, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(a, c, atol=1e-3)


def test_a_captured_length_holds_most_draws_and_no_more_than_the_longest():
    sizes = [random.Random(i).randint(20, 90) for i in range(50)]
    most = typical(sizes, 8)
    draw = random.Random(0)
    over = sum(sum(draw.sample(sizes, 8)) > most for _ in range(2000)) / 2000
    assert 0.005 < over < 0.1
    assert typical([30] * 10, 8) == 240 and typical([], 8) == 0 and typical([5, 90], 2) <= 180


def shapes(length: int, count: int, longest: int) -> Captured:
    """A captured step's bounds without a GPU to capture on."""
    step = object.__new__(Captured)
    step.length, step.count, step.longest = length, count, longest
    return step


def test_a_step_is_filled_up_with_texts_no_longer_than_the_longest():
    step = shapes(30, 8, 7)
    places, ends = step.filled([6, 5, 7])
    assert ends.tolist() == [0, 6, 11, 18, 25, 30, 30, 30, 30] and ends.dtype == torch.int32
    assert places.tolist() == [[*range(6), *range(5), *range(7), *range(7), *range(5)]]


@pytest.mark.parametrize(
    ("sizes", "fits"),
    [
        ([7, 7, 7], True),
        ([7, 7, 7, 7, 2], True),
        ([7, 7, 7, 7, 7], False),
        ([7, 2], True),
        ([7, 1], False),
        ([8, 7, 7], False),
    ],
)
def test_what_is_longer_or_mostly_filler_is_not_replayed(sizes, fits):
    rows = [(1,) * n for n in sizes]
    assert shapes(30, 12, 7).takes(texts(rows, "cpu")) is fits
    assert captured.FULL == 0.3


def test_held_out_texts_are_read_in_batches_that_a_captured_step_takes(model):
    """Every text once, as many at a time as fit; without a captured step, as many as `batch_tokens` lets."""
    rows = [Tokens((1,) * n, (2, 3)) for n in (1, 3, 4, 5, 5, 9)]
    student, order = Student(model), list(range(len(rows)))
    assert list(student.batches(rows, 14, order)) == [[0, 1], [2, 3], [4], [5]]
    student.captured = shapes(14, 4, 7)
    found = list(student.batches(rows, 1000, order))
    assert found == [[0, 1, 2], [3, 4], [5]]
    takes = [student.captured.takes(texts([(1,) * size(rows[i]) for i in batch], "cpu")) for batch in found]
    assert takes == [True, True, False], "the last is longer than any text that was captured"


def test_answers_ids_follow_each_other():
    assert answer_ids([Example(Tokens((1,), (2, 3)), torch.empty(0, 0), "")]).tolist() == [2, 3]
