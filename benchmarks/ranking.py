"""What `benchmarks/steering.py` left open: newer steering methods at equal nats, curves over layers, and heals of their text.

    PYTHONPATH=src python3 benchmarks/ranking.py --personas love joy --seeds 0 1 2 --workers 6 --limit 440 --out ranking.jsonl

*rank.* Each method and hook point of `CELLS` at the doses where the 95th percentile of per-token KL(steered‖unsteered) is each
of `--nats`: the trait's shift on held-out probes, paired with the base, and the share of own text that passes every check.
*heal.* One round on each method of `HEALS`, its text written at the first of `--nats`, at half and at the whole update.
*text.* One round on `mean_diff` at the last of `--nats`, its text written plainly and with steering that adapts.
*band.* One round on `mean_diff` at each of `BANDS_HEALED`, its text written at the first of `--nats`.
*curve.* `shl vector sweep`'s bands of layers for each method of `CURVES` at the first of `--nats`.
*condition.* `mean_diff` on every prompt, and only on prompts like those that draw the persona out, at the same doses (the nats
are those of prompts that are steered): trait, kept text, and the drift on held-out neutral prompts, KL(base‖steered).

A line of JSON is written as each cell is done. A second call with the same file leaves out what lies there, and nothing new
begins once `--limit` seconds have passed. `--collect` only reads the file and prints the tables. Intervals are 95%: probes
crossed with seeds; shares pool the texts of all seeds. A difference is paired by probe and seed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from ranking_tables import show, summary
from shared import (
    CAP,
    GRID,
    HALF_LIFE,
    HEALED,
    PASSES,
    REWINDS,
    Late,
    Row,
    arguments,
    in_time,
    parsed,
    rows,
    settings,
    threads,
)
from shared import measured as pooled

from steer_heal_love import sweep as room
from steer_heal_love.compare import study
from steer_heal_love.conditions import examples
from steer_heal_love.config import ConditionConfig
from steer_heal_love.generate import generate
from steer_heal_love.ground import models, purposes, records
from steer_heal_love.ground.banks import KINDS, bank, mix
from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.divergence import forward_kl
from steer_heal_love.ground.operations import Steering
from steer_heal_love.ground.overrides import override
from steer_heal_love.ground.progress import silent
from steer_heal_love.ground.scoring import hidden_states, token_divergence
from steer_heal_love.persona import load as load_persona
from steer_heal_love.session import loaded, seed_for
from steer_heal_love.sweep.bed import Bed, laid
from steer_heal_love.sweep.contexts import poles
from steer_heal_love.vector.iso_kl import iso_kl

DOWN, OUT = "mlp.down_proj", "self_attn.o_proj"
CELLS = (
    ("mean_diff", ""),
    ("linear_act", ""),
    ("writer_svd", ""),
    ("writer_svd_pooled", ""),
    ("random", ""),
    ("unrelated", ""),
    ("mean_diff", DOWN),
    ("linear_act", DOWN),
    ("mean_diff", OUT),
    ("linear_act", OUT),
)
"""methods with the linear module at whose output they act; the residual stream where it is empty"""
HEALS = (
    ("mean_diff", ""),
    ("pca_diff", ""),
    ("cluster_diff", ""),
    ("logistic", ""),
    ("linear_act", ""),
    ("writer_svd", ""),
    ("writer_svd_pooled", ""),
    ("mean_diff", DOWN),
    ("unrelated", ""),
)
TEXTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rewind": {"rewinds": REWINDS},
    "decay, cap, rewind": {"half_life": HALF_LIFE, "cap_nats": CAP, "rewinds": REWINDS},
}
"""how the text adapts, as settings of `adapt`"""
BANDS_HEALED = ((0.3, 0.7), (0.6, 0.9))
"""the default band of layers, and the one that is ahead of it on Gemma-3-270M when only steered (experiment 64)"""
CURVES = ("mean_diff", "linear_act", "writer_svd")
WHERE = "mean_diff under a condition"
NEUTRAL = 48
"""held-out neutral prompts that drift is measured on; six in a dry run"""
LEAST_LEFT = {"condition": 5.0, "rank": 5.0, "curve": 5.0, "heal": 40.0, "text": 40.0, "band": 40.0}
"""seconds that must be left for a cell to begin"""

_model: list[Any] = []
"""this process's model and tokenizer"""


class Job:
    """One part for one persona and one seed: what is done already, the time that is left, where rows go."""

    def __init__(self, a: argparse.Namespace, part: str, persona: str, seed: int) -> None:
        self.a, self.part, self.persona, self.seed = a, part, persona, seed
        self.config = settings(a, seed, persona=persona)
        self.done = {r["cell"] for r in rows(a.out) if self.mine(r)}
        if not _model:
            _model.extend(loaded(self.config))
        self.model, self.tok = _model

    def mine(self, row: Row) -> bool:
        return (row["part"], row["persona"], row["seed"]) == (self.part, self.persona, self.seed)

    def wanted(self, cell: str) -> bool:
        """Whether a cell is still to be made. Raises `Late` where it is and there is no time for it."""
        if cell in self.done:
            return False
        in_time(self.a, LEAST_LEFT[self.part])
        return True

    def note(self, cell: str, **row: Any) -> None:
        line = {
            "part": self.part,
            "persona": self.persona,
            "seed": self.seed,
            "cell": cell,
            "device": records.device_name(self.model.device),
            "model": self.a.model,
            **row,
        }
        with os.fdopen(os.open(self.a.out, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "wb", buffering=0) as f:
            f.write((json.dumps(records.plain(line)) + "\n").encode())

    def bed(self, bands: tuple[tuple[float, float], ...]) -> Bed:
        texts = random.Random(self.seed).sample(bank("contexts"), self.config.vector.contexts)
        at = room.layers_of(self.model, bands)
        return laid(self.model, self.tok, load_persona(self.persona), self.config, at, contexts=texts)


def name_of(method: str, hook: str) -> str:
    return f"{method} at {hook}" if hook else method


def at_hook(bed: Bed, hook: str) -> Bed:
    """The same bed with the poles' states at another place."""
    cfg = override(bed.config, {"vector": {"hook": hook}})
    pos, neg = poles(bed.model, bed.tok, bed.persona, cfg, sorted(bed.pos), contexts=bed.contexts, hook=hook)
    return replace(bed, config=cfg, pos=pos, neg=neg)


def rank(job: Job) -> None:
    todo = [(m, h) for m, h in CELLS if job.wanted(name_of(m, h))]
    band = job.config.vector.layers
    bed = job.bed((band,)) if todo else None
    beds: dict[str, Bed] = {}
    for method, hook in todo:
        assert bed is not None
        job.wanted(name_of(method, hook))
        if hook not in beds:
            beds[hook] = at_hook(bed, hook) if hook else bed
        measured(job, beds[hook], name_of(method, hook), method, band, job.a.nats)


def measured(
    job: Job, bed: Bed, cell: str, method: str, band: tuple[float, float], nats: list[float]
) -> None:
    start = time.perf_counter()
    steering = bed.steering(method, models.band(bed.model, band))
    doses = iso_kl(bed.model, steering, nats, bed.trials, passes=PASSES)
    found = [asdict(bed.measured(method, band, steering, dose)) for dose in doses]
    base = [float(c.coherent) for c in bed.own]
    job.note(cell, cells=found, base_coherent=base, seconds=time.perf_counter() - start)


def curve(job: Job) -> None:
    todo = [(m, b) for m in CURVES for b in room.BANDS if job.wanted(f"{m} {b[0]:g}-{b[1]:g}")]
    bed = job.bed(room.BANDS) if todo else None
    for method, band in todo:
        assert bed is not None
        job.wanted(cell := f"{method} {band[0]:g}-{band[1]:g}")
        measured(job, bed, cell, method, band, job.a.nats[:1])


def heal(job: Job) -> None:
    for method, hook in HEALS:
        if job.wanted(cell := name_of(method, hook)):
            healed(job, cell, method, job.a.nats[0], {"vector": {"hook": hook}})


def by_band(job: Job) -> None:
    for low, high in BANDS_HEALED:
        if job.wanted(cell := f"mean_diff {low:g}-{high:g}"):
            healed(job, cell, "mean_diff", job.a.nats[0], {"vector": {"layers": [low, high]}})


def text(job: Job) -> None:
    for mode, adapt in TEXTS.items():
        if job.wanted(mode):
            healed(job, mode, "mean_diff", job.a.nats[-1], {"adapt": adapt})


def healed(job: Job, cell: str, method: str, nats: float, settings: dict[str, Any]) -> None:
    """One round on a method's vector, its text written at `nats`, in a folder that is gone afterwards; the base's scores are kept by the tool's shelf."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="ranking-") as out:
        cfg = override(
            job.config, {"out": out, "eval": HEALED, "walk": {"kind": "iso_kl", "nats": nats}, **settings}
        )
        base, (trace,) = study.of_seed(
            cfg, job.model, job.tok, [study.named(f"healed:{method}")], GRID, silent
        )
        stages = [
            {"scale": scale, "scores": s.scores, "trait": s.items["trait"], "base_trait": base.items["trait"]}
            for scale, s in trace.cells
        ]
    job.note(cell, stages=stages, stopped=trace.stopped, seconds=time.perf_counter() - start)


def condition(job: Job) -> None:
    if not (job.wanted("mean_diff") or job.wanted(WHERE)):
        return
    bed, band = job.bed((job.config.vector.layers,)), job.config.vector.layers
    start = time.perf_counter()
    found = examples(bed.model, bed.tok, bed.persona, ConditionConfig(), bed.config.batch_tokens)
    met = lambda texts: [
        float(m)
        for m in found.condition.meets(
            found.condition.cosines(
                bed.model, [prompt_ids(bed.tok, t) for t in texts], bed.config.batch_tokens
            )
        )
    ]
    neutral = [p for _, p in mix(KINDS, "heldout", 6 if job.a.small else NEUTRAL)]
    probes = met([p.question for p in bed.subject().probes])
    others, steering = met(neutral), bed.steering("mean_diff", models.band(bed.model, band))
    by_cell: dict[str, list[Row]] = {"mean_diff": [], WHERE: []}
    for dose in iso_kl(bed.model, steering, job.a.nats, bed.trials, passes=PASSES):
        plain = asdict(bed.measured("mean_diff", band, steering, dose))
        drift = drifts(bed, neutral, steering, dose.dose)
        text = bed.judged(
            generate(
                bed.model,
                bed.tok,
                bed.prompts,
                [dose.dose],
                directions=steering.directions,
                when=found.condition,
                config=bed.config.generate,
                seed=seed_for(job.seed, purposes.SWEEP, 1),
            )
        )
        by_cell["mean_diff"].append(
            plain | {"drift": drift, "asked": [1.0] * len(probes), "left": [1.0] * len(others)}
        )
        by_cell[WHERE].append(
            {
                "method": "mean_diff",
                "operation": steering.operation,
                "layers": band,
                "dose": plain["dose"],
                "shifts": [x * m for x, m in zip(plain["shifts"], probes, strict=True)],
                "drift": [x * m for x, m in zip(drift, others, strict=True)],
                "asked": probes,
                "left": others,
                "passed": [float(c.coherent) for c in text],
                "on_trait": [float(c.kept) for c in text],
            }
        )
    told = {
        "steered": found.steered,
        "left": found.left,
        "layer": found.condition.layer,
        "threshold": found.condition.threshold,
    }
    for cell, cells in by_cell.items():
        job.note(cell, cells=cells, condition=told, seconds=time.perf_counter() - start)


def drifts(bed: Bed, prompts: list[str], steering: Steering, dose: float) -> list[float]:
    """KL(base‖steered) on the base's own answer to each prompt, a token's mean."""
    own = generate(bed.model, bed.tok, prompts, [0.0], config=bed.config.generate, seed=bed.config.seed)
    tokens, many = [c.tokens for c in own], bed.config.batch_tokens
    plain = hidden_states(bed.model, tokens, batch_tokens=many)
    with steering(bed.model, dose):
        found = token_divergence(bed.model, tokens, plain, divergence=forward_kl, batch_tokens=many)
    return [kl.mean().item() for kl in found]


PARTS = {"rank": rank, "condition": condition, "heal": heal, "text": text, "band": by_band, "curve": curve}


def work(job: tuple[argparse.Namespace, str, str, int]) -> str:
    """One job; what it ended with."""
    a, part, persona, seed = job
    threads(a)
    start = time.perf_counter()
    try:
        PARTS[part](Job(a, part, persona, seed))
    except Late:
        return f"{part} {persona} {seed}: no time left"
    return f"{part} {persona} {seed}: {time.perf_counter() - start:.0f} s"


def jobs(a: argparse.Namespace) -> Iterator[tuple[argparse.Namespace, str, str, int]]:
    """A part of all personas and seeds before the next part."""
    for part in a.parts:
        for seed in a.seeds:
            for persona in a.personas:
                yield a, part, persona, seed


def main(argv: list[str] | None = None) -> Row:
    a = parsed(arguments(__doc__, list(PARTS), "a file of JSON lines", threads=2), argv)
    a.out.parent.mkdir(parents=True, exist_ok=True)
    if not a.collect:
        pooled(a, work, list(jobs(a)))
    found = summary(rows(a.out))
    show(found)
    return found


if __name__ == "__main__":
    main()
