"""What the experiments on one heal share: a measured base, pools of text, a heal on given texts, equal drift.

A *heal* here is one round's training from the pristine base, with the trust region off, so that its size is free. Two
heals are compared at equal drift: each update ΔW is scaled until neutral_kl, on the run's held-out neutral answers, is
the same.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from steer_heal_love import base, control, loop, presets, report, steps
from steer_heal_love.filter.walk import choose_dose
from steer_heal_love.generate import generate
from steer_heal_love.ground import purposes
from steer_heal_love.ground.errors import Starved
from steer_heal_love.ground.progress import silent
from steer_heal_love.ground.scoring import hidden_states, token_divergence
from steer_heal_love.ground.weights import folded
from steer_heal_love.heal.examples import Example
from steer_heal_love.heal.train import heal
from steer_heal_love.nouns import Adapter, Completion, Stage
from steer_heal_love.persona import training_prompts
from steer_heal_love.session import Run, created
from steer_heal_love.vector import Vector

TOLERANCE, TRIES = 0.03, 7
"""how near to the wanted drift, as a share of it, and in how many readings"""
PLAIN = {"anchor": 0.0, "lam": 0.0, "spectral": 0.0, "weight_decay": 0.0, "budget": 0.0, "soft": 0.0}
"""a heal that only imitates the text: no anchor, barrier, penalty, trust region or teacher"""


@dataclass
class Lab:
    """A run whose base is measured, with one vector, its walked dose, and pools of text by name."""

    run: Run
    vector: Vector
    dose: float
    pools: dict[str, list[Completion]]

    @classmethod
    def open(cls, changes: dict[str, Any], *, texts: int, broken_dose: float = 3.0) -> Lab:
        """Everything that the heals of one persona and seed have in common. `texts`: how many are kept at most.

        Raises `Starved` when the walk finds no dose. `broken`: texts sampled at `broken_dose` times the walked dose that
        the filter calls incoherent, on the same prompts.
        """
        report.write = lambda *_, **__: None  # type: ignore[assignment]  # these folders are read by scripts
        settings = changes | {"out": tempfile.mkdtemp()}
        session = created(presets.preset("cpu"), settings, silent)
        r = Run.on(session, base.measured(session))
        vector, made = loop.steered(r, 0)
        dose = choose_dose(made, r.config.walk, r.base.coherent)
        if dose is None:
            raise Starved("the walk found no dose")
        kept = [c for c in made if c.used]
        eligible = [c for c in made if c.dose <= dose]
        draw = random.Random(r.config.seed)
        pools = {
            "kept": draw.sample(kept, len(kept)),
            "random": draw.sample(eligible, min(texts, len(eligible))),
            "unsteered": control.unsteered(r, kept),
            "broken": broken(r, vector, broken_dose * dose, texts),
        }
        return cls(r, vector, dose, pools)

    def heal(
        self,
        texts: Sequence[Completion],
        settings: dict[str, Any],
        *,
        seed: int = 0,
        after: Sequence[Adapter] = (),
    ) -> Adapter:
        """A fresh adapter trained on `texts` with the run's heal settings and `settings` over them.

        It is trained on the student that the heals `after` which it comes have made. The barrier is measured from the
        base, or from that student where `reference` is "previous".
        """
        r, used, before = self.run, list(texts), list(after)
        cfg = replace(r.config.heal, **{"budget": 0.0, "validation": 0.0, **settings})
        tokens = [c.tokens for c in used]
        with folded(r.model, before) if cfg.reference == "previous" else nullcontext():
            reference = hidden_states(r.model, tokens, batch_tokens=r.config.batch_tokens)
        with folded(r.model, before):
            teachers = (
                steps.teacher_states_of(r, used, self.vector, self.dose) if cfg.soft else [None] * len(used)
            )
            examples = [
                Example(c.tokens, h, c.prompt, t) for c, h, t in zip(used, reference, teachers, strict=True)
            ]
            anchor = r.base.anchor if cfg.anchor else []
            adapter, _ = heal(
                r.model,
                examples,
                anchor,
                cfg,
                seed=seed or r.seed(purposes.HEAL, len(before)),
                batch_tokens=r.config.batch_tokens,
            )
        return adapter

    def drift(self, *adapters: Adapter) -> float:
        """neutral_kl of the base wearing the adapters, in nats/token: a mean over answers, as the instrument's."""
        r = self.run
        with steps.exported(r, list(adapters)):
            parts = token_divergence(
                r.model,
                [t for _, t, _ in r.base.neutral],
                [h for _, _, h in r.base.neutral],
                batch_tokens=r.config.batch_tokens,
            )
        return sum(p.mean().item() for p in parts) / len(parts)

    def at_drift(self, adapter: Adapter, neutral_kl: float, *, after: Sequence[Adapter] = ()) -> float:
        """The scale of the adapter at which it and those `after` which it comes cost so many nats; 0 where it moves
        nothing."""
        spent = self.drift(*after) if after else 0.0
        return root_scale(lambda c: self.drift(*after, adapter.scaled(c)), neutral_kl, spent)

    def evaluate(self, *adapters: Adapter) -> Stage:
        draws = self.run.config.eval.healed_draws
        return steps.evaluated(
            self.run, "healed", 0, lambda: steps.exported(self.run, list(adapters)), draws=draws
        )


def broken(r: Run, vector: Vector, dose: float, texts: int) -> list[Completion]:
    """Texts at a dose that breaks the model, judged incoherent; fewer than `texts` where it won't break."""
    out: list[Completion] = []
    for n in range(4):
        seed = r.seed(purposes.BROKEN, n)
        made = generate(
            r.model,
            r.tok,
            training_prompts(r.persona, texts, seed=seed),
            [dose * 1.3**n],
            config=r.config.generate,
            directions=vector.directions,
            seed=seed,
            label="generate broken",
            track=r.track,
        )
        out += [c for c in steps.judge(r, made) if not c.coherent]
        if len(out) >= texts:
            break
    return out[:texts]


def root_scale(cost: Callable[[float], float], target: float, at_zero: float = 0.0) -> float:
    """c with cost(c) = target for a cost that starts at `at_zero` and grows about as c²; the secant of its root."""
    known = {0.0: math.sqrt(max(at_zero, 0.0))}
    c = 1.0
    for _ in range(TRIES):
        known[c] = found = math.sqrt(max(cost(c), 0.0))
        if abs(found**2 - target) <= TOLERANCE * target:
            return c
        if found == 0:
            return 0.0
        below = max((k for k, v in known.items() if v**2 <= target), default=0.0)
        above = min((k for k, v in known.items() if v**2 > target), default=math.inf)
        aim = math.sqrt(target)
        if math.isinf(above):
            c = min(below * aim / known[below], 4 * below) if known[below] else c * 4
        else:
            share = (aim - known[below]) / (known[above] - known[below])
            c = below + share * (above - below)
    return c
