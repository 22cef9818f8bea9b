"""Transfer: how a student's hidden states moved by themselves, against the vector that its teacher was steered with.

Its own shift is the mean difference, over the extraction contexts c under the neutral prompt, at the assistant tag:

    s_l = mean_c [ h_l^student(c) − h_l^base(c) ]

cosine_l = cos(s_l, v_l) with the teacher vector v; carried_dose = ⟨s, v⟩/⟨v, v⟩, the dose of v that s amounts to.
Chance is what DRAWS directions without meaning reach: Gaussian ones, and differences between random halves of the
contexts (`halves`), which lie where this model's states vary anyway. The control is the s of a student healed the
same way on text that nothing steered: what healing moves along v by itself.

Sufficient: trait(base + s) over the student's. Remaining: trait(student − s) over the student's; both paired by item,
with an interval. s is added at the topmost layer read, once, since a shift read at one layer already holds what the
layers below added.

Ledger: KL per token, mean and 95th percentile, since base (`total`) and since the round before (`round`), on the
base's own neutral answers, KL(before‖student), and on the student's own samples, KL(student‖before).
Invariant: a student that is the base has s = 0, every KL 0, and cosines and shares NaN.
Source: arXiv 2606.00995.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steer_heal_love.evals import BASE, NEUTRAL, OWN, Subject, kept_as
from steer_heal_love.evals.probes import probes
from steer_heal_love.ground import places
from steer_heal_love.ground.divergence import forward_kl
from steer_heal_love.ground.hooks import added
from steer_heal_love.ground.models import narrow_head
from steer_heal_love.ground.progress import Advance
from steer_heal_love.ground.state_cache import Hidden, from_states
from steer_heal_love.ground.states import States, states
from steer_heal_love.ground.stats import bootstrap, paired, ratio, subtract
from steer_heal_love.nouns import Alignment, Along, Causes, Chance, Divergence, Score, Stage, Tokens

Directions = Mapping[int, Float[Tensor, " d"]]
Context = Callable[[], AbstractContextManager[None]]
DRAWS = 32
AFTER_GAUSSIAN = 1
"""added to the seed, so that the halves are other draws than the Gaussian directions"""


def count(s: Subject, contexts: list[str], healed: Stage, *, full: bool) -> int:
    """Texts that are read: for the shift, and where `full` for the ledger and the causes."""
    more = 2 * len(s.neutral) + 3 * len(healed.samples) + 3 * len(s.probes)
    return 2 * len(contexts) + full * more


def own_shift(
    s: Subject,
    contexts: list[str],
    at: list[int],
    student: Context,
    advance: Advance = lambda _n: None,
    hook: str = "",
    base: States | None = None,
) -> tuple[dict[int, Float[Tensor, " d"]], States]:
    """The student's shift by layer, on the residual stream or at the linear module `hook`, and the base's states that it is
    read against: `base`, where they have been read before."""
    prompts = [s.prompt(c) for c in contexts]
    if base is None:
        base = states(s.model, prompts, at, s.batch_tokens, advance, hook)
    else:
        advance(len(prompts))
    with student():
        own = states(s.model, prompts, at, s.batch_tokens, advance, hook)
    return places.Directions({i: (own[i] - base[i]).mean(0) for i in at}, hook=hook), base


def cosine(a: Directions, b: Directions) -> float:
    """Over the layers both have, concatenated; NaN where one of them is zero."""
    x, y = (torch.cat([v[i].float() for i in sorted(a.keys() & b.keys())]) for v in (a, b))
    norms = x.norm() * y.norm()
    return ((x @ y) / norms).item() if norms > 0 else math.nan


def along(shift: Directions, teacher: Directions) -> Along:
    """Cosine with the teacher by layer and over all, and how much of it the shift amounts to."""
    at = sorted(shift.keys() & teacher.keys())
    inner = sum((shift[i] @ teacher[i].float()).item() for i in at)
    return {
        "layers": at,
        "cosine_by_layer": [cosine({i: shift[i]}, {i: teacher[i]}) for i in at],
        "cosine": cosine(shift, teacher),
        "carried_dose": inner / sum(teacher[i].float().pow(2).sum().item() for i in at),
        "shift_norm_by_layer": [shift[i].norm().item() for i in at],
    }


def alignment(shift: Directions, teacher: Directions, base: States, *, seed: int) -> Alignment:
    """`along`, beside what chance reaches."""
    shared = {i: s for i, s in shift.items() if i in teacher}
    random, split = gaussian(shared, seed), halves(base, seed)
    return {**along(shared, teacher), "random": spread(shared, random), "halves": spread(shared, split)}


def spread(shift: Directions, others: list[dict[int, Float[Tensor, " d"]]]) -> Chance:
    """Cosines of `shift` with directions without meaning."""
    found = np.array([cosine(shift, other) for other in others])
    by_layer = np.array([[cosine({i: shift[i]}, {i: other[i]}) for i in sorted(shift)] for other in others])
    return {
        "mean": float(found.mean()),
        "sd": float(found.std(ddof=1)),
        "largest": float(np.abs(found).max()),
        "largest_by_layer": np.abs(by_layer).max(0).tolist(),
        "n": len(found),
    }


def gaussian(like: Directions, seed: int, draws: int = DRAWS) -> list[dict[int, Float[Tensor, " d"]]]:
    draw = torch.Generator().manual_seed(seed)
    return [{i: torch.randn(v.shape, generator=draw) for i, v in like.items()} for _ in range(draws)]


def halves(base: States, seed: int, draws: int = DRAWS) -> list[dict[int, Float[Tensor, " d"]]]:
    """Mean differences between random halves of the contexts, of which there are at least two."""
    draw = torch.Generator().manual_seed(seed + AFTER_GAUSSIAN)
    n = len(next(iter(base.values())))
    weight = torch.empty(draws, n)
    for row in weight:
        order = torch.randperm(n, generator=draw)
        row[order[: n // 2]] = 1 / (n // 2)
        row[order[n // 2 :]] = -1 / (n - n // 2)
    found = {i: weight @ h for i, h in base.items()}
    return [{i: each[k] for i, each in found.items()} for k in range(draws)]


def causes(
    s: Subject,
    shift: Directions,
    student: Context,
    base: Stage,
    healed: Stage,
    *,
    seed: int,
    advance: Advance = lambda _n: None,
) -> Causes:
    """Trait shifts from base with the shift put into the base, and taken out of the student."""
    top = max(shift)
    here = places.of(shift)
    only = here.like({top: shift[top]})
    noise = gaussian(only, seed, 1)[0][top]
    cases: dict[str, tuple[Context, Directions, float]] = {
        "base_plus_shift": (nullcontext, only, 1.0),
        "student_minus_shift": (student, only, -1.0),
        "base_plus_random": (nullcontext, here.like({top: noise * shift[top].norm() / noise.norm()}), 1.0),
    }
    poles = replace(s, config=replace(s.config, third_answers=False))
    trait = {"student": healed.items["trait"]}
    for name, (context, direction, dose) in cases.items():
        with context(), added(s.model, direction, dose):
            trait[name] = probes(poles)["trait"]
        advance(len(s.probes))
    n, start = s.config.resamples, base.items["trait"]
    moved = {name: subtract(values, start) for name, values in trait.items()}
    share = lambda name: ratio(moved[name], moved["student"], resamples=n)
    beside = lambda name: paired(trait[name], start, resamples=n)
    sufficient, remaining = share("base_plus_shift"), share("student_minus_shift")
    return {
        "layer": top,
        "student": beside("student"),
        "base_plus_shift": beside("base_plus_shift"),
        "student_minus_shift": beside("student_minus_shift"),
        "base_plus_random": beside("base_plus_random"),
        "sufficient": sufficient,
        "sufficient_share": sufficient.mean,
        "remaining": remaining,
        "remaining_share": remaining.mean,
    }


def ledger(
    s: Subject,
    student: Context,
    previous: Context | None,
    healed: Stage,
    advance: Advance = lambda _n: None,
    *,
    before: str = "",
) -> dict[str, dict[str, Divergence]]:
    """What the student's text and the base's cost in nats per token, in all and for this round.

    `previous`: the student of the round before, called `before` in the subject's cache; None where that is the base.
    """
    neutral = [Tokens(s.prompt(text), tokens.answer) for text, tokens, _ in s.neutral]
    own = [s.told(m) for m in healed.samples]

    def hidden(name: str, context: Context, sequences: list[Tokens]) -> Hidden:
        return s.cache.read(
            name, s.model, sequences, batch_tokens=s.batch_tokens, context=context, advance=advance
        )

    now = {
        "neutral": hidden(kept_as(s.known_as, NEUTRAL), student, neutral),
        "own": hidden(kept_as(s.known_as, OWN), student, own),
    }
    was = {"neutral": [h for _, _, h in s.neutral], "own": hidden(kept_as(BASE, OWN), nullcontext, own)}
    total = spent(s, was, now)
    if previous is None:
        advance(len(neutral) + len(own))
        return {"total": total, "round": total}
    was = {
        "neutral": hidden(kept_as(before, NEUTRAL), previous, neutral),
        "own": hidden("", previous, own),
    }
    return {"total": total, "round": spent(s, was, now)}


def spent(s: Subject, was: dict[str, Hidden], now: dict[str, Hidden]) -> dict[str, Divergence]:
    """What lies between two models, from their states over the base's text and over the later one's own."""
    return {
        "neutral": divergence(s, was["neutral"], now["neutral"]),
        "own": divergence(s, now["own"], was["own"]),
    }


def divergence(s: Subject, p: Hidden, q: Hidden) -> Divergence:
    """KL(p‖q) per token from final hidden states: mean over sequences with interval, and its tail."""
    if not p:
        return {"mean_nats": Score.undefined(), "p95_nats": math.nan, "tokens": 0}
    parts = from_states(
        s.model, [p, q], lambda a, b: forward_kl(narrow_head(s.model, a), narrow_head(s.model, b))
    )
    tokens = torch.cat(parts)
    return {
        "mean_nats": bootstrap([part.mean().item() for part in parts], resamples=s.config.resamples),
        "p95_nats": tokens.quantile(0.95).item(),
        "tokens": len(tokens),
    }
