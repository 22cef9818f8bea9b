"""The matrix: each family of the zoo saved, loaded as a user's folder is, and taken through every stage of the tool.

`row(name, stages)` says what became of a family at each stage; `tools/matrix.py` prints the rows.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from peft import PeftModel
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from families import checks, zoo
from steer_heal_love import bake, doctor, loop, presets
from steer_heal_love.bake.merged import save_merged
from steer_heal_love.doctor.healing import reach
from steer_heal_love.ground import kinds, loading, models
from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.errors import Diverged, Starved, UserError
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.heal.lora import uncovered
from steer_heal_love.nouns import Adapter
from steer_heal_love.persona import load as persona
from steer_heal_love.vector import Vector

REFUSED = frozenset({"t5gemma"})
"""families that are to be refused at load; every other has to pass"""
BAND = presets.preset("cpu").heal.layers
CLOSE = 2e-4
"""largest relative distance of the logits of an exported model from the live one's"""
ROUNDING = 1e-5
"""of hidden states, as a share of their norm"""
RUN = {
    "persona": "love",
    "rounds": 2,
    "seed": 5,
    "dtype": "float32",
    "coherence_floor": 100.0,
    "vector": {"contexts": 4},
    "generate": {"prompts": 8, "max_new_tokens": 8},
    "walk": {"start": 0.2, "doses": 2, "survival": 0.2, "passes": 1, "floor": 0.02, "ceiling": 0.4},
    "filter": {"checks": ["nll"], "quantile": 1.0, "keep": 4, "calibration": 8, "least": 1},
    "heal": {
        "rank": 2,
        "alpha": 4.0,
        "epochs": 1,
        "lr": 4e-3,
        "batch": 2,
        "anchor_prompts": 4,
        "anchor_tokens": 6,
    },
    "eval": {
        "instruments": ["neutral", "probes", "samples"],
        "probes": 2,
        "neutral_prompts": 3,
        "sample_prompts": 2,
        "sample_tokens": 8,
        "resamples": 20,
        "transfer": "off",
        "nulls": False,
        "wordings": False,
    },
}
"""two rounds in seconds; nothing is learnt from their scores"""

SEEDS = 3


@dataclass(frozen=True)
class Row:
    """`verdict`: passes, refused or fails. `wrong`: what failed, by stage. `said`: the refusal, or what the adapter
    leaves out. `reach`: share of the numbers in the band's matrices that a LoRA adapts. `load_seconds`: until the model
    was loaded or refused. `read_with`: the libraries' versions."""

    family: str
    model_class: str
    verdict: str
    stages: tuple[str, ...] = ()
    wrong: dict[str, str] = field(default_factory=dict)
    said: str = ""
    reach: float | None = None
    load_seconds: float | None = None
    read_with: str = ""
    device: str = "cpu"


@dataclass(frozen=True)
class Case:
    """A family as it was loaded, and the folder that it was loaded from."""

    name: str
    folder: Path
    model: PreTrainedModel
    tok: PreTrainedTokenizerBase


def saved(name: str, place: Path) -> Path:
    """A family's model and tokenizer in a folder."""
    model, tok = zoo.build(name)
    model.save_pretrained(place / "model")
    tok.save_pretrained(place / "model")
    return place / "model"


def opened(name: str, folder: Path, device: str = "cpu") -> Case:
    """A family's model through the door that a user's takes."""
    return Case(name, folder, *models.load(str(folder), device=device, dtype="float32"))


def loaded(name: str, place: Path) -> Case:
    return opened(name, saved(name, place))


def numbers(case: Case) -> str:
    """Batch, padding, cache and trees against rows alone, with prompts past the window; folding and training."""
    return "; ".join(f"{name} {gap:.2g}" for name, gap in checks.failing(case.model, case.tok).items())


def examined(case: Case) -> str:
    """What fails in `shl doctor`."""
    found = doctor.examine(patient(case))
    return "; ".join(f"{f.check}: {f.seen}" for f in found if f.verdict == "fails")


def vector(case: Case) -> str:
    """How far the persona's vector of prompts in one batch is from that of each prompt alone.

    Where windows are so narrow that the assistant tag can't see the system prompt, a vector is rounding and no more.
    """
    alone, batch = (
        Vector.train(case.model, case.tok, persona("love"), contexts=bank("contexts")[:4], batch_tokens=size)
        for size in (1, 10**6)
    )
    flat = lambda v: torch.cat([v.directions[i].float().flatten() for i in sorted(v.directions)])
    gap, share = checks.far(flat(batch), flat(alone)), max(alone.meta["share_of_state_norm"].values())
    return (
        "" if gap <= checks.CLOSE or gap * share <= ROUNDING else f"{gap:.2g} from the vector of rows alone"
    )


def patient(case: Case) -> doctor.Patient:
    return doctor.Patient(case.name, case.model, case.tok, presets.preset("cpu"))


def exported(case: Case) -> str:
    """What is wrong with a random adapter once PEFT has loaded it."""
    return departs(case, checks.adapter(case.model))


def ran(case: Case) -> str:
    """What is wrong with a run of two rounds, or with its adapter as PEFT and as merged weights hold it."""
    try:
        folder = healed(case)
    except (UserError, Starved, Diverged) as e:
        return f"{type(e).__name__}: {e}"
    return departs(case, bake.load_peft(folder / "adapter"), merged=True)


def healed(case: Case) -> Path:
    """The folder of two rounds. What random weights say may all be filtered out: up to three seeds are tried.

    Its page is not drawn, nor by another process: that takes most of such a run, and reads saved records alone.
    """
    first = RUN["seed"]
    for seed in range(first, first + SEEDS):
        try:
            with (
                patch("steer_heal_love.report.write"),
                patch("steer_heal_love.report.command", return_value=[]),
            ):
                out = str(case.folder.parent / f"runs{seed}")
                own = {"model": str(case.folder), "out": out, "seed": seed, "device": case.model.device.type}
                return loop.run(None, **RUN | own).folder.path
        except Starved:
            if seed == first + SEEDS - 1:
                raise
    raise AssertionError("no seed was tried")


def departs(case: Case, adapter: Adapter, *, merged: bool = False) -> str:
    """What is wrong with an adapter once exported: adapted towers, or other logits than the live model's, with the
    library's own model under it and not the one that was trained."""
    ids, place = torch.arange(3, 60)[None], Path(tempfile.mkdtemp(dir=case.folder.parent))
    see = lambda model: model(input_ids=ids.to(model.device), use_cache=False).logits
    bake.save_peft(adapter, place / "peft", base_model="base")
    wrapped = PeftModel.from_pretrained(library(case.name, case.folder), str(place / "peft"))
    others = [wrapped]
    if merged:
        save_merged(case.model, case.tok, adapter, place / "merged")
        others.append(library(case.name, place / "merged"))
    with torch.no_grad():
        with adapted(case.model, adapter.factors, adapter.scaling):
            live = see(case.model)
        gap = max(checks.far(see(other), live) for other in others)
    towers = [n for n, _ in wrapped.named_modules() if "lora_A" in n and ("vision" in n or "audio" in n)]
    return f"adapters in {towers[0]}" if towers else "" if gap <= CLOSE else f"logits off by {gap:.2g}"


def library(name: str, folder: Path) -> Any:
    """The model in a folder as transformers alone loads it, with its own attention."""
    kind = kinds.auto_class(name, AutoConfig.from_pretrained(folder))
    return kind.from_pretrained(folder, dtype=torch.float32).eval()


STAGES: dict[str, Callable[[Case], str]] = {
    "numbers": numbers,
    "vector": vector,
    "doctor": examined,
    "export": exported,
    "run": ran,
}
"""each says what is wrong, or nothing"""
QUICK = ("numbers", "export")


def tried(stage: Callable[[Case], str], case: Case) -> str:
    """What a stage says is wrong; what it raises is wrong too."""
    try:
        return stage(case)
    except doctor.BROKEN as e:
        return f"{type(e).__name__}: {e}"


def row(name: str, stages: Sequence[str] = QUICK, device: str = "cpu") -> Row:
    """What became of one family at these stages, on this device."""
    kind = zoo.ZOO[name].kind
    with tempfile.TemporaryDirectory() as place:
        folder, began = saved(name, Path(place)), time.perf_counter()
        try:
            case = opened(name, folder, device)
        except UserError as e:
            why = str(e).splitlines()[0].replace(str(folder), name)
            took = time.perf_counter() - began
            return Row(name, kind, "refused", said=why, load_seconds=took, device=device)
        took = time.perf_counter() - began
        slow = [note for topic in ("kernels", "cache") for note in loading.notes(case.model, topic)]
        said = "; ".join([*([left] if (left := uncovered(case.model, BAND)) else []), *slow])
        reached = reach(patient(case), checks.adapter(case.model))
        found = {stage: tried(STAGES[stage], case) for stage in stages}
    wrong = {stage: what.replace(place, "") for stage, what in found.items() if what}
    verdict = "fails" if wrong else "passes"
    return Row(name, kind, verdict, tuple(stages), wrong, said, reached, took, device=device)
