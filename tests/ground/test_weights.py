"""Folding: exact inside, without a trace outside."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from steer_heal_love.ground import weights
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.weights import folded, rounded
from steer_heal_love.nouns import Adapter

IDS = torch.arange(3, 27).reshape(3, 8)


def same(model, before) -> bool:
    now = model.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[n], t) for n, t in before.items())


@pytest.fixture
def rounds(model, random_adapter):
    return [
        random_adapter(model, 1),
        random_adapter(model, 2, rank=3, alpha=2.0, share=(0.0, 0.6)),
    ]


def test_fold_is_w_plus_scaled_products(model, rounds, bits):
    before = bits(model)
    names = {n for r in rounds for n in r.factors}
    with folded(model, rounds):
        for name, weight in model.state_dict().items():
            module = name.removesuffix(".weight")
            want = before[name].clone()
            for r in rounds:
                if module in r.factors:
                    a, b = r.factors[module]
                    want += r.scaling * (b @ a)
            assert torch.allclose(weight, want, atol=1e-6)
            assert torch.equal(weight, before[name]) == (module not in names)
    assert same(model, before)


def test_no_rounds_change_nothing(model, bits):
    before = bits(model)
    with folded(model, []):
        assert same(model, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_leaving_restores_the_bits_after_an_exception_too(model, rounds, bits, dtype):
    model.to(dtype)
    before = bits(model)
    for _ in range(3):
        with folded(model, rounds):
            assert not same(model, before)
    assert same(model, before)
    with pytest.raises(KeyError, match="in the body"), folded(model, rounds):
        raise KeyError("in the body")
    assert same(model, before)
    with folded(model, rounds):
        assert not same(model, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_updates_too_small_for_the_type_arrive_in_the_mean(model, random_adapter, bits, dtype):
    """Rounding to the nearest would lose most of them; each entry moves at most to a neighbour."""
    model.to(dtype)
    small = [random_adapter(model, s, size=3e-4 if dtype == torch.bfloat16 else 4e-5) for s in (1, 2, 3)]
    before = bits(model)
    with folded(model, small):
        for name in small[0].factors:
            w = before[f"{name}.weight"].float()
            update = sum(r.scaling * (r.factors[name][1] @ r.factors[name][0]) for r in small)
            arrived = model.get_submodule(name).weight.float() - w
            nearest = (w + update).to(dtype).float() - w
            kept = lambda found, update=update: ((found * update).sum() / update.pow(2).sum()).item()
            assert kept(nearest) < 0.7
            assert kept(arrived) == pytest.approx(1.0, abs=0.25)
            unit = w.abs() * torch.finfo(dtype).eps + 1e-6
            assert ((arrived - update).abs() <= unit + update.abs() * 0.01).all()


def test_what_the_type_holds_exactly_stays_and_the_draw_is_the_same_every_time():
    exact = torch.randn(64, 32, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    assert torch.equal(rounded(exact, torch.bfloat16, "w").float(), exact)
    between = exact * (1 + 2**-10)
    one, again, other = (rounded(between, torch.bfloat16, n) for n in ("w", "w", "v"))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert torch.equal(rounded(between, torch.float32, "w"), between)


def test_a_failure_half_way_through_folding_restores_the_bits(model, rounds, bits, monkeypatch):
    monkeypatch.setattr("steer_heal_love.ground.fits.adapter", lambda *_: None)  # would refuse it at once
    before = bits(model)
    broken = dict(rounds[0].factors)
    last = max(broken)
    broken[last] = (torch.zeros(2, 5), torch.zeros(7, 2))
    with pytest.raises(RuntimeError), folded(model, [Adapter(broken, 1.0)]):
        raise AssertionError("the last module's factors do not fit")
    assert same(model, before)
    with folded(model, rounds):
        assert not same(model, before)


def test_an_injected_failure_of_the_nth_write_restores_the_bits(model, rounds, bits, monkeypatch):
    before, real, calls = bits(model), torch.Tensor.copy_, []

    def copy_(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("injected")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "copy_", copy_)
    with pytest.raises(RuntimeError, match="injected"), folded(model, rounds):
        raise AssertionError("folding was to fail")
    monkeypatch.undo()
    assert len(calls) > 4
    assert same(model, before)


def test_folded_logits_are_the_adapted_ones(model, rounds):
    with torch.no_grad():
        plain = model(IDS).logits
        with folded(model, rounds[:1]):
            inside = model(IDS).logits
        with adapted(model, rounds[0].factors, rounds[0].scaling):
            factored = model(IDS).logits
        assert torch.allclose(inside, factored, atol=1e-3)
        assert (inside - plain).abs().amax() > 0.1
        with folded(model, rounds):
            both = model(IDS).logits
        with (
            folded(model, rounds[:1]),
            adapted(model, rounds[1].factors, rounds[1].scaling),
        ):
            mixed = model(IDS).logits
        assert torch.allclose(both, mixed, atol=1e-3)


def test_a_weight_that_wants_gradients_is_refused_and_nothing_is_left(model, rounds, bits):
    before = bits(model)
    name = sorted(rounds[0].factors)[2]
    model.get_submodule(name).weight.requires_grad_(True)
    with pytest.raises(RuntimeError, match="gradients"), folded(model, rounds):
        raise AssertionError("folded a weight that wants gradients")
    model.get_submodule(name).weight.requires_grad_(False)
    assert same(model, before)
    with folded(model, rounds):
        assert not same(model, before)


def test_entering_twice_is_refused_and_the_first_goes_on(model, rounds, bits):
    before = bits(model)
    with folded(model, rounds):
        inside = bits(model)
        with pytest.raises(RuntimeError, match="already inside"), folded(model, rounds):
            raise AssertionError("folded twice")
        assert same(model, inside)
    assert same(model, before)


def test_copies_go_to_the_host_where_the_device_has_no_room_for_them(monkeypatch):
    class OnGpu:
        is_cuda, device = True, torch.device("cuda")
        numel = staticmethod(lambda: 1000)
        element_size = staticmethod(lambda: 2)

    free = {"bytes": 4001}
    monkeypatch.setattr(weights, "free_bytes", lambda _device: free["bytes"])
    assert weights.shelter([OnGpu()]) is None
    free["bytes"] = 3999
    assert weights.shelter([OnGpu()]) == torch.device("cpu")
    assert weights.shelter([torch.zeros(3)]) is None


def test_a_fold_whose_copies_are_elsewhere_is_undone_exactly(model, random_adapter, monkeypatch):
    monkeypatch.setattr(weights, "shelter", lambda _weights: torch.device("cpu"))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    with folded(model, [random_adapter(model, 1)]):
        assert any(not torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_what_is_sheltered_on_the_host_is_brought_there_once_unless_a_weight_has_changed(
    model, random_adapter, monkeypatch
):
    monkeypatch.setattr(weights, "shelter", lambda _weights: torch.device("cpu"))
    update, before = random_adapter(model, 1), {n: p.detach().clone() for n, p in model.named_parameters()}
    modules = [model.get_submodule(name) for name in update.factors]

    def copies():
        with folded(model, [update]):
            assert not all(torch.equal(p, before[n]) for n, p in model.named_parameters())
        assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
        return [weights._sheltered[m][1] for m in modules]

    first = copies()
    assert all(a is b for a, b in zip(copies(), first, strict=True))
    with pytest.raises(KeyError), folded(model, [update]):
        raise KeyError  # whatever ends a fold
    assert all(a is b for a, b in zip(copies(), first, strict=True))
    edited = next(n for n, p in model.named_parameters() if p is modules[0].weight)
    with torch.no_grad():
        modules[0].weight += 1
    before[edited] += 1
    again = copies()
    assert again[0] is not first[0] and all(a is b for a, b in zip(again[1:], first[1:], strict=True))
    model.to(torch.bfloat16)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    assert all(c.dtype is torch.bfloat16 for c in copies())


def test_a_student_that_is_folded_again_is_copied_and_has_the_same_bits(model, rounds, bits, monkeypatch):
    """Where there is room for it; another student's weights are forgotten, and one's own are never those edited in place."""
    model.to(torch.bfloat16)
    before, folds, sums = bits(model), weights.Folds(), []
    summed = weights.summed
    monkeypatch.setattr(weights, "roomy", lambda _weights: True)
    monkeypatch.setattr(weights, "summed", lambda *a: sums.append(a[1]) or summed(*a))
    with folded(model, rounds):
        expected = bits(model)
    each = len(sums)
    for count in (2 * each, 2 * each):
        with folded(model, rounds, folds):
            assert same(model, expected)
            for name in rounds[0].factors:
                model.get_submodule(name).weight.data.zero_()  # what is remembered are copies
        assert same(model, before) and len(sums) == count
    with folded(model, rounds[:1], folds):
        assert not same(model, expected)
    with folded(model, list(rounds), folds):
        assert same(model, expected)
    assert len(sums) > 3 * each


def test_folded_weights_stay_only_on_a_gpu_with_room_for_six_more(model, rounds, monkeypatch):
    folds = weights.Folds()
    with folded(model, rounds, folds):
        pass
    assert not folds.of(rounds)  # a processor

    class OnGpu:
        device = torch.device("cuda", 0)
        numel, element_size = (lambda _self: 1000), (lambda _self: 2)

    free = {"bytes": 16_000}
    monkeypatch.setattr(weights, "unclaimed_bytes", lambda: free["bytes"])
    monkeypatch.setattr(weights, "unused_bytes", lambda: 8_000)
    monkeypatch.setattr(torch.cuda, "device", lambda _device: nullcontext())
    assert weights.roomy([OnGpu(), OnGpu()])
    free["bytes"] -= 1
    assert not weights.roomy([OnGpu(), OnGpu()])
