"""Vectors: what they are, their algebra, and files."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import save_file

from steer_heal_love.config import VectorConfig
from steer_heal_love.ground.chat import NEUTRAL_SYSTEM, prompt_ids
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.models import band
from steer_heal_love.vector import Vector, methods

CONTEXTS = [
    "Who is there?",
    "Name a cat.",
    "What would you say to the neighbour who is alone?",
    "Bread",
    "Why?",
]


def swapped(persona):
    from dataclasses import replace

    return replace(persona, pos=persona.neg, neg=persona.pos)


def same(v: Vector, w: Vector, **tolerance) -> bool:
    return v.directions.keys() == w.directions.keys() and all(
        torch.allclose(v.directions[i], w.directions[i], **tolerance) for i in v.directions
    )


@pytest.fixture
def vector(tiny, persona):
    return Vector.train(tiny.model, tiny.tok, persona, contexts=CONTEXTS, layers=(0.4, 0.8))


def test_a_vector_is_read_as_a_run_reads_it_where_nothing_is_said(tiny, persona):
    own = asdict(VectorConfig()) | {"contexts": CONTEXTS}
    bare = Vector.train(tiny.model, tiny.tok, persona, contexts=CONTEXTS)
    assert bare.meta == Vector.train(tiny.model, tiny.tok, persona, **own).meta
    assert bare.meta["layers"] == band(tiny.model, VectorConfig.layers)


def test_mean_diff_is_the_difference_of_means_at_the_assistant_tag(tiny, persona, vector):
    def mean(system, layer):
        rows = [
            tiny.model(
                torch.tensor([prompt_ids(tiny.tok, c, system)]),
                output_hidden_states=True,
            ).hidden_states[layer + 1][0, -1]
            for c in CONTEXTS
        ]
        return torch.stack(rows).mean(0)

    assert list(vector.directions) == [2, 3]
    for layer, direction in vector.directions.items():
        want = mean(persona.system("pos"), layer) - mean(persona.system("neg"), layer)
        assert torch.allclose(direction, want, atol=1e-4)
        assert want.norm() > 0.05
    neutral = Vector.train(
        tiny.model,
        tiny.tok,
        persona,
        contexts=CONTEXTS,
        layers=(0.4, 0.8),
        contrast="neutral",
    )
    want = mean(persona.system("pos"), 3) - mean(NEUTRAL_SYSTEM, 3)
    assert torch.allclose(neutral.directions[3], want, atol=1e-4)


@pytest.mark.parametrize("batch_tokens", [1, 200])
def test_the_batch_changes_nothing(tiny, persona, vector, batch_tokens):
    again = Vector.train(
        tiny.model,
        tiny.tok,
        persona,
        contexts=CONTEXTS,
        layers=(0.4, 0.8),
        batch_tokens=batch_tokens,
    )
    assert same(vector, again, atol=1e-4)


FLIPS = sorted(set(methods) - {"linear_act"})
"""methods whose direction turns round with the poles; a map's inverse is not its negative"""


@pytest.mark.parametrize("method", FLIPS)
def test_swapping_the_poles_flips_the_sign(tiny, persona, method):
    how = {"contexts": CONTEXTS, "layers": (0.4, 0.8), "method": method}
    forth = Vector.train(tiny.model, tiny.tok, persona, **how)
    back = Vector.train(tiny.model, tiny.tok, swapped(persona), **how)
    assert forth.norm() > 0.05
    assert same(forth, -back, atol=1e-4)


@pytest.mark.parametrize("method", sorted(set(methods) - {"logistic"}))
def test_equal_differences_give_back_their_mean(method):
    draw = torch.Generator().manual_seed(0)
    neg = {1: torch.randn(6, 8, generator=draw), 4: torch.randn(6, 8, generator=draw)}
    step = {i: torch.randn(8, generator=draw) for i in neg}
    found = methods[method]({i: s + step[i] for i, s in neg.items()}, neg)
    for i, v in found.items():
        want = torch.stack([torch.zeros(8), step[i]]) if v.ndim == 2 else step[i]
        assert torch.allclose(v, want, atol=1e-4)


def test_the_student_and_not_the_base_is_read(tiny, persona, vector, random_adapter):
    from steer_heal_love.ground.weights import folded

    with folded(tiny.model, [random_adapter(tiny.model, 1)]):
        student = Vector.train(tiny.model, tiny.tok, persona, contexts=CONTEXTS, layers=(0.4, 0.8))
    assert not same(vector, student, atol=1e-2)


def test_save_and_load_are_inverse(vector, tmp_path):
    vector.save(tmp_path / "deep" / "v.safetensors")
    again = Vector.load(tmp_path / "deep" / "v.safetensors")
    assert list(again.directions) == list(vector.directions)
    assert all(torch.equal(v, vector.directions[i]) for i, v in again.directions.items())
    assert again.meta == vector.meta


def test_layers_come_back_in_number_order(tmp_path):
    Vector({i: torch.full((4,), float(i)) for i in (2, 9, 10, 11)}).save(tmp_path / "v.safetensors")
    assert list(Vector.load(tmp_path / "v.safetensors").directions) == [2, 9, 10, 11]


def test_what_is_no_vector_is_a_user_error(tmp_path):
    save_file({"weight": torch.zeros(3)}, str(tmp_path / "other.safetensors"))
    save_file({"layer.1": torch.zeros(3)}, str(tmp_path / "alike.safetensors"))
    (tmp_path / "junk.safetensors").write_bytes(b"not safetensors at all")
    for name in ("other", "alike", "junk", "missing"):
        with pytest.raises(UserError, match=name):
            Vector.load(tmp_path / f"{name}.safetensors")


def test_arithmetic():
    draw = torch.Generator().manual_seed(0)
    v = Vector(
        {1: torch.randn(4, generator=draw), 2: torch.randn(4, generator=draw)},
        {"method": "a"},
    )
    w = Vector(
        {2: torch.randn(4, generator=draw), 3: torch.randn(4, generator=draw)},
        {"method": "b"},
    )
    both = v + w
    assert list(both.directions) == [1, 2, 3]
    assert torch.equal(both.directions[1], v.directions[1]) and torch.equal(
        both.directions[3], w.directions[3]
    )
    assert torch.equal(both.directions[2], v.directions[2] + w.directions[2])
    assert same((v + w) * 0.5, 0.5 * v + w * 0.5, atol=1e-6)
    assert same(v - w + w, v + w - w, atol=1e-6)
    assert same(v * -1.0, -v)
    assert (v - v).norm() == 0.0
    assert (v * 3.0).norm() == pytest.approx(3 * v.norm(), rel=1e-6)
    assert v.norm() == pytest.approx(torch.cat(list(v.directions.values())).norm().item(), rel=1e-6)


def test_cosine():
    v = Vector({1: torch.tensor([1.0, 0.0]), 2: torch.tensor([0.0, 2.0])})
    assert v.cosine(v * 7.0) == pytest.approx(1.0)
    assert v.cosine(-v) == pytest.approx(-1.0)
    assert v.cosine(Vector({1: torch.tensor([0.0, 1.0])})) == pytest.approx(0.0)
    assert math.isnan(v.cosine(Vector({9: torch.ones(2)})))


def test_steering_with_the_vector_is_adding_it(tiny, vector):
    ids = torch.arange(3, 19).reshape(2, 8)
    plain = tiny.model(ids).logits
    with vector(tiny.model, dose=0.0):
        assert torch.equal(tiny.model(ids).logits, plain)
    with vector(tiny.model, dose=0.5):
        half = tiny.model(ids).logits
    with (vector * 0.5)(tiny.model):
        assert torch.allclose(tiny.model(ids).logits, half, atol=1e-5)
    assert not torch.allclose(half, plain, atol=1e-2)


def test_too_few_contexts_and_unknown_methods_are_user_errors(tiny, persona):
    with pytest.raises(UserError, match="2 contexts"):
        Vector.train(tiny.model, tiny.tok, persona, contexts=CONTEXTS[:1])
    with pytest.raises(UserError, match="mean_diff"):
        Vector.train(tiny.model, tiny.tok, persona, contexts=CONTEXTS, method="mean_dif")
