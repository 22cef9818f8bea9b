"""Whether a model can be steered, healed, evaluated and exported here: every law of the tool, tried on this model.

In: a loaded model and its tokenizer. Out: one `Finding` a check: what was seen, a verdict, and what to do. A check is
one file here with `@check(name, place)`. All comparisons are of logits or hidden states, never of tokens: greedy text
that repeats itself looks alike whatever was done to the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.config import RunConfig
from steer_heal_love.ground import loading, models
from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.chat import answer_ids, end_of_turn_ids, prompt_ids
from steer_heal_love.ground.divergence import forward_kl
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.ground.registry import Registry
from steer_heal_love.ground.scoring import answer_hidden, pack
from steer_heal_love.ground.states import states
from steer_heal_love.nouns import Json, Tokens

Verdict = Literal["well", "note", "fails", "skipped"]
NOISE_NATS = {torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.1}
"""KL per token that rounding alone can make of two ways to compute the same logits"""
LONGEST = 700
"""tokens of the longest prompt tried, unless a run's own batches hold fewer"""
BROKEN = (
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    IndexError,
    AssertionError,
    UserError,
)
"""what a model that is built otherwise makes a check raise"""


@dataclass(frozen=True)
class Finding:
    """What one check saw. `do` says what to do where the verdict is not well."""

    check: str
    seen: str
    verdict: Verdict
    do: str = ""


@dataclass
class Patient:
    """What every check is given; what several need is made once."""

    name: str
    model: PreTrainedModel
    tok: PreTrainedTokenizerBase
    config: RunConfig

    @property
    def noise_nats(self) -> float:
        return NOISE_NATS.get(self.model.dtype, NOISE_NATS[torch.float32])

    @cached_property
    def ends(self) -> frozenset[int]:
        return end_of_turn_ids(self.model, self.tok)

    @cached_property
    def window(self) -> int:
        """The narrowest window that any layer attends within; 0 where every layer sees everything."""
        config = self.model.config.get_text_config()
        found = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
        return min((w for w in found if isinstance(w, int) and w > 0), default=0)

    @cached_property
    def prompts(self) -> list[tuple[int, ...]]:
        """Three prompts of different lengths; the longest reaches past the window where that is affordable."""
        long = min(max(self.window + 24, 120), LONGEST, self.config.batch_tokens - 40)
        text, lines = "", iter(bank("contexts"))
        while len(prompt_ids(self.tok, text)) < long and (line := next(lines, None)) is not None:
            text += f" {line}"
        return [prompt_ids(self.tok, user) for user in ("Who are you?", bank("contexts")[0], text.strip())]

    @cached_property
    def sequences(self) -> list[Tokens]:
        said = ("I would say that it depends.", "Yes.", "There is time, and nobody is alone in it.")
        return [Tokens(p, answer_ids(self.tok, a)) for p, a in zip(self.prompts, said, strict=True)]

    @cached_property
    def directions(self) -> dict[int, Float[Tensor, " d"]]:
        """A random direction a layer of the steering band, 0.3 of the hidden states' norm long."""
        at = models.band(self.model, self.config.vector.layers)
        found = states(self.model, self.prompts[:2], at, self.config.batch_tokens)
        draw = torch.Generator().manual_seed(0)
        out = {}
        for i, hidden in found.items():
            v = torch.randn(hidden.shape[1], generator=draw)
            out[i] = 0.3 * hidden.norm(dim=1).mean() * v / v.norm()
        return out

    @cached_property
    def reference(self) -> list[Float[Tensor, "t d"]]:
        """Each sequence's final hidden states by itself: one row, no cache, no padding."""
        return [self.alone(s) for s in self.sequences]

    @torch.no_grad()
    def alone(self, s: Tokens) -> Float[Tensor, "t d"]:
        return answer_hidden(self.model, pack([s], self.model.device))

    @torch.no_grad()
    def kl_nats(self, ours: list[Tensor], theirs: list[Tensor]) -> float:
        """The largest KL(theirs‖ours) of any token, from final hidden states."""
        found = [
            forward_kl(
                models.head(self.model, b.to(self.model.device)),
                models.head(self.model, a.to(self.model.device)),
            )
            .max()
            .item()
            for a, b in zip(ours, theirs, strict=True)
        ]
        return max(found)

    def same(self, check: str, what: str, kl_nats: float, do: str) -> Finding:
        """The finding of two ways to compute the same logits."""
        fine = kl_nats <= self.noise_nats  # NaN is not
        seen = f"{what}: at most {kl_nats:.2g} nats/token apart, rounding allows {self.noise_nats:g}"
        return Finding(check, seen, "well" if fine else "fails", "" if fine else do)


@dataclass(frozen=True)
class Check:
    """One check and its place on the screen."""

    name: str
    place: int
    run: Callable[[Patient], Finding]


checks: Registry[Check] = Registry("check of the doctor", __name__)


def check(name: str, place: int) -> Callable[[Callable[[Patient], Finding]], Callable[[Patient], Finding]]:
    """Record a check under its name. `place` orders the screen."""

    def record(run: Callable[[Patient], Finding]) -> Callable[[Patient], Finding]:
        checks.register(name, Check(name, place, run))
        return run

    return record


def examine(patient: Patient, track: Track = silent) -> list[Finding]:
    """Every check's finding, in order. A check that raises has failed, and the others go on."""
    out = []
    wanted = sorted(checks.values(), key=lambda c: c.place)
    with track(f"examine {patient.name}", len(wanted)) as advance:
        for one in wanted:
            try:
                out.append(one.run(patient))
            except BROKEN as e:
                words = f"{type(e).__name__}: {e}".splitlines()[0][:200]
                out.append(Finding(one.name, words, "fails", "this architecture is not supported here"))
            advance(1)
    return out


def fails(findings: list[Finding]) -> bool:
    return any(f.verdict == "fails" for f in findings)


def record(patient: Patient, findings: list[Finding]) -> Json:
    """What `--json` prints."""
    return {
        "model": patient.name,
        "class": type(patient.model).__name__,
        "device": str(patient.model.device),
        "dtype": str(patient.model.dtype).removeprefix("torch."),
        "notes": list(loading.notes(patient.model)),
        "fails": fails(findings),
        "checks": [asdict(f) for f in findings],
    }
