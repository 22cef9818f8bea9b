"""Rounds to one exact delta, as PEFT folders that plain `PeftModel.from_pretrained` loads.

In: adapters by round. Out: their sum as one adapter by rank concatenation,

    Σ_k s_k B_k A_k = [s_1 B_1 … s_K B_K] [A_1; …; A_K],

and its PEFT form (alpha = r, so PEFT's own scaling is 1 and the factors carry everything). Identity: the
stack of one round is that round; save and load are inverse.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from steer_heal_love.bake import plain_lora
from steer_heal_love.bake.plain_lora import PREFIX
from steer_heal_love.ground.identity import NOTE
from steer_heal_love.ground.records import whole, write_text
from steer_heal_love.nouns import Adapter, Json


def stack(rounds: list[Adapter]) -> Adapter:
    """All rounds as one adapter, exactly; modules missing from a round contribute nothing there."""
    names = sorted({n for r in rounds for n in r.factors})
    factors = {}
    for name in names:
        parts = [(a, b * r.scaling) for r in rounds if name in r.factors for a, b in [r.factors[name]]]
        at = parts[-1][0].device
        factors[name] = (torch.cat([a.to(at) for a, _ in parts]), torch.cat([b.to(at) for _, b in parts], 1))
    return Adapter(factors, 1.0)


def padded(adapter: Adapter) -> Adapter:
    """The same update with zero rows up to the largest rank, which PEFT wants equal over modules."""
    grow = torch.nn.functional.pad
    r = adapter.rank
    return Adapter(
        {
            n: (grow(a, (0, 0, 0, r - len(a))), grow(b, (0, r - len(a))))
            for n, (a, b) in adapter.factors.items()
        },
        adapter.scaling,
    )


@dataclass(frozen=True)
class PeftFiles:
    """What a PEFT folder holds, on the host and ready to be written."""

    tensors: dict[str, Tensor]
    config: Json
    note: Mapping[str, Any] | None

    def write(self, folder: Path) -> None:
        """`adapter_model.safetensors`, `adapter_config.json` and the note."""
        with whole(folder / "adapter_model.safetensors") as scratch:
            save_file(self.tensors, str(scratch), metadata={"format": "pt"})
        write_text(folder / "adapter_config.json", json.dumps(self.config, indent=2) + "\n")
        if self.note:
            write_text(folder / NOTE, json.dumps(self.note, indent=2) + "\n")


def peft_files(adapter: Adapter, *, base_model: str, note: Mapping[str, Any] | None = None) -> PeftFiles:
    """An adapter as PEFT reads it.

    `note` says by hash which base the adapter is of, and goes beside them as `ground.identity` reads it.

    Modules are named in full: a vision tower has layers and leaves of the same names. PEFT itself sees which of them
    keep their weight transposed (GPT-2).
    """
    adapter, tensors = padded(adapter), {}
    for name, (a, b) in adapter.factors.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = a.detach().float().cpu().contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = b.detach().float().cpu().contiguous()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": adapter.rank,
        "lora_alpha": adapter.scaling * adapter.rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "target_modules": sorted(adapter.factors),
        "modules_to_save": None,
    }
    return PeftFiles(tensors, config, note)


def save_peft(
    adapter: Adapter, folder: Path, *, base_model: str, note: Mapping[str, Any] | None = None
) -> None:
    """Write an adapter for PEFT (`peft_files`) into `folder`."""
    peft_files(adapter, base_model=base_model, note=note).write(folder)


def load_peft(folder: Path) -> Adapter:
    """The LoRA in a PEFT folder. Raises `UserError` when it is none, or anything else than a plain LoRA."""
    return plain_lora.load(folder)


def is_nothing(adapter: Adapter) -> bool:
    """Whether an adapter changes no module: one factor of each is zero."""
    return all(not a.any() or not b.any() for a, b in adapter.factors.values())
