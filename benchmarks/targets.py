"""Where a run's healed model is odd, and what targets would cost if a model learnt them to the letter.

    python benchmarks/targets.py runs/RUN --out targets.json

In: the folder of a run. First the model that all its rounds make, on its own samples: own_excess by kind of prompt, and
how much of it lies in tokens that the base finds less than PLAUSIBLE times as likely as its likeliest. Then, without
training anything, logits l₀ + s·δ for several δ, each at the s that costs `--neutral-kl` on the base's neutral answers:
what the probes gain (and which of their answers moves), and how much odder for the base the next token would be,
expected over what sampling with min-p would draw, on the trait's questions and on neutral prompts.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import torch
from torch import Tensor

from steer_heal_love import bake
from steer_heal_love.ground import folder as files
from steer_heal_love.ground import models, records
from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.chat import answer_ids, prompt_ids
from steer_heal_love.ground.divergence import forward_kl
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.models import head
from steer_heal_love.ground.scoring import hidden_states
from steer_heal_love.nouns import Tokens
from steer_heal_love.persona import load as load_persona
from steer_heal_love.vector import Vector

PLAUSIBLE, MIN_P, DOSE, HALVINGS = 0.1, 0.1, 0.2, 8
Kind = Literal["neutral", "question", "pos", "neg"]


@dataclass(frozen=True)
class Text:
    kind: Kind
    prompt: str
    answer: tuple[int, ...]


@dataclass(frozen=True)
class Cost:
    """Means over texts, in nats per token: what a target gives, and what it costs."""

    trait_shift: float
    neutral_kl: float
    question_excess: float
    neutral_excess: float
    pos: float
    neg: float


def drawn(logp: Tensor) -> Tensor:
    """What min-p sampling draws from, as probabilities."""
    p = logp.exp()
    p = p * (p >= MIN_P * p.amax(-1, keepdim=True))
    return p / p.sum(-1, keepdim=True)


def cost(texts: list[Text], base: list[Tensor], target: Callable[[int], Tensor]) -> Cost:
    """`target(i)`: log-probabilities over the tokens of text i, as `base[i]` are the base's."""
    found: dict[str, list[float]] = {k: [] for k in ("kl", "neutral", "question", "pos", "neg")}
    for i, (text, plain) in enumerate(zip(texts, base, strict=True)):
        moved = target(i)
        if text.kind in ("pos", "neg"):
            own = torch.tensor(text.answer)[:, None]
            found[text.kind].append((moved.gather(1, own) - plain.gather(1, own)).mean().item())
            continue
        odd = -((drawn(moved) - drawn(plain)) * plain).sum(-1)
        found[text.kind].append(odd.mean().item())
        if text.kind == "neutral":
            found["kl"].append(forward_kl(plain, moved).mean().item())
    m = {k: mean(v) for k, v in found.items()}
    return Cost(m["pos"] - m["neg"], m["kl"], m["question"], m["neutral"], m["pos"], m["neg"])


def at_budget(
    texts: list[Text], base: list[Tensor], delta: list[Tensor], budget: float, *, lowers: bool, heat: float
) -> Cost:
    """The cost of base/heat + s·delta at the s whose neutral_kl is just inside the budget."""

    def of(s: float) -> Cost:
        def target(i: int) -> Tensor:
            moved = delta[i] - (base[i].exp() * delta[i]).sum(-1, keepdim=True)
            return (base[i] / heat + s * (moved.clamp_max(0) if lowers else moved)).log_softmax(-1)

        return cost(texts, base, target)

    low, high = 0.0, 1.0
    while of(high).neutral_kl < budget:
        low, high = high, 2 * high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if of(middle).neutral_kl < budget else (low, middle)
    return of(low)


class Reader:
    """A run's texts, read by the base under whatever context is on."""

    def __init__(self, run: Path, neutral: int, questions: int) -> None:
        self.model, self.tok = models.load("smollm2")
        self.persona = load_persona(str(run / "persona.toml"))
        (base,) = (s for s in files.load_stages(run / "base" / "scores.json") if s.stage == "base")
        probes = self.persona.probes[::2][:questions]
        asked = {p.question for p in self.persona.probes}
        kept = files.load_completions(run / "base" / "neutral.jsonl")[:neutral]
        self.texts = [
            *(Text("neutral", c.prompt, c.tokens.answer) for c in kept),
            *(Text("question", m["prompt"], tuple(m["ids"])) for m in base.samples if m["prompt"] in asked),
            *(Text("pos", p.question, answer_ids(self.tok, p.pos)) for p in probes),
            *(Text("neg", p.question, answer_ids(self.tok, p.neg)) for p in probes),
        ]

    def states(self, *system: str, under: AbstractContextManager[Any] | None = None) -> list[Tensor]:
        sequences = [Tokens(prompt_ids(self.tok, t.prompt, *system), t.answer) for t in self.texts]
        with under or nullcontext():
            return [h.float() for h in hidden_states(self.model, sequences)]

    def logp(self, states: Tensor) -> Tensor:
        return head(self.model, states.to(self.model.dtype)).float().log_softmax(-1)

    def steered(self, layers: tuple[float, float], contexts: int = 64) -> list[Tensor]:
        """Half of what steering adds to the final states less what its opposite adds, per dose."""
        v = Vector.train(
            self.model, self.tok, self.persona, contexts=bank("contexts")[:contexts], layers=layers
        )
        return difference(
            self.states(under=v(self.model, DOSE)), self.states(under=v(self.model, -DOSE)), 2 * DOSE
        )

    def prompted(self) -> list[Tensor]:
        """Half of what the pos pole's system prompt adds to the final states less what the neg pole's adds."""
        pos, neg = (self.states(self.persona.system(pole)) for pole in ("pos", "neg"))
        return difference(pos, neg, 2.0)


def difference(a: list[Tensor], b: list[Tensor], by: float) -> list[Tensor]:
    return [(x - y) / by for x, y in zip(a, b, strict=True)]


def summed(a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
    """Both, the second made as long as the first."""
    size = lambda xs: math.sqrt(sum(x.pow(2).sum().item() for x in xs))
    return [x + size(a) / size(b) * y for x, y in zip(a, b, strict=True)]


def sampled(run: Path, r: Reader) -> dict[str, Any]:
    """Own samples of the base and of the healed model, each prompt's first, as the base reads them."""
    last = max(run.glob("rounds/*/scores.json"))
    asked = {p.question for p in r.persona.probes}
    out: dict[str, Any] = {}
    for file, stage in ((run / "base" / "scores.json", "base"), (last, "healed")):
        (found,) = (s for s in files.load_stages(file) if s.stage == stage)
        for kind in ("question", "neutral"):
            made = [m for m in found.samples if (m["prompt"] in asked) == (kind == "question")]
            sequences = [Tokens(prompt_ids(r.tok, m["prompt"]), tuple(m["ids"])) for m in made]
            logp = [r.logp(h) for h in hidden_states(r.model, sequences)]
            own = [
                p.gather(1, torch.tensor(t.answer)[:, None])[:, 0]
                for p, t in zip(logp, sequences, strict=True)
            ]
            rare = [o < p.amax(-1) + math.log(PLAUSIBLE) for o, p in zip(own, logp, strict=True)]
            n = sum(map(len, own))
            out[f"{stage} {kind}"] = {
                "own_nll": mean(-o.mean().item() for o in own),
                "implausible_share": sum(int(x.sum()) for x in rare) / n,
                "implausible_nll": -sum(o[x].sum().item() for o, x in zip(own, rare, strict=True)) / n,
            }
    return out


@torch.no_grad()
def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("run", type=Path)
    args.add_argument("--out", type=Path, required=True)
    args.add_argument("--neutral-kl", type=float, default=0.05)
    args.add_argument("--neutral", type=int, default=40, help="neutral answers")
    args.add_argument("--questions", type=int, default=24, help="probes: every second one")
    a = args.parse_args()
    r = Reader(a.run, a.neutral, a.questions)
    whole = bake.stack([bake.load_peft(p) for p in sorted(a.run.glob("rounds/*/adapter"))])
    healed = r.states(under=adapted(r.model, whole.factors, whole.scaling))
    plain = r.states()
    base = [r.logp(h) for h in plain]
    result: dict[str, Any] = {"run": a.run.name, "samples": sampled(a.run, r)}
    result["healed"] = asdict(cost(r.texts, base, lambda i: r.logp(healed[i])))
    steered, prompted = r.steered((0.3, 0.7)), r.prompted()
    targets = {
        "steering": steered,
        "steering, layers 50 to 80%": r.steered((0.5, 0.8)),
        "prompts": prompted,
        "steering and prompts": summed(steered, prompted),
        "healed": difference(healed, plain, 1.0),
    }
    result["targets"] = {}
    for name, moved in targets.items():
        delta = [r.logp(h + d) - b for h, d, b in zip(plain, moved, base, strict=True)]
        for lowers, heat in ((False, 1.0), (True, 1.0), (False, 0.93)):
            found = at_budget(r.texts, base, delta, a.neutral_kl, lowers=lowers, heat=heat)
            row = asdict(found) | {"trait_over_root_kl": found.trait_shift / math.sqrt(found.neutral_kl)}
            label = (
                name
                + (", only what it lowers" if lowers else "")
                + (f", base at {heat}" if heat != 1 else "")
            )
            result["targets"][label] = row
            print(f"{label:50s}", "  ".join(f"{k} {v:+.3f}" for k, v in row.items()), flush=True)
            records.write_json(a.out, result)


if __name__ == "__main__":
    main()
