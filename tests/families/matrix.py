"""The matrix: each family of the zoo saved, loaded as a user's folder is, checked, exported, and loaded again by PEFT.

`rows(names)` gives a row a family. `tools/families.py` prints them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from families import checks, zoo
from steer_heal_love import bake
from steer_heal_love.ground import models
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.heal.lora import uncovered

REFUSED = frozenset({"t5gemma"})
"""families that are to be refused at load; every other has to pass"""


@dataclass(frozen=True)
class Row:
    """`verdict`: passes, refused or fails. `lacking`: what was refused, what failed, or what the adapter leaves out."""

    family: str
    model_class: str
    verdict: str
    lacking: str = ""


def loaded(name: str, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A family's model by the way that a user's takes: from a folder, through the door."""
    model, tok = zoo.build(name)
    model.save_pretrained(folder)
    tok.save_pretrained(folder)
    return models.load(str(folder), device="cpu", dtype="float32")


def exported(model: PreTrainedModel, folder: Path) -> str:
    """What is wrong with the adapter once PEFT has loaded it; empty where its logits are the live model's."""
    adapter = checks.adapter(model)
    ids = torch.arange(3, 60)[None]
    with torch.no_grad(), adapted(model, adapter.factors, adapter.scaling):
        live = model(input_ids=ids, use_cache=False).logits
    folder.mkdir()
    bake.save_peft(adapter, folder, base_model="base")
    wrapped = PeftModel.from_pretrained(model, str(folder))
    with torch.no_grad():
        gap = checks.far(wrapped(input_ids=ids, use_cache=False).logits, live)
    towers = [n for n, _ in wrapped.named_modules() if "lora_A" in n and ("vision" in n or "audio" in n)]
    return f"adapters in {towers[0]}" if towers else "" if gap <= 1e-4 else f"logits off by {gap:.2g}"


def row(name: str) -> Row:
    kind = zoo.ZOO[name].kind
    with tempfile.TemporaryDirectory() as place:
        try:
            model, tok = loaded(name, Path(place) / "model")
        except UserError as e:
            return Row(name, kind, "refused", str(e).splitlines()[0].replace(place, ""))
        failing, missing = checks.failing(model, tok), uncovered(model, (0.2, 0.8)) or ""
        wrong = exported(model, Path(place) / "adapter")
    if failing or wrong:
        return Row(name, kind, "fails", "; ".join([*(f"{k} {v:.2g}" for k, v in failing.items()), wrong]))
    return Row(name, kind, "passes", missing)


def rows(names: Iterable[str] = ()) -> Iterator[Row]:
    """A row a family, in the zoo's order; all families where none is named."""
    for name in names or zoo.ZOO:
        yield row(name)
