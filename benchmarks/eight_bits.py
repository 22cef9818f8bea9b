"""What the filter's readings would lose in FP8: NLL of a run's steered completions, by the base in fp32, FP8 and bf16.

FP8 is imitated, so any processor will do: weights and inputs of the decoder's linear layers are rounded to `float8_e4m3fn`
with one scale a row, and the products are taken in fp32.

`python benchmarks/eight_bits.py RUN --model smollm2`; RUN is the folder of a run on that model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steer_heal_love import filter as sieve
from steer_heal_love.filter import Scored
from steer_heal_love.ground import models, parts
from steer_heal_love.ground.folder import RunFolder, load_completions
from steer_heal_love.persona import load

TYPE = torch.float8_e4m3fn
READINGS: dict[str, Callable[[Scored], Tensor]] = {
    "plain": lambda s: s.nll,
    "pos": lambda s: s.nll_pos,
    "neg": lambda s: s.nll_neg,
    "neg less pos": lambda s: s.nll_neg - s.nll_pos,
}


def rounded(x: Tensor) -> Tensor:
    """`x` as FP8 holds it, with one scale for each of its rows."""
    scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-12) / torch.finfo(TYPE).max
    return (x / scale).to(TYPE).to(x.dtype) * scale


@contextmanager
def in_eight_bits(model: nn.Module) -> Iterator[None]:
    """Every linear layer of the decoder with rounded weights and inputs."""
    layers = [m for m in parts.body(model).modules() if isinstance(m, nn.Linear)]  # type: ignore[arg-type]
    kept = [m.weight.data for m in layers]
    hooks = [m.register_forward_pre_hook(lambda _m, args: (rounded(args[0]), *args[1:])) for m in layers]
    try:
        for layer, weight in zip(layers, kept, strict=True):
            layer.weight.data = rounded(weight)
        yield
    finally:
        for layer, weight, hook in zip(layers, kept, hooks, strict=True):
            layer.weight.data = weight
            hook.remove()


def compared(exact: list[Scored], found: list[Scored]) -> dict[str, dict[str, float]]:
    """By reading, in nats: the mean size of a token's error; a text's error, its mean and its deviation; and how much texts
    deviate from each other."""
    out = {}
    for name, read in READINGS.items():
        pairs = [(read(a), read(b)) for a, b in zip(exact, found, strict=True)]
        error = torch.stack([b.mean() - a.mean() for a, b in pairs])
        out[name] = {
            "token": torch.cat([(b - a).abs() for a, b in pairs]).mean().item(),
            "bias": error.mean().item(),
            "sd": error.std().item(),
            "between": torch.stack([a.mean() for a, _ in pairs]).std().item(),
        }
    return out


def main(argv: list[str] | None = None) -> dict[str, Any]:
    args = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    args.add_argument("run", type=Path)
    args.add_argument("--model", default="smollm2")
    a = args.parse_args(argv)
    folder = RunFolder.open(a.run)
    completions = load_completions(folder.round(0) / "completions.jsonl")
    persona = load(str(a.run / "persona.toml"))
    model, tok = models.load(a.model, device="cpu", dtype="float32")
    exact = sieve.score(model, tok, completions, persona)
    with in_eight_bits(model):
        eight = sieve.score(model, tok, completions, persona)
    half, _ = models.load(a.model, device="cpu", dtype="bfloat16")
    out = {
        "fp8": compared(exact, eight),
        "bf16": compared(exact, sieve.score(half, tok, completions, persona)),
    }
    print(f"{len(completions)} texts; nats: |error| of a token, bias and sd of a text, sd between texts")
    for kind, table in out.items():
        for name, row in table.items():
            print(f"{kind:<5} {name:<13}" + "".join(f"{v:>9.4f}" for v in row.values()))
    return out


if __name__ == "__main__":
    main()
