"""The cost of runs on paper: tokens, FLOPs, bytes, GPU-hours and money, for models of 4, 32 and 70 billion parameters.

    python benchmarks/scale.py [--price 2.5] [--rounds 10] [--personas 10] [--seeds 5]

Counted from the settings of the preset `gpu` and the models' shapes, by `benchmarks/floors.py`; the least seconds that the
work takes at an H100's measured ceilings are divided by the share of that floor which each room was measured to reach at 4B
(docs/performance.md). Nothing is run: no GPU is needed. `docs/scale.md` shows what this prints, and a test keeps them equal.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import queueing
from floors import Ceilings, Counted, Work

from steer_heal_love import presets
from steer_heal_love.config import RunConfig
from steer_heal_love.heal.trust import STEPS
from steer_heal_love.nouns import FOUNDATIONS

H100 = Ceilings(3.0e12, 780e12)
"""bytes and FLOPs a second, as measured for docs/performance.md"""
MEMORY_GB, IN_HAND_GB = 80, 20
"""an H100's memory, and what a run needs of it beside the weights (29.8 GB of 9.5 in generation at 4B, at the preset's batch)"""
PROMPT, TOLD, ANSWER, SCENE = 33, 47, 29, 66
"""tokens, by the embedded model's tokenizer: means over the persona `love` of a question in its template, one with a pole in
the system prompt, a given answer; and, about, a vignette with its question"""
TRIED = 3
"""scales that the trust region reads; at most `heal.trust.STEPS`"""
MEASURED = {
    "extract": (0.73, 0.76, 1.28),
    "generate": (5.8, 5.8, 8.0),
    "filter": (4.6, 4.6, 4.6),
    "heal": (15.4, 15.8, 16.5),
    "evaluate": (2.7, 2.9, 5.2),
}
"""seconds by room at 4B on one H100, least, median and most of three (docs/performance.md)"""
PUBLISHED = {"extract": 0.16, "generate": 2.5, "filter": 2.6, "heal": 6.2, "evaluate": 0.7}
"""the floors that docs/performance.md has, which were counted on the model itself"""


@dataclass(frozen=True)
class Shape:
    """A dense decoder in bf16: layers, width, heads, key/value heads, a head's width, the MLP's width, vocabulary."""

    name: str
    depth: int
    width: int
    heads: int
    kv: int
    head: int
    mlp: int
    vocabulary: int
    tied: bool = False

    @property
    def counted(self) -> Counted:
        attention = self.width * self.head * (2 * self.heads + 2 * self.kv)
        layer = attention + 3 * self.width * self.mlp + 2 * self.width + 2 * self.head
        return Counted(
            self.depth,
            layer,
            self.width * self.vocabulary,
            4 * self.heads * self.head,
            2 * self.kv * self.head * 2,
            2,
        )

    @property
    def parameters(self) -> float:
        c = self.counted
        return c.depth * c.layer + c.head * (1 if self.tied else 2)

    @property
    def gpus(self) -> int:
        """H100s that hold the weights and what a run needs beside them: a power of two, by which heads divide."""
        need = 2 * self.parameters / 1e9 + IN_HAND_GB
        return 2 ** max(0, math.ceil(math.log2(need / MEMORY_GB)))

    def lora(self, rank: int, layers: int) -> float:
        """Parameters of an adapter on every linear module of so many layers."""
        out = self.heads * self.head + 2 * self.kv * self.head
        modules = 3 * self.width + out + (self.heads * self.head + self.width) + 3 * (self.width + self.mlp)
        return rank * layers * modules


SHAPES = (
    Shape("4B (Qwen3-4B)", 36, 2560, 32, 8, 128, 9728, 151936, tied=True),
    Shape("32B (Qwen3-32B)", 64, 5120, 64, 8, 128, 25600, 151936),
    Shape("70B (Llama-3-70B)", 80, 8192, 64, 8, 128, 28672, 128256),
)


@dataclass(frozen=True)
class Term:
    """A step's work: which room it is like, where its counts come from, tokens through the decoder."""

    step: str
    room: str
    source: str
    tokens: float
    work: Work
    once: bool = False
    """once a run, else once a round"""

    @property
    def floor(self) -> float:
        return self.work.floor_seconds(H100)


@dataclass(frozen=True)
class Counter:
    """Counts terms for a shape and settings."""

    shape: Shape
    cfg: RunConfig

    @property
    def c(self) -> Counted:
        return self.shape.counted

    def prefill(self, n: float, length: float, predicted: float, *, depth: float = 1.0) -> tuple[float, Work]:
        """Tokens and work of reading `n` sequences, in passes of `batch_tokens`, with logits at `predicted` places each."""
        passes = max(1, math.ceil(n * length / self.cfg.batch_tokens))
        layers = round(depth * self.c.depth)
        one = self.c.prefill([round(length)], predicted=round(predicted), depth=layers)
        weights = self.c.size * (self.c.layer * layers + self.c.head * bool(predicted))
        work = one * n
        return n * length, Work(work.bytes - (n - passes) * weights, work.flops)

    def decode(self, n: int, length: int, *, batch: int | None = None) -> tuple[float, Work]:
        """Tokens and work of sampling `n` answers of full length after `PROMPT`."""
        at_once = batch or self.cfg.generate.batch
        groups = [min(at_once, n - i) for i in range(0, n, at_once)]
        work = sum((self.c.decode([PROMPT] * g, length - 1) for g in groups), Work())
        tokens, prompts = self.prefill(n, PROMPT, 1)
        return tokens + n * length, work + prompts

    def train(self, n: int, length: int, anchor: int) -> tuple[float, Work]:
        """Tokens and work of `n` completions trained on for the settings' epochs, with anchors beside them."""
        h, c = self.cfg.heal, self.c
        first, last = (round(x * c.depth) for x in h.layers)
        steps = math.ceil(n / h.batch)
        rows = [PROMPT + length] * math.ceil(n / steps) + [PROMPT + anchor] * h.anchor_batch
        predicted = length * n // steps + anchor * h.anchor_batch
        lora = round(self.shape.lora(h.rank, last - first))
        step = c.train(rows, predicted=predicted, adapted=c.depth - first, lora=lora)
        return sum(rows) * steps * h.epochs, step * (steps * h.epochs)

    def run(self) -> list[Term]:
        """The terms of one run, in their order."""
        e, g, f, h, v, w = (
            getattr(self.cfg, n) for n in ("eval", "generate", "filter", "heal", "vector", "walk")
        )
        made, new = w.passes * w.doses * g.prompts, g.max_new_tokens
        trained = round(f.keep * (1 - h.validation))
        held = round(h.anchor_validation * h.anchor_prompts)
        term = lambda step, room, source, *parts, once=False: Term(
            step, room, source, sum(t for t, _ in parts), sum((x for _, x in parts), Work()), once
        )
        filtered = lambda n: (self.prefill(n, PROMPT + new, new), self.prefill(2 * n, TOLD + new, new))
        train = self.train(trained, new, h.anchor_tokens)
        teacher = self.prefill(3 * f.keep, PROMPT + new, 0)
        region = self.prefill(TRIED * held, PROMPT + h.anchor_tokens, h.anchor_tokens)
        return [
            term("base: answers", "generate", "`base.own_answers`", self.decode(h.anchor_prompts, h.anchor_tokens),
                 self.decode(e.neutral_prompts, e.sample_tokens), self.decode(f.calibration, new), once=True),
            term("base: filter, states", "filter", "`base.with_states`, `sieve.measured`", *filtered(f.calibration),
                 self.prefill(h.anchor_prompts + e.neutral_prompts, PROMPT + h.anchor_tokens, 0), once=True),
            term("evaluate base, prompt: samples", "generate", "`base.scored`", self.drawn(e.base_draws + 1), once=True),
            term("evaluate base, prompt: readings", "filter", "`base.scored`", *self.evaluated(e.base_draws), *self.evaluated(1), once=True),
            term("texts of either pole", "generate", "`evals.behaviour`", self.decode(2 * e.behaviour_prompts, e.sample_tokens), once=True),
            term("control heal", "heal", "`control.control`", train, teacher, region, once=True),
            term("vector", "extract", "`steps.steer`", self.prefill(2 * v.contexts, TOLD, 0, depth=v.layers[1])),
            term("generate", "generate", "`steps.sample`, `filter.walk`", self.decode(made, new)),
            term("filter", "filter", "`steps.judge`: three readings", *filtered(made)),
            term("teacher", "filter", "`steps.teacher_states_of`: three readings", teacher),
            term("heal", "heal", "`heal.train`", train),
            term("trust region", "filter", f"`heal.trust`: {TRIED} scales of at most {STEPS}", region),
            term("evaluate steered, healed: samples", "generate", "`steps.scored`", self.drawn(1 + e.healed_draws)),
            term("evaluate steered, healed: readings", "filter", "`steps.scored`", *self.evaluated(1), *self.evaluated(e.healed_draws)),
            term("transfer", "filter", "`control.transferred`", *self.transferred()),
        ]  # fmt: skip

    def drawn(self, draws: int) -> tuple[float, Work]:
        """Own samples, so many a prompt."""
        return self.decode(2 * self.cfg.eval.sample_prompts * draws, self.cfg.eval.sample_tokens)

    def evaluated(self, draws: int) -> list[tuple[float, Work]]:
        """What one model's evaluation by the default instruments reads: probes, own samples (by the base, under both poles,
        by the model itself, after another prompt), neutral answers, vignettes, the capability panel."""
        e, own = self.cfg.eval, 2 * self.cfg.eval.sample_prompts
        scene = len(FOUNDATIONS) * e.paraphrases * ANSWER
        return [
            self.prefill(e.probes, PROMPT + 4 * ANSWER, 4 * ANSWER),
            self.prefill(own * draws, PROMPT + e.sample_tokens, e.sample_tokens),
            self.prefill(own, TOLD + e.sample_tokens, e.sample_tokens),
            self.prefill(own, PROMPT + e.sample_tokens, e.sample_tokens),
            self.prefill(own * draws, PROMPT + e.sample_tokens, e.sample_tokens),
            self.prefill(e.neutral_prompts, PROMPT + e.sample_tokens, e.sample_tokens),
            self.prefill(e.vignettes, SCENE + scene, scene),
            self.prefill(12 * e.capability_blocks, PROMPT + 4 * ANSWER, 4 * ANSWER),
        ]

    def transferred(self) -> list[tuple[float, Work]]:
        """What a round's transfer reads that its evaluation has not: contexts by the student, its own samples by the one before,
        and the probes' poles by three models."""
        e, v = self.cfg.eval, self.cfg.vector
        return [
            self.prefill(v.contexts, PROMPT, 0, depth=v.layers[1]),
            self.prefill(2 * e.sample_prompts, PROMPT + e.sample_tokens, e.sample_tokens),
            self.prefill(3 * e.probes, PROMPT + 2 * ANSWER, 2 * ANSWER),
        ]


def rooms() -> dict[str, float]:
    """Floors in seconds of the five rooms at the sizes that docs/performance.md measured, counted from the shape alone."""
    shape = SHAPES[0]
    cfg = presets.preset("gpu")
    counter = Counter(shape, replace(cfg, batch_tokens=10**9, heal=replace(cfg.heal, epochs=6)))
    think = counter.c.decode([SCENE] * 132, 127)
    options = counter.prefill(2 * 132, 64, 1)[1]
    trained = counter.train(56, 512, cfg.heal.anchor_tokens)[1] + counter.prefill(4 * 66, PROMPT + 512, 0)[1]
    work = {
        "extract": counter.prefill(512, TOLD, 0, depth=cfg.vector.layers[1])[1],
        "generate": counter.decode(150, 512)[1],
        "filter": counter.prefill(150, PROMPT + 512, 512)[1] + counter.prefill(300, TOLD + 512, 512)[1],
        "heal": trained,
        "evaluate": think + counter.prefill(132, SCENE, 1)[1] + options,
    }
    return {name: w.floor_seconds(H100) for name, w in work.items()}


def shares() -> dict[str, float]:
    """Share of the floor that each room reaches at 4B: by it a floor becomes seconds."""
    return {name: floor / MEASURED[name][1] for name, floor in rooms().items()}


@dataclass(frozen=True)
class Total:
    tokens: float
    work: Work
    floor: float
    seconds: float
    slow: float
    """seconds, where all that evaluates reaches only the share that the forced choice does"""


def total(terms: Iterable[Term], rounds: int) -> Total:
    """A whole run."""
    share, out = shares(), Total(0, Work(), 0, 0, 0)
    for t in terms:
        n = 1 if t.once else rounds
        slow = share["evaluate" if t.step.startswith("evaluate") else t.room]
        out = Total(
            out.tokens + n * t.tokens,
            out.work + t.work * n,
            out.floor + n * t.floor,
            out.seconds + n * t.floor / share[t.room],
            out.slow + n * t.floor / slow,
        )
    return out


def steps(terms: list[Term], rounds: int) -> list[tuple[float, queueing.Room]]:
    """A run's steps with their seconds and what was measured of their rooms."""
    share = shares()
    factors = {n: queueing.Room(tuple(s / m[1] for s in m)) for n, m in MEASURED.items()}
    at = lambda t: (t.floor / share[t.room], factors[t.room])
    once, each = [at(t) for t in terms if t.once], [at(t) for t in terms if not t.once]
    return once + each * rounds


def markdown(head: list[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = [head, ["---"] * len(head), *([str(x) for x in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


COLUMNS = {
    "The count, checked at 4B": "room | floor counted here, s | floor in performance.md, s | measured, s"
    " | share of the floor",
    "One run at 4B, by step": "step | once a | counted in | thousand tokens | PFLOP | TB moved | floor, s"
    " | seconds | at the share of",
    "One run": "model | 10⁹ parameters | H100s that hold it | 10⁶ tokens | EFLOP | PB moved | GB on disk"
    " | hours at the floor | H100-hours | H100-hours, slow evaluation",
    "The sweep": "model | runs | 10⁹ tokens | H100-hours | money | H100-hours, layers split | money, layers split",
    "A night of it at 4B": "failures a worker-hour | a cell is | hours to the end | lost",
}


def tables(a: argparse.Namespace) -> dict[str, str]:
    """Every table by its heading."""
    cfg = replace(presets.preset("gpu"), rounds=a.rounds)
    counters = [Counter(s, cfg) for s in SHAPES]
    runs, share, n = [total(c.run(), a.rounds) for c in counters], shares(), a.personas * a.seeds
    floors, terms = rooms(), counters[0].run()
    checked = [
        (name, f"{floors[name]:.2f}", PUBLISHED[name], MEASURED[name][1], f"{share[name]:.0%}")
        for name in MEASURED
    ]
    by_step = [
        (
            t.step,
            "run" if t.once else "round",
            t.source,
            f"{t.tokens / 1e3:,.0f}",
            f"{t.work.flops / 1e15:.2f}",
            f"{t.work.bytes / 1e12:.2f}",
            f"{t.floor:.1f}",
            f"{t.floor / share[t.room]:.1f}",
            t.room,
        )
        for t in terms
    ]
    one = [
        (
            s.name,
            f"{s.parameters / 1e9:.1f}",
            s.gpus,
            f"{r.tokens / 1e6:.1f}",
            f"{r.work.flops / 1e18:.1f}",
            f"{r.work.bytes / 1e15:.2f}",
            f"{disk(s, cfg, a.rounds):.1f}",
            f"{r.floor / 3600:.2f}",
            f"{r.seconds / 3600:.2f}",
            f"{r.slow / 3600:.2f}",
        )
        for s, r in zip(SHAPES, runs, strict=True)
    ]
    hours = [n * r.seconds / 3600 for r in runs]
    whole = [
        (
            s.name,
            n,
            f"{n * r.tokens / 1e9:.1f}",
            f"{h:,.0f}",
            money(h, a.price),
            f"{h * s.gpus:,.0f}",
            money(h * s.gpus, a.price),
        )
        for s, r, h in zip(SHAPES, runs, hours, strict=True)
    ]
    return {
        heading: markdown(COLUMNS[heading].split(" | "), rows)
        for heading, rows in {
            "The count, checked at 4B": checked,
            "One run at 4B, by step": by_step,
            "One run": one,
            "The sweep": whole,
            "A night of it at 4B": nights(terms, a, n),
        }.items()
    }


def disk(s: Shape, cfg: RunConfig, rounds: int) -> float:
    """GB of a run's folder: each round's adapter in fp32, and all of them as one."""
    first, last = (round(x * s.depth) for x in cfg.heal.layers)
    return 4 * s.lora(cfg.heal.rank, last - first) * 2 * rounds / 1e9


def money(hours: float, price: float) -> str:
    return f"{hours * price:,.0f} $"


def nights(terms: list[Term], a: argparse.Namespace, cells: int) -> list[list[str]]:
    """The simulated sweep by failure rate, with resumption and without."""
    out, run = [], steps(terms, a.rounds)
    for rate in (0.0, 0.05, 0.5, 2.0):
        for resumes in (True, False) if rate else (True,):
            hours, lost = queueing.simulated(
                run,
                cells,
                a.nights,
                workers=a.workers,
                failures_per_hour=rate,
                start=a.start,
                resumes=resumes,
            )
            how = "resumed" if resumes else "restarted"
            row = [f"{rate:g}", how if rate else "never lost", queueing.interval(hours, lambda h: f"{h:.1f}")]
            out.append([*row, queueing.interval(lost, lambda x: f"{x:.1%}")])
    return out


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--price", type=float, default=2.5, help="dollars an H100-hour: an assumption")
    p.add_argument("--rounds", type=int, default=10)
    p.add_argument("--personas", type=int, default=10)
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--workers", type=int, default=8, help="GPUs of the simulated night")
    p.add_argument(
        "--start",
        type=float,
        default=60.0,
        help="seconds until a new worker does its first step: an assumption",
    )
    p.add_argument("--nights", type=int, default=200, help="simulated nights, each with a seed of its own")
    return p.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    for heading, table in tables(arguments(argv)).items():
        print(f"## {heading}\n\n{table}\n")


if __name__ == "__main__":
    main()
