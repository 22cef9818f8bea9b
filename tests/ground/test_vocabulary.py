"""Readings of whole rows of logits: the same numbers by torch and by kernels, whatever type the logits come in."""

import importlib.util
import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from steer_heal_love.ground import decode, divergence, vocabulary
from steer_heal_love.ground.divergence import entropy, forward_kl
from steer_heal_love.ground.hooks import biased, cooled
from steer_heal_love.ground.parts import bare, head, narrow_head

INTERPRETED = """
from steer_heal_love.ground import vocabulary, vocabulary_kernels
assert vocabulary.agree(vocabulary_kernels, "cpu")
"""


def by_torch(**wrong):
    """What stands in for the kernels; `wrong`: by how much one of them is off."""

    def kl(reference, student, *, by_reference=False, by_student=False):
        log_p, log_q = reference.float().log_softmax(-1), student.float().log_softmax(-1)
        p, apart = log_p.exp(), (log_p - log_q).nan_to_num(neginf=0.0)
        found = (p * apart).sum(-1) + wrong.get("kl", 0.0)
        gradient = log_q.exp() - p + wrong.get("gradient", 0.0)
        by = (p * (apart - found.unsqueeze(-1))).to(reference.dtype) if by_reference else None
        return found, by, gradient.to(student.dtype) if by_student else None

    def drawn(logits, uniform, temperature, min_p):
        return decode.choose(logits.double(), uniform, temperature, min_p) + wrong.get("drawn", 0)

    nll = lambda logits, targets: (
        cross_entropy(logits.float(), targets, reduction="none") + wrong.get("nll", 0.0)
    )
    return SimpleNamespace(forward_kl=kl, drawn=drawn, nll=nll)


@pytest.fixture
def fused(monkeypatch):
    """Every reading by what stands in for the kernels; counts them."""
    asked = []
    kernels = by_torch()
    monkeypatch.setattr(vocabulary, "kernels", lambda *given: asked.append(given) or kernels)
    monkeypatch.setattr(divergence, "kernels", lambda *given: asked.append(given) or kernels)
    monkeypatch.setattr(
        decode,
        "kernels",
        lambda *given: None if given[0].dtype == torch.float64 else asked.append(given) or kernels,
    )
    return asked


def logits(dtype=torch.float32):
    draw = torch.Generator().manual_seed(4)
    return [(3 * torch.randn(5, 40, generator=draw)).to(dtype) for _ in range(2)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_narrow_logits_are_read_as_wide_ones(dtype):
    p, q = logits(dtype)
    targets = torch.tensor([0, 3, 7, 39, 5])
    exact = cross_entropy(p.double(), targets, reduction="none")
    found = vocabulary.nll(p, targets)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.allclose(found.double(), exact, atol=1e-5)
    assert torch.allclose(forward_kl(p, q).double(), forward_kl(p.double(), q.double()), atol=1e-5)
    assert torch.allclose(entropy(p).double(), entropy(p.double()), atol=1e-5)


def test_a_likelihood_that_is_learnt_has_its_gradient(fused):
    p, _ = logits()
    p.requires_grad_()
    vocabulary.nll(p, torch.zeros(5, dtype=torch.long)).sum().backward()
    assert p.grad is not None and not fused
    vocabulary.nll(p.detach(), torch.zeros(5, dtype=torch.long))
    assert fused


def test_a_divergence_by_kernels_has_torchs_value_and_gradients(monkeypatch, fused):
    ways = []
    for fuses in (True, False):
        if not fuses:
            monkeypatch.setattr(divergence, "kernels", lambda *_: None)
        p, q = (x.requires_grad_() for x in logits())
        kl = forward_kl(p, q)
        (kl * torch.arange(5)).sum().backward()
        ways.append((kl, p.grad, q.grad))
    assert fused
    for ours, theirs in zip(*ways, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_draw_by_kernels_is_torchs(fused):
    p, _ = logits()
    uniform = torch.linspace(0.1, 0.9, 5)
    found = decode.choose(p, uniform, 0.7, 0.05)
    assert fused
    assert torch.equal(found, decode.choose(p.double(), uniform, 0.7, 0.05))
    count = len(fused)
    assert torch.equal(decode.choose(p, uniform, 0.0, 0.05), p.argmax(-1))
    assert len(fused) == count, "the likeliest token needs no kernel"


def test_kernels_are_for_a_gpu_and_for_what_they_read():
    assert vocabulary.kernels(torch.zeros(1, 4)) is None
    on_gpu = lambda dtype: SimpleNamespace(is_cuda=True, dtype=dtype, device="cuda")
    assert vocabulary.kernels(on_gpu(torch.float64)) is None


@pytest.mark.parametrize("wrong", ["nll", "kl", "gradient", "drawn"])
def test_kernels_with_other_numbers_than_torchs_are_not_used(wrong):
    assert vocabulary.agree(by_torch(), "cpu")
    assert not vocabulary.agree(by_torch(**{wrong: 1 if wrong == "drawn" else 0.02}), "cpu")


def test_where_there_is_no_triton_torch_reads(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "steer_heal_love.ground.vocabulary_kernels", raising=False)
    vocabulary.tried.cache_clear()
    with caplog.at_level(logging.INFO):
        assert vocabulary.tried(torch.device("cuda")) is None
    assert "left out" in caplog.text
    vocabulary.tried.cache_clear()


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="comes with torch for CUDA")
def test_the_kernels_themselves_interpreted():
    env = os.environ | {"TRITON_INTERPRET": "1"}
    assert subprocess.run([sys.executable, "-c", INTERPRETED], env=env, check=False).returncode == 0


def test_the_divergence_of_what_is_ruled_out_is_what_it_is_in_torch():
    p, q = logits()
    p[:, 3] = -torch.inf
    expected = kl_div(q.log_softmax(-1), p.log_softmax(-1).clamp(min=-1e4), reduction="none", log_target=True)
    assert torch.allclose(forward_kl(p, q), expected.sum(-1), atol=1e-5)


def test_narrow_logits_are_the_output_layers_own(model):
    model.to(torch.bfloat16)
    hidden = torch.randn(3, model.config.hidden_size, dtype=torch.bfloat16)
    assert narrow_head(model, hidden).dtype == bare(model)(hidden).dtype == torch.bfloat16
    wide = head(model, hidden)
    assert wide.dtype == torch.float32 and torch.equal(wide, narrow_head(model, hidden).float())
    with biased(model, torch.full((wide.shape[1],), 1e-3)):
        assert narrow_head(model, hidden).dtype == torch.float32
        assert torch.allclose(narrow_head(model, hidden), wide + 1e-3)
        assert bare(model)(hidden).dtype == torch.bfloat16
    with cooled(model, 0.5):
        assert torch.equal(narrow_head(model, hidden), wide / 0.5)
    model.config.final_logit_softcapping = 2.0
    try:
        assert narrow_head(model, hidden).dtype == torch.float32
        assert torch.allclose(narrow_head(model, hidden), 2 * torch.tanh(wide / 2))
    finally:
        model.config.final_logit_softcapping = None
