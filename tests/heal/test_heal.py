"""Healing: the gradient is the loss's own with history folded in, and only the factors move."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from steer_heal_love.config import HealConfig
from steer_heal_love.ground.divergence import forward_kl
from steer_heal_love.ground.errors import Diverged
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.parts import head
from steer_heal_love.ground.scoring import hidden_states, token_nll
from steer_heal_love.ground.weights import folded
from steer_heal_love.heal import examples as learned
from steer_heal_love.heal.diagnostics import validate
from steer_heal_love.heal.examples import Example, split
from steer_heal_love.heal.lora import SpectralPenalty, fresh
from steer_heal_love.heal.loss import aggregate, hinge
from steer_heal_love.heal.losses import backward, dealt, losses
from steer_heal_love.heal.optimise import Trainer, shape
from steer_heal_love.heal.train import heal
from steer_heal_love.heal.trust import largest_scale
from steer_heal_love.nouns import Adapter, Tokens

CONFIG = HealConfig(
    rank=4,
    alpha=8.0,
    epochs=4,
    lr=1e-2,
    batch=2,
    tau=0.0,
    lam=0.5,
    anchor=1.0,
    anchor_temperature=1.0,
    validation=0.0,
    anchor_validation=0.0,
    soft=0.0,
)


def examples(model, sequences) -> list[Example]:
    return [
        Example(s, h, f"prompt {s.prompt}", teacher=1.5 * h)
        for s, h in zip(sequences, hidden_states(model, sequences), strict=True)
    ]


def total(model, adapter: Adapter, kept, anchor, config) -> torch.Tensor:
    terms, _ = losses(model, kept, anchor, config)
    weights = {"nll": 1.0 - config.soft, "barrier": config.lam, "anchor": config.anchor}
    if config.soft:
        weights["soft"] = config.soft
    assert set(terms) == set(weights)
    return sum(weights[n] * t for n, t in terms.items())


@pytest.fixture
def history(model, random_adapter):
    return [random_adapter(model, 11), random_adapter(model, 12, rank=3, alpha=6.0)]


@pytest.mark.parametrize("divergence", ["reverse_kl", "forward_kl"])
@pytest.mark.parametrize("how", ["mean", "rmse", "p95", "max"])
def test_gradient_with_two_folded_rounds_is_the_finite_difference(
    model, sequences, history, random_adapter, monkeypatch, divergence, how
):
    """In float64, so the casts to fp32 of the head and of Llama's norm are left out; the rest is as it runs."""
    monkeypatch.setattr("steer_heal_love.heal.loss.narrow_head", lambda m, h: m.get_output_embeddings()(h))
    monkeypatch.setattr(
        LlamaRMSNorm,
        "forward",
        lambda self, x: self.weight * x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt(),
    )
    model.double()
    kept, anchor = (examples(model, part) for part in (sequences[:3], sequences[3:]))
    config = replace(CONFIG, divergence=divergence, aggregate=how, soft=0.3)
    new = random_adapter(model, 7, size=0.02)
    factors = {
        n: (a.double().requires_grad_(True), b.double().requires_grad_(True))
        for n, (a, b) in new.factors.items()
    }
    adapter = Adapter(factors, new.scaling)
    with folded(model, history), adapted(model, factors, adapter.scaling):
        terms, _ = losses(model, kept, anchor, config)
        assert all(t.item() > 1e-3 for t in terms.values()), "every term must be alive here"
        total(model, adapter, kept, anchor, config).backward()
        eps = 1e-5
        for name in (
            "model.layers.1.self_attn.q_proj",
            "model.layers.2.mlp.down_proj",
            "model.layers.3.self_attn.v_proj",
        ):
            for factor in factors[name]:
                flat, grad = factor.detach().view(-1), factor.grad.view(-1)
                for i in (0, flat.numel() // 2, int(grad.abs().argmax())):
                    was, ends = flat[i].item(), []
                    for sign in (1, -1):
                        flat[i] = was + sign * eps
                        with torch.no_grad():
                            ends.append(total(model, adapter, kept, anchor, config).item())
                    flat[i] = was
                    assert (ends[0] - ends[1]) / (2 * eps) == pytest.approx(
                        grad[i].item(), rel=1e-4, abs=1e-7
                    )
    assert all(p.grad is None for p in model.parameters())


def test_a_weight_scales_what_its_own_text_contributes_and_turns_it_round_below_zero(
    model, sequences, random_adapter
):
    kept = examples(model, sequences[:2])
    new = random_adapter(model, 7, size=0.02)
    factors = [f.requires_grad_(True) for pair in new.factors.values() for f in pair]
    config = replace(CONFIG, lam=0.0, anchor=0.0)

    def gradient_of(*weights: float) -> torch.Tensor:
        weighed = [replace(e, weight=w) for e, w in zip(kept, weights, strict=True)]
        with adapted(model, new.factors, new.scaling):
            terms, _ = losses(model, weighed, [], config)
            return torch.cat([g.flatten() for g in torch.autograd.grad(terms["nll"], factors)])

    first, second = gradient_of(1.0, 0.0), gradient_of(0.0, 1.0)
    assert min(first.norm(), second.norm()) > 1e-4
    torch.testing.assert_close(gradient_of(1.0, 1.0), first + second, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(gradient_of(-2.0, 0.5), 0.5 * second - 2 * first, atol=1e-6, rtol=1e-3)


def test_gradient_as_it_runs_in_fp32_is_the_slope_along_itself(model, sequences, history, random_adapter):
    kept, anchor = (examples(model, part) for part in (sequences[:3], sequences[3:]))
    new = random_adapter(model, 7, size=0.02)
    factors = [f.requires_grad_(True) for pair in new.factors.values() for f in pair]
    with folded(model, history), adapted(model, new.factors, new.scaling):
        grads = torch.autograd.grad(total(model, new, kept, anchor, CONFIG), factors)
        norm = math.sqrt(sum(g.pow(2).sum().item() for g in grads))
        eps, ends = 1e-3, []
        for sign in (1, -2):
            with torch.no_grad():
                for f, g in zip(factors, grads, strict=True):
                    f += sign * eps * g / norm
                ends.append(total(model, new, kept, anchor, CONFIG).item())
    assert (ends[0] - ends[1]) / (2 * eps) == pytest.approx(norm, rel=0.02)


def test_the_terms_are_what_they_say(model, sequences, history):
    """NLL, barrier and anchor of a folded student, by hand from plain logits."""
    config = replace(CONFIG, tau=0.05, divergence="reverse_kl", aggregate="mean", anchor_temperature=0.8)
    kept, anchor = (examples(model, part) for part in (sequences[:3], sequences[3:]))

    def logp(e):
        out = model(torch.tensor([e.tokens.prompt + e.tokens.answer])).logits[
            0, len(e.tokens.prompt) - 1 : -1
        ]
        return out.log_softmax(-1)

    base = {e.prompt: logp(e) for e in kept + anchor}
    with folded(model, history):
        terms, _ = losses(model, kept, anchor, config)
        ours = {e.prompt: logp(e) for e in kept + anchor}
    nll = torch.cat([-ours[e.prompt].gather(1, torch.tensor(e.tokens.answer)[:, None])[:, 0] for e in kept])
    reverse = [(ours[e.prompt].exp() * (ours[e.prompt] - base[e.prompt])).sum(-1).mean() for e in kept]
    cooled = {e.prompt: (base[e.prompt] / 0.8).log_softmax(-1) for e in anchor}
    forward = [(cooled[e.prompt].exp() * (cooled[e.prompt] - ours[e.prompt])).sum(-1) for e in anchor]
    assert terms["nll"].item() == pytest.approx(nll.mean().item(), rel=1e-4)
    assert terms["barrier"].item() == pytest.approx(
        sum(max(0.0, r.item() - 0.05) for r in reverse) / 3, rel=1e-3
    )
    assert terms["anchor"].item() == pytest.approx(torch.cat(forward).mean().item(), rel=1e-3)


def test_a_fresh_student_pays_nothing_but_nll(model, sequences):
    kept, anchor = (examples(model, part) for part in (sequences[:3], sequences[3:]))
    terms, _ = losses(model, kept, anchor, CONFIG)
    assert terms["barrier"].item() == pytest.approx(0, abs=1e-5)
    assert terms["anchor"].item() == pytest.approx(0, abs=1e-5)
    assert terms["nll"].item() == pytest.approx(
        torch.cat(token_nll(model, sequences[:3])).mean().item(), abs=1e-4
    )


def test_heal_lowers_nll_and_leaves_the_model_as_it_was(model, sequences, bits, hooks):
    before = bits(model)
    kept = examples(model, sequences)
    adapter, record = heal(model, kept, kept[:2], replace(CONFIG, epochs=12, lam=0.0, anchor=0.1))
    assert hooks(model) == 0
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(not p.requires_grad and p.grad is None for p in model.parameters())
    assert all(not f.requires_grad for pair in adapter.factors.values() for f in pair)
    plain = torch.cat(token_nll(model, sequences)).mean()
    with adapted(model, adapter.factors, adapter.scaling):
        healed = torch.cat(token_nll(model, sequences)).mean()
    assert healed < plain - 0.5
    assert len(record.steps) == 12 * math.ceil(len(kept) / 2)
    assert len(record.validation) == 12


@pytest.mark.parametrize("taught", [True, False])
def test_held_out_text_is_read_against_its_teacher_where_it_has_one(model, sequences, taught):
    held = [replace(e, teacher=e.teacher if taught else None) for e in examples(model, sequences)]
    found = validate(model, held, held[:2], CONFIG, 64)
    texts = [(e, h) for e, h in zip(held, hidden_states(model, [e.tokens for e in held]), strict=True)]
    kl = lambda theirs, h: forward_kl(head(model, theirs), head(model, h))
    assert found["divergence"] == pytest.approx(0, abs=1e-6), "the reference is the model itself"
    assert ("soft" in found) == taught
    if taught:
        apart = torch.cat([kl(e.teacher, h) for e, h in texts]).mean().item()
        assert found["soft"] == pytest.approx(apart, rel=1e-4) and apart > 0.01


def test_only_the_factors_get_gradients(model, sequences):
    kept = examples(model, sequences)
    new = fresh(model, rank=4, alpha=8.0, share=(0.2, 0.8), seed=0)
    factors = [f.requires_grad_(True) for pair in new.factors.values() for f in pair]
    with adapted(model, new.factors, new.scaling):
        total(model, new, kept[:3], kept[3:], CONFIG).backward()
    assert all(p.grad is None for p in model.parameters())
    assert all(b.grad is not None and b.grad.abs().sum() > 0 for _, b in new.factors.values())
    assert len(factors) == 2 * len(new.factors)


def test_heal_is_a_function_of_its_seed(model, sequences):
    kept = examples(model, sequences)
    one, again, other = (heal(model, kept, kept[:2], CONFIG, seed=s)[0] for s in (1, 1, 2))
    for n, (a, b) in one.factors.items():
        assert torch.equal(a, again.factors[n][0]) and torch.equal(b, again.factors[n][1])
    assert any(not torch.equal(b, other.factors[n][1]) for n, (_, b) in one.factors.items())


def test_the_anchor_and_the_barrier_hold_the_student_back(model, sequences):
    kept, anchor = (examples(model, part) for part in (sequences[:3], sequences[3:]))

    def drift(config):
        adapter, _ = heal(model, kept, anchor, config)
        with adapted(model, adapter.factors, adapter.scaling):
            found, _ = losses(model, kept, anchor, replace(CONFIG, lam=1.0))
        return found["anchor"].item(), found["barrier"].item()

    free = replace(CONFIG, epochs=8, lam=0.0, anchor=0.0)
    loose = drift(free)
    assert drift(replace(free, anchor=10.0))[0] < 0.5 * loose[0]
    assert drift(replace(free, lam=10.0))[1] < 0.5 * loose[1]


def test_a_loss_that_is_not_a_number_stops_and_leaves_no_trace(model, sequences, history, hooks, bits):
    before = bits(model)
    kept = examples(model, sequences)
    kept[2] = replace(kept[2], reference=torch.full_like(kept[2].reference, math.nan))
    with pytest.raises(Diverged, match="step"), folded(model, history):
        heal(model, kept, kept[:1], CONFIG)
    assert hooks(model) == 0
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    heal(model, kept[:2], kept[:1], replace(CONFIG, epochs=1))


def trainer_of(model) -> Trainer:
    adapter = fresh(model, rank=2, alpha=4.0, share=(0.0, 1.0), seed=0)
    trainer = Trainer(model, adapter, replace(CONFIG, spectral=0.1), 4)
    for f in trainer.parameters:
        f.grad = torch.ones_like(f)
    return trainer


def test_a_step_taken_ahead_has_its_row_completed_by_the_next_one_or_at_the_end(model):
    trainer, asked = trainer_of(model), []
    first = trainer.update(lambda: asked.append(1) or {"nll": 1.0}, ahead=True)
    assert first.keys() == {"step", "lr"} and not asked
    second = trainer.update(lambda: asked.append(2) or {"nll": 2.0}, ahead=True)
    assert list(first) == ["step", "lr", "nll", "spectral"] and asked == [1]
    trainer.end()
    assert (second["step"], second["nll"]) == (1, 2.0) and second["spectral"] > 0 and asked == [1, 2]
    trainer.end()
    assert asked == [1, 2], "once each"


def test_a_step_that_is_not_taken_ahead_is_not_taken_where_a_term_is_not_a_number(model):
    """What samples from the adapter next would draw from weights that are no numbers."""
    trainer = trainer_of(model)
    before = [f.detach().clone() for f in trainer.parameters]
    with pytest.raises(Diverged, match="step 0"):
        trainer.update(lambda: {"loss": math.nan})
    assert all(torch.equal(f, b) for f, b in zip(trainer.parameters, before, strict=True))
    trainer.update(lambda: {"loss": math.nan}, ahead=True)
    with pytest.raises(Diverged, match="step 0"):
        trainer.end()


@pytest.mark.parametrize(
    ("curve", "budget", "low", "high"),
    [
        (lambda s: 0.06 * s**2, 0.009, 0.375, 0.388),
        (lambda s: 0.02 + 0.04 * s**1.5, 0.028, 0.3, 0.342),  # earlier rounds cost most of the budget
        (lambda s: 0.03 + 0.01 * s, 0.038, 0.6, 0.8),
        (lambda s: 0.01 if s < 0.3 else 0.06, 0.028, 0.25, 0.3),  # not convex: slower, still inside
        (lambda s: 0.05 + 0.01 * s, 0.038, 0.0, 0.0),  # earlier rounds cost all of it
        (lambda s: 0.03 * s, 0.038, 1.0, 1.0),
    ],
)
def test_the_trust_region_finds_the_crossing_whatever_went_before(curve, budget, low, high):
    scale, cost = largest_scale(curve, budget, spent_nats=curve(0.0))
    assert low <= scale <= high
    assert cost == curve(scale)
    assert cost <= budget or scale == 0


@pytest.mark.parametrize("spent", [0.0, 0.006, 0.018])
@pytest.mark.parametrize("cross", [0.0, 0.01, 0.03])
@pytest.mark.parametrize("start", [0.2, 0.5, 1.0])
def test_the_trust_region_needs_three_readings_of_a_parabola(spent, cross, start):
    read = []
    curve = lambda c: read.append(c) or spent + cross * c + 0.03 * c * c
    scale, cost = largest_scale(curve, 0.021, spent_nats=spent, start=start)
    assert len(read) <= 3
    assert 0.95 * 0.021 <= cost <= 0.021 or scale == 1.0


@pytest.mark.parametrize("micro", [1, 2, 3])
def test_small_forward_passes_add_up_to_the_steps_own_gradient(model, sequences, random_adapter, micro):
    kept, anchor = (examples(model, part) for part in (sequences[:3], sequences[3:]))
    config = replace(CONFIG, soft=0.3, aggregate="rmse", micro_batch=micro)
    weights = {"nll": 0.7, "soft": 0.3, "barrier": 0.5, "anchor": 1.0}
    new = random_adapter(model, 7, size=0.02)
    factors = [f.requires_grad_(True) for pair in new.factors.values() for f in pair]
    with adapted(model, new.factors, new.scaling):
        terms, _ = losses(model, kept, anchor, config)
        whole = torch.autograd.grad(sum(weights[n] * t for n, t in terms.items()), factors)
        means = backward(model, kept, anchor, config, weights)
    told = {n: t.item() for n, t in means.items()}
    assert told == {n: pytest.approx(t.item(), rel=1e-4) for n, t in terms.items()}
    for f, want in zip(factors, whole, strict=True):
        assert torch.allclose(f.grad, want, atol=1e-5 * float(want.abs().max()) + 1e-9, rtol=1e-3)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_step_is_dealt_out_whole_in_loads_that_are_nearly_equal(model, sequences, processes):
    kept, anchor = (examples(model, part) for part in (sequences[:3], sequences[3:]))
    hands = dealt(kept, anchor, processes)
    assert len(hands) == processes
    for kind, part in enumerate((kept, anchor)):
        counts = [len(hand[kind]) for hand in hands]
        assert sum(counts) == len(part) and max(counts) <= math.ceil(len(part) / processes)
        assert {id(e) for hand in hands for e in hand[kind]} == {id(e) for e in part}
    long, short = (replace(kept[0], tokens=Tokens((1,), (2,) * n)) for n in (9, 3))
    loads = [sum(len(e.tokens.answer) for e in kept) for kept, _ in dealt([long, long, short, short], [], 2)]
    assert loads == [12, 12]


def test_two_kinds_of_text_read_apart_have_the_terms_and_gradient_of_one_batch(
    model, sequences, random_adapter, monkeypatch
):
    kept, anchor = (examples(model, part) for part in (sequences[:3], sequences[3:]))
    config = replace(CONFIG, soft=0.3)
    weights = {"nll": 0.7, "soft": 0.3, "barrier": 0.5, "anchor": 1.0}
    new = random_adapter(model, 7, size=0.02)
    factors = [f.requires_grad_(True) for pair in new.factors.values() for f in pair]
    found = []
    with adapted(model, new.factors, new.scaling):
        for padding, batches in ((math.inf, 1), (0.0, 2)):
            monkeypatch.setattr(learned, "PADDING", padding)
            assert len(learned.alike(kept, anchor)) == batches
            terms, _ = losses(model, kept, anchor, config)
            gradient = torch.autograd.grad(sum(weights[n] * t for n, t in terms.items()), factors)
            found.append(({n: t.item() for n, t in terms.items()}, gradient))
    (whole, together), (parts, apart) = found
    assert parts == {n: pytest.approx(t, rel=1e-4) for n, t in whole.items()}
    for got, want in zip(apart, together, strict=True):
        assert torch.allclose(got, want, atol=1e-5 * float(want.abs().max()) + 1e-9, rtol=1e-3)


def test_padding_is_saved_where_it_would_be_most_of_a_batch():
    def of(*lengths):
        return [learned.Example(Tokens((1,), (2,) * (n - 1)), torch.empty(0, 4), "") for n in lengths]

    assert len(learned.alike(of(100, 90), of(80, 70))) == 1
    assert [len(part) for part in learned.alike(of(600, 580), of(180, 200, 190))] == [2, 3]
    assert len(learned.alike(of(600), [])) == 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, []),
        ({"tau": 1e3}, ["the barrier never fired: divergence stayed under heal.tau = 1000.0"]),
        ({"tau": 1e3, "lam": 0.0}, []),
        ({"anchor": 1e3}, ["the anchor dominates: its gradient is"]),
        ({"lam": 1e3}, ["the barrier dominates: its gradient is"]),
    ],
)
def test_a_term_that_never_fires_or_dominates_is_told(model, sequences, settings, told):
    kept, anchor = examples(model, sequences[:3]), examples(model, sequences[3:])
    _, record = heal(model, kept, anchor, replace(CONFIG, **settings))
    assert len(record.warnings) == len(told)
    assert all(found.startswith(said) for found, said in zip(record.warnings, told, strict=True))
    for found in (w for w in record.warnings if "dominates" in w):
        name, times = found.split()[1], float(found.split()[-4])
        seen = [p[name] for p in record.gradient_ratios]
        assert times == pytest.approx(sum(seen) / len(seen), abs=0.06) and times > 2


def test_aggregates_by_hand():
    values = torch.arange(1.0, 22.0)
    assert aggregate(values, "mean").item() == pytest.approx(11.0)
    assert aggregate(values, "rmse").item() == pytest.approx(
        math.sqrt(sum(i * i for i in range(1, 22)) / 21), rel=1e-5
    )
    assert aggregate(values, "p95").item() == pytest.approx(20.0)
    assert aggregate(values, "max").item() == 21.0
    with pytest.raises(ValueError, match="median"):
        aggregate(values, "median")


def test_hinge_is_a_mean_over_completions_of_what_is_above_tau():
    values = torch.tensor([0.0, 0.2, 1.0, 2.0, 3.0, 0.05])
    found = hinge(values, [2, 3, 1], "mean", 0.5)
    assert found.item() == pytest.approx((0 + 1.5 + 0) / 3)
    assert hinge(values, [2, 3, 1], "max", 0.1).item() == pytest.approx((0.1 + 2.9 + 0) / 3)


def test_the_spectral_penalty_is_the_svds(model, random_adapter):
    adapter = random_adapter(model, 3)
    penalty = SpectralPenalty(adapter)
    for _ in range(200):
        found = penalty(adapter)
    sigma = [torch.linalg.svdvals(adapter.scaling * b @ a)[0] for a, b in adapter.factors.values()]
    assert found.item() == pytest.approx((sum(s**2 for s in sigma) / len(sigma)).item(), rel=1e-3)


def test_the_spectral_penaltys_gradient_is_the_svds(model, random_adapter):
    adapter = random_adapter(model, 3)
    penalty = SpectralPenalty(adapter)
    for _ in range(200):
        penalty(adapter)
    leaves = [b.requires_grad_(True) for _, b in adapter.factors.values()]
    ours = torch.autograd.grad(penalty(adapter), leaves)
    exact = torch.stack(
        [torch.linalg.matrix_norm(adapter.scaling * b @ a, 2) ** 2 for a, b in adapter.factors.values()]
    )
    for g, want in zip(ours, torch.autograd.grad(exact.mean(), leaves), strict=True):
        assert torch.allclose(g, want, rtol=0.05, atol=0.05 * want.abs().max().item())


def test_the_spectral_penalty_of_a_fresh_adapter_is_zero_and_it_wakes_up(model, random_adapter):
    new = fresh(model, rank=4, alpha=8.0, share=(0.2, 0.8), seed=0)
    penalty = SpectralPenalty(new)
    assert penalty(new).item() == 0.0
    later = random_adapter(model, 3)
    for _ in range(200):
        found = penalty(later)
    sigma = [torch.linalg.svdvals(later.scaling * b @ a)[0] ** 2 for a, b in later.factors.values()]
    assert found.item() == pytest.approx((sum(sigma) / len(sigma)).item(), rel=1e-3)


def test_the_spectral_penalty_keeps_delta_w_small(model, sequences):
    kept = examples(model, sequences)
    free = replace(CONFIG, epochs=6, lam=0.0, anchor=0.0)

    def largest(config):
        adapter, _ = heal(model, kept, [], config)
        return max(
            torch.linalg.matrix_norm(adapter.scaling * b @ a, 2).item() for a, b in adapter.factors.values()
        )

    assert largest(replace(free, spectral=10.0)) < 0.7 * largest(free)


def test_split_keeps_a_prompt_wholly_on_one_side(model, sequences):
    one = examples(model, sequences[:1])[0]
    many = [replace(one, prompt=f"prompt {i % 10}") for i in range(37)]
    for seed in range(5):
        train, held = split(many, 0.3, seed)
        assert len(train) + len(held) == len(many)
        assert len({e.prompt for e in held}) == 3
        assert not {e.prompt for e in train} & {e.prompt for e in held}
    assert split(many, 0.0, 0)[1] == []
    assert {e.prompt for e in split(many, 0.3, 0)[1]} != {e.prompt for e in split(many, 0.3, 1)[1]}


def test_the_schedule_warms_up_and_ends_at_zero():
    rates = [shape(s, 100) for s in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0)
    assert all(a <= b for a, b in itertools.pairwise(rates[:10]))
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0.0, abs=1e-9)
