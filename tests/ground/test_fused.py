"""Kernels put in by a patch serve readings alone, and only where they give the model's own states."""

from __future__ import annotations

import sys
from types import MethodType, SimpleNamespace

import pytest
import torch
import transformers.models.llama.modeling_llama as code
from tests.tiny_model import build_model

from steer_heal_love.ground import fused, loading, reading

calls: list[str] = []


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(fused, "usable", lambda _given: fused.wanted())
    monkeypatch.setattr(fused, "_refused", set())
    calls.clear()
    names = dict(vars(code))
    yield build_model(64, 0).eval()
    vars(code).update(names)


def patch_with(factor):
    """A patch as the library makes them: forwards bound to modules, a function and a class of the family's code replaced."""

    def patch(model):
        plain_norm, plain_rope = code.LlamaRMSNorm.forward, code.apply_rotary_pos_emb

        def norm(self, hidden):
            calls.append("norm")
            return plain_norm(self, hidden) * factor

        def rope(q, k, *args, **kwargs):
            calls.append("rope")
            return plain_rope(q, k, *args, **kwargs)

        code.apply_rotary_pos_emb = rope
        code.LlamaRMSNorm = type("Fused", (code.LlamaRMSNorm,), {})
        for layer in model.model.layers:
            layer.input_layernorm.forward = MethodType(norm, layer.input_layernorm)

    return patch


def test_readings_take_the_patch_and_gradients_do_not(model):
    assert fused.switched(model, patch_with(1.0))
    calls.clear()
    with torch.no_grad():
        model(torch.tensor([[1, 2, 3]]))
    assert {"norm", "rope"} <= set(calls)
    calls.clear()
    model(torch.tensor([[1, 2, 3]]))
    assert calls == []


def test_classes_of_models_yet_to_be_made_stay(model):
    kept = code.LlamaRMSNorm
    fused.switched(model, patch_with(1.0))
    assert code.LlamaRMSNorm is kept


def test_a_patch_that_gives_other_numbers_is_taken_back(model):
    rope, modules = code.apply_rotary_pos_emb, [dict(vars(m)) for m in model.modules()]
    before = fused.states(model)
    assert not fused.switched(model, patch_with(1.1))
    assert code.apply_rotary_pos_emb is rope
    assert all(vars(m).keys() == was.keys() for m, was in zip(model.modules(), modules, strict=True))
    assert torch.equal(fused.states(model), before)


def test_a_patch_that_reads_texts_well_and_single_steps_wrongly_is_taken_back(model, caplog):
    rope = code.apply_rotary_pos_emb
    caplog.set_level("INFO")
    assert not fused.switched(model, single_steps_wrongly)
    assert code.apply_rotary_pos_emb is rope and "left out" in caplog.text
    assert reading.way(model) == reading.widest(model), "it goes on from its cache as before"


def test_a_patch_stays_in_a_model_that_has_no_use_of_a_cache_anyway(model, monkeypatch):
    monkeypatch.setattr(reading.Trial, "goes_on", lambda *_args, **_how: False)
    assert fused.switched(model, patch_with(1.0))
    assert reading.way(model).cached == 0


class TritonError(Exception):
    """As a kernel's compiler raises, which is no error that Python knows."""


ERRORS = [RuntimeError("no such kernel"), ImportError("a name that the library moved"), TritonError()]


def single_steps_wrongly(model):
    """A patch whose rotary function forgets to turn where each row asks with one token."""
    plain = code.apply_rotary_pos_emb
    forgetful = lambda q, k, *args, **kwargs: (q, k) if q.shape[2] == 1 else plain(q, k, *args, **kwargs)
    code.apply_rotary_pos_emb = forgetful


def test_kernels_that_let_a_model_be_read_in_more_manners_stay(model, monkeypatch):
    """As where rounding alone decides, and falls to one side without kernels and to the other with them."""
    front = reading.Trial.front
    monkeypatch.setattr(reading.Trial, "plain", lambda self: False)
    monkeypatch.setattr(reading.Trial, "front", lambda self: not fused._left_out and front(self))
    assert fused.switched(model, patch_with(1.0)) and reading.way(model).front > 0


def test_a_model_that_its_own_functions_cannot_read_is_read_with_kernels(model, monkeypatch):
    beside = reading.Trial.beside
    monkeypatch.setattr(reading.Trial, "plain", lambda self: False)
    monkeypatch.setattr(reading.Trial, "beside", lambda self: not fused._left_out and beside(self))
    assert fused.switched(model, patch_with(1.0)) and reading.way(model).beside > 0


def test_the_bound_of_rounding_is_the_models_own_and_not_that_of_kernels_that_are_refused(model):
    half = build_model(64, 0).to(torch.bfloat16).eval()
    own = reading.rounding(half)
    assert not fused.switched(half, patch_with(float("nan")))
    assert reading._rounding[half] == own > 0


def test_a_second_model_of_a_family_does_not_keep_the_firsts_kernel_that_was_refused_for_it(model):
    other = build_model(64, 1).eval()
    rope, before = code.apply_rotary_pos_emb, fused.states(other)
    assert fused.switched(model, patch_with(1.0)) and code.apply_rotary_pos_emb is not rope
    assert not fused.switched(other, single_steps_wrongly)
    assert code.apply_rotary_pos_emb is rope and reading.way(other) == reading.widest(other)
    assert torch.equal(fused.states(other), before)


def test_functions_refused_for_one_model_are_not_tried_on_the_next_of_its_family(model, monkeypatch):
    tried = []
    assert not fused.switched(model, single_steps_wrongly)
    monkeypatch.setattr(fused, "switched", lambda _model, patch: tried.append(patch) or True)
    monkeypatch.setattr(fused, "library", lambda _family: ["all", "all but the rotary one"])
    monkeypatch.setattr(type(model), "device", torch.device("cuda", 0))
    assert fused.fuse(model) and tried == ["all but the rotary one"]


@pytest.mark.parametrize("error", ERRORS)
def test_a_patch_that_raises_is_taken_back(model, error, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton.errors", SimpleNamespace(TritonError=TritonError))

    def patch(model):
        patch_with(1.0)(model)
        raise error

    rope = code.apply_rotary_pos_emb
    assert not fused.switched(model, patch)
    assert code.apply_rotary_pos_emb is rope and "forward" not in vars(model.model.layers[0].input_layernorm)


def by_strides(q, k, cos, sin, **_):
    """Rotation as a kernel does it that goes through memory by strides: from row to row by a step's, in place."""
    turned = []
    for given in (q, k):
        x = given.transpose(1, 2).contiguous()
        b, t, heads, d = x.shape
        rows = x.as_strided((b * t, heads, d), (x.stride(1), d, 1))
        by, across = (v.expand(b, -1, -1).reshape(b * t, 1, d) for v in (cos, sin))
        halves = torch.cat([-rows[..., d // 2 :], rows[..., : d // 2]], -1)
        rows.copy_(rows * by + halves * across)
        turned.append(x.transpose(1, 2))
    return turned


def test_a_rotary_kernel_that_goes_by_strides_reads_a_single_step_of_several_rows(model):
    draw = torch.Generator().manual_seed(0)
    q, k = (torch.randn(3, heads, 1, 8, generator=draw) for heads in (4, 2))
    angles = torch.randn(3, 1, 4, generator=draw).repeat(1, 1, 2)
    cos, sin = angles.cos(), angles.sin()
    right = code.apply_rotary_pos_emb(q, k, cos, sin)
    wrong = by_strides(q.clone(), k.clone(), cos, sin)
    found = fused.by_step(by_strides)(q.clone(), k.clone(), cos, sin)
    for a, b in zip(found, right, strict=True):
        torch.testing.assert_close(a, b)
    assert not torch.allclose(wrong[0], right[0]), "or there was nothing to mend"


def on_a_gpu(model, monkeypatch, *patches):
    """`fuse` as on a GPU, by these patches."""
    monkeypatch.setattr(fused, "library", lambda _family: list(patches))
    monkeypatch.setattr(type(model), "device", torch.device("cuda", 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "switched", lambda m, p: p)
        return fused.fuse(model)


def test_where_one_patch_fails_the_next_is_tried_and_none_at_all_is_noted(model, monkeypatch):
    assert on_a_gpu(model, monkeypatch, False, True) and loading.notes(model) == ()
    assert not on_a_gpu(model, monkeypatch, False, False)
    assert loading.notes(model, "kernels") == (fused.LEFT_OUT,)


def test_an_error_that_is_not_expected_leaves_no_patch_behind_either(model):
    def patch(model):
        patch_with(1.0)(model)
        raise KeyboardInterrupt

    rope = code.apply_rotary_pos_emb
    with pytest.raises(KeyboardInterrupt):
        fused.switched(model, patch)
    assert code.apply_rotary_pos_emb is rope and "forward" not in vars(model.model.layers[0].input_layernorm)


def test_on_a_processor_nothing_is_patched(model, monkeypatch):
    monkeypatch.setattr(fused, "library", lambda _family: [patch_with(1.0)])
    assert not fused.fuse(model) and calls == []
    assert loading.notes(model) == ()


def test_a_family_that_the_library_does_not_know_has_no_patch():
    assert fused.library("no_such_family") == []
