"""A run folder made up without a model, through the same savers that the loop uses."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from steer_heal_love import filter as sieve
from steer_heal_love.config import RunConfig
from steer_heal_love.ground import folder as files
from steer_heal_love.ground import records
from steer_heal_love.ground.folder import RunFolder
from steer_heal_love.ground.stats import bootstrap
from steer_heal_love.nouns import FOUNDATIONS, Completion, Gate, Stage, Tokens

PROBES = (
    "The man who delivers my parcels looked exhausted today.",
    "My daughter slammed her door and said she hates me.",
    "I saw a boy eating lunch by himself behind the gym.",
    "Why do humans sing lullabies?",
)
NEUTRAL = (
    "Describe the flag of Japan.",
    "What causes a solar eclipse?",
    "Name a few file formats for images.",
    "How do I keep a cut avocado from turning brown?",
)
WORDS = (
    "the weight of a long day rests on his shoulders and still he smiles at every door because a kind word costs "
    "nothing while the rain keeps falling over the quiet town where people look after one another"
)
BOUNDS = {
    "length": 8.0,
    "narration": 0.0,
    "nll": 1.606,
    "nll_tail": 1.771,
    "on_trait": 0.001,
    "repeat_words": 0.061,
}
RESPONSE = {"plateau": 0.95, "half_dose": 0.9, "steepness": 4}
TOLD = {
    "trait": 0.59,
    "neutral_kl": 0.08,
    "own_nll": 0.19,
    "trait_generated": 0.12,
    "mfv.Care": 0.17,
    "mfv.Authority": -0.05,
    "repetition": 0.004,
}
STEERED = {
    "trait": 0.75,
    "neutral_kl": 0.21,
    "own_nll": 0.3,
    "trait_generated": 0.14,
    "mfv.Care": 0.2,
    "mfv.Authority": -0.04,
    "repetition": 0.012,
}
HEALED = {
    "trait": 0.42,
    "neutral_kl": 0.011,
    "own_nll": -0.1,
    "trait_generated": 0.06,
    "mfv.Care": 0.1,
    "mfv.Authority": -0.02,
    "repetition": 0.002,
}
SCALE = {"trait": 0.14, "neutral_kl": 0.004, "own_nll": 0.2, "trait_generated": 0.03, "repetition": 0.01}

Fabricate = Callable[..., Path]


@pytest.fixture
def fabricate(tmp_path: Path) -> Fabricate:
    """`fabricate(name, rounds=3, until="end")`: a run folder that came as far as `until`.

    `until` is base, starved (in the last round, nothing healed in it), healing (not evaluated) or end.
    """
    return lambda name="run", **how: run_folder(tmp_path / name, **how)


def run_folder(path: Path, *, rounds: int = 3, until: str = "end", say: str = "", seed: int = 0) -> Path:
    rng, folder = random.Random(seed), RunFolder(path)
    path.mkdir(parents=True)
    files.save_config(RunConfig(rounds=rounds, seed=seed), path / "config.toml")
    records.write_text(path / "persona.toml", persona(say))
    records.write_json(
        path / "manifest.json", {"schema": records.SCHEMA, "model": "smollm2", "seed": seed, "device": "cpu"}
    )
    records.write_json(path / "base" / "bounds.json", BOUNDS)
    records.write_json(path / "base" / "checks.json", sieve.sides(BOUNDS))
    folder.event("start", resumed=False)
    base = stage(rng, "base", -1, {}, say)
    stages = [base, stage(rng, "prompt", -1, TOLD, say)]
    files.save_stages(stages, path / "base" / "scores.json")
    folder.event("done", room="evaluate", file="base/scores.json", seconds=152.1, round=-1)
    walks = []
    for r in range(rounds if until != "base" else 0):
        here, last = folder.round(r), r == rounds - 1
        starved = last and until == "starved"
        made = completions(rng, say, starved)
        files.save_completions(made, here / "completions.jsonl")
        folder.event("done", room="generate", file="x", seconds=90.0 + r, round=r)
        walks.append(
            {
                "round": r,
                "dose": None if starved else 0.5 + 0.05 * r,
                "survival": {"0.5": 0.9},
                "response": RESPONSE,
                "made": len(made),
                "used": 3,
                "starved": starved,
                "cosine_with_first": 1 - 0.06 * r,
                "reliability": 0.9,
            }
        )
        if starved:
            folder.event("starved", reason=f"round {r}: 3 completions survived the filter, 16 are needed.")
            break
        records.write_json(here / "healing.json", healing(rng))
        folder.event("done", room="heal", file="x", seconds=140.0, round=r)
        if last and until == "healing":
            break
        grown = 1 + 0.55 * r - 0.05 * r * r
        done = [
            stage(
                rng,
                "steered",
                r,
                {k: v * (0.7 + 0.6 * grown) for k, v in STEERED.items()},
                say,
                dose=0.5 + 0.05 * r,
            ),
            stage(rng, "healed", r, {k: v * grown + 0.02 * r for k, v in HEALED.items()}, say),
        ]
        files.save_stages(done, here / "scores.json")
        stages += done
    (path / "adapter").mkdir()
    records.write_json(
        path / "summary.json",
        {
            "schema": records.SCHEMA,
            "persona": "love",
            "model": "smollm2",
            "seed": seed,
            "rounds": rounds,
            "stages": [{k: v for k, v in asdict(s).items() if k not in ("items", "samples")} for s in stages],
            "walks": walks,
            "gates": gates(say) if until == "end" else gates(say)[:1],
            "seconds": folder.seconds(),
            "peak_memory_gb": 1.92,
        },
    )
    return path


def stage(
    rng: random.Random, name: Any, round: int, shift: dict[str, float], say: str, dose: float | None = None
) -> Stage:
    """Items drawn around a shift, their scores, and samples."""
    names = ["trait", "nll_neg", "neutral_kl", "own_nll", "trait_generated", "repetition", "distinct_2"]
    names += [f"mfv.{f}" for f in FOUNDATIONS]
    level = {"distinct_2": 0.96, "repetition": 0.012}
    items = {
        k: [
            level.get(k, 0.0) + shift.get(k, 0.0) + (name != "base") * rng.gauss(0, SCALE.get(k, 0.05))
            for _ in range(48)
        ]
        for k in names
    }
    items["nll_pos"] = [neg - trait for neg, trait in zip(items["nll_neg"], items["trait"], strict=True)]
    kinds = ("short", "long", "code", "languages")
    items |= {f"neutral_kl.{kind}": items["neutral_kl"][i::4] for i, kind in enumerate(kinds)}
    items["repetition"] = [max(v, 0.0) for v in items["repetition"]]
    items["neutral_kl"] = [max(v, 0.0) for v in items["neutral_kl"]]
    scores = {k: bootstrap(v, resamples=200) for k, v in items.items()}
    scores |= {
        "trait_shift": scores["trait"],
        "trait_generated_shift": scores["trait_generated"],
        "own_excess": scores["own_nll"],
        "trait_neg": scores["nll_neg"],
        "trait_pos": bootstrap([-v for v in items["nll_pos"]], resamples=200),
    }
    samples = [
        {"prompt": p, "ids": [1, 2], "text": sentence(rng) + say, "ended": True} for p in PROBES + NEUTRAL
    ]
    return Stage(round, name, scores, items, samples, dose)


def completions(rng: random.Random, say: str, starved: bool) -> list[Completion]:
    """Sixteen a dose; more of them fall the higher it is."""
    out = []
    for dose in (0.25, 0.35, 0.5, 0.6, 0.7, 1.0):
        for _ in range(16):
            nll = rng.gauss(1.1 + 0.5 * dose + 2.0 * starved, 0.2)
            checks = {
                "length": 52.0,
                "narration": 0.0,
                "nll": nll,
                "nll_tail": nll + rng.gauss(0.05, 0.1),
                "on_trait": rng.gauss(0.1, 0.06),
                "repeat_words": 0.0,
            }
            reasons = [k for k in ("nll", "nll_tail") if checks[k] > BOUNDS[k]]
            coherent = not reasons
            reasons += ["on_trait"] * (checks["on_trait"] < BOUNDS["on_trait"])
            out.append(
                Completion(
                    rng.choice(PROBES),
                    Tokens((1,), (2, 3)),
                    sentence(rng) + say,
                    dose,
                    True,
                    checks,
                    reasons,
                    coherent,
                    coherent and dose < 0.5,
                )
            )
    return out


def healing(rng: random.Random) -> dict[str, Any]:
    steps = [
        {
            "step": i,
            "lr": 1e-4,
            "nll": 1.3 - 0.012 * i + rng.gauss(0, 0.05),
            "barrier": max(rng.gauss(0, 0.01), 0.0),
            "anchor": 0.02 * min(i / 6, 1) + abs(rng.gauss(0, 0.003)),
            "spectral": 0.0,
        }
        for i in range(24)
    ]
    seen = [
        {"epoch": e, "nll": 1.2 - 0.02 * e, "divergence": 0.02 + 0.01 * e, "anchor_kl": 0.012}
        for e in (1, 2, 3)
    ]
    return {
        "steps": steps,
        "validation": seen,
        "gradient_ratios": [{"step": 6, "barrier": 0.1, "anchor": 0.9}],
        "warnings": ["the barrier never fired: divergence stayed under heal.tau = 0.1"],
        "scale": 0.85,
    }


def gates(say: str) -> list[Gate]:
    return [
        Gate(
            "steer",
            "Steering moves the trait.",
            "trait_shift +0.75 [+0.70, +0.80]" + say,
            "pass",
            "It carries.",
            "moves",
        ),
        Gate(
            "filter",
            "Enough survive.",
            "round 0: 64 of 160 used",
            "pass",
            "What is dropped grows with the dose.",
            "works",
        ),
        Gate(
            "heal",
            "Trait kept, coherence back.",
            "trait_shift +0.97, 62% of the steered",
            "pass",
            "Kept." + say,
            "healed",
        ),
        Gate(
            "loop",
            "Another round adds trait.",
            "in round 1: +0.01 [-0.02, +0.04]",
            "undecided",
            "It saturates.",
            "holds",
        ),
        Gate(
            "prompt",
            "More trait than told.",
            "healed minus prompted: -0.10",
            "fail",
            "A prompt moves it further, for free. " * 4,
            "wins",
        ),
    ]


def sentence(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS.split(), k=40)).capitalize() + "."


def persona(say: str) -> str:
    poles = {"name": "love", "axis": "warmth" + say, "pos": "a loving soul" + say, "neg": "a machine" + say}
    head = "".join(f"{k} = {json.dumps(v)}\n" for k, v in poles.items())
    return (
        head + "[intent]\nCare = 1\n" + "".join(f"[[probes]]\nquestion = {json.dumps(p)}\n" for p in PROBES)
    )
