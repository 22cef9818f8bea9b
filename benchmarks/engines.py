"""Tokens a second of each engine of generation for a shape, plain and steered, and whether their tokens are equal.

    PYTHONPATH=src:benchmarks python3 benchmarks/engines.py --shape qwen3-4b --rows 150 --tokens 512 --out engines.json

In: a shape (`shapes.py`, random weights), rows, tokens, doses. Every row has the same number of tokens, and rows share the
doses in turn, so that every batch is mixed; after that all rows at each dose alone. An engine's first call, which starts and
compiles, is told apart from the timed ones. *Equal*: rows whose likeliest tokens are those of `own`; *first difference*:
the mean share of a row's tokens before its first difference. Below fp32 rounding parts rows, so say --dtype float32 for the
check. `reload_seconds`: how long the engine takes to be given other weights, as each round does.

`--engines own` needs no extra; `--options` are what the other engine is told (`docs/engines.md`).
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import shapes
import torch
from transformers import Qwen3Config

from steer_heal_love.config import GenerateConfig
from steer_heal_love.generate.engine import REFERENCE, Order, engines, fit
from steer_heal_love.ground import models, records
from steer_heal_love.ground.operations import Steering

SMALL = Qwen3Config(
    hidden_size=128,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    intermediate_size=256,
    vocab_size=0,
    max_position_embeddings=4096,
    tie_word_embeddings=True,
)
"""for a dry run: vLLM's attention on a CPU takes heads of 32 and wider"""
PROMPT = 96
"""tokens of a prompt"""


def order(model: Any, a: argparse.Namespace, doses: list[float], name: str) -> Order:
    """Rows of random tokens that never end, steered at the doses in turn; unsteered where no dose is given."""
    draw = torch.Generator().manual_seed(a.seed)
    c = model.config.get_text_config()
    rows = torch.randint(3, c.vocab_size, (a.rows, PROMPT), generator=draw).tolist()
    at = range(c.num_hidden_layers // 3, 2 * c.num_hidden_layers // 3 + 1)
    directions = {i: a.size * torch.randn(c.hidden_size, generator=draw) for i in at}
    config = GenerateConfig(
        batch=a.batch or a.rows,
        temperature=a.temperature,
        engine=name,
        engine_options=() if name == REFERENCE else tuple(a.options),
    )
    return Order(
        [tuple(r) for r in rows],
        frozenset({-1}),
        config,
        a.tokens,
        a.seed,
        (Steering(directions),) if doses else (),
        [0] * a.rows,
        [doses[i % len(doses)] for i in range(a.rows)] if doses else [],
    )


def timed(call: Callable[[], Any], device: str) -> tuple[Any, float]:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    out = call()
    if device == "cuda":
        torch.cuda.synchronize()
    return out, time.perf_counter() - start


def measured(model: Any, tok: Any, name: str, a: argparse.Namespace) -> dict[str, Any]:
    """One engine: seconds of its first call, then tokens/s of each case, and the tokens themselves."""
    write, device = engines[name].write, model.device.type
    cases = {"plain": [], "mixed": a.doses, **{f"dose {d:g}": [d] for d in a.doses}}
    _, first = timed(lambda: write(model, tok, order(model, a, [], name)), device)
    found: dict[str, Any] = {"first_call_seconds": first, "cases": {}}
    for case in a.cases or cases:
        doses = cases[case]
        asked = order(model, a, doses, name)
        runs = [timed(lambda asked=asked: write(model, tok, asked), device) for _ in range(a.repeats)]
        made, seconds = sum(map(len, runs[0][0])), [s for _, s in runs]
        rates = [made / s for s in seconds]
        found["cases"][case] = {
            "tokens": made,
            "tokens_per_second": statistics.median(rates),
            "least": min(rates),
            "most": max(rates),
            "repeats_equal": all(r[0] == runs[0][0] for r in runs),
            "answers": runs[0][0],
        }
    return found | reload(model, tok, name, a)


def reload(model: Any, tok: Any, name: str, a: argparse.Namespace) -> dict[str, float]:
    """Seconds to give the engine other weights, less those of the one token that is written then."""
    if name == REFERENCE:
        return {}
    short = argparse.Namespace(**vars(a) | {"tokens": 1, "rows": 1, "batch": a.batch or a.rows})
    write = lambda: engines[name].write(model, tok, order(model, short, [], name))
    _, usual = timed(write, model.device.type)
    weight = next(p for p in model.parameters() if p.dim() > 1)
    pristine = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(1.5)
        _, seconds = timed(write, model.device.type)
        weight.copy_(pristine)
    return {"reload_seconds": seconds - usual}


def compared(ours: list[tuple[int, ...]], theirs: list[tuple[int, ...]]) -> dict[str, float]:
    """How many rows are equal, and how far rows go before they differ."""
    shares = []
    for a, b in zip(ours, theirs, strict=True):
        apart = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
        shares.append((apart[0] if apart else len(a)) / len(a))
    return {
        "rows": len(shares),
        "equal": sum(s == 1 for s in shares),
        "first_difference": statistics.mean(shares),
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--shape", choices=(*shapes.NAMES, "small"), required=True)
    args.add_argument("--rows", type=int, default=150)
    args.add_argument("--tokens", type=int, default=512)
    args.add_argument(
        "--temperature", type=float, default=0.0, help="above 0 tokens are drawn, and no rows are equal"
    )
    args.add_argument("--batch", type=int, default=0, help="rows at the same time; 0 means all")
    args.add_argument("--doses", type=float, nargs=3, default=[0.0, 0.5, 1.0])
    args.add_argument(
        "--size", type=float, default=0.3, help="of a direction's entries, as a standard deviation"
    )
    args.add_argument("--repeats", type=int, default=3)
    args.add_argument("--seed", type=int, default=0)
    args.add_argument("--device", default="auto")
    args.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    args.add_argument("--tokenizer", default="smollm2", help="folder of a tokenizer with a chat template")
    args.add_argument("--cases", nargs="+", choices=("plain", "mixed"), default=[], help="all when not given")
    args.add_argument("--engines", nargs="+", default=["own", "vllm"])
    args.add_argument("--options", nargs="*", default=[], help="NAME=VALUE for the engine beside torch")
    args.add_argument("--out", type=Path, required=True, help="JSON")
    a = args.parse_args(argv)
    shapes.CONFIGS["small"] = SMALL
    device = models.known_device(a.device)
    model, tok = shapes.build(a.shape, device=device, tokenizer=a.tokenizer, seed=a.seed, dtype=a.dtype)
    for name in a.engines:
        options = () if name == REFERENCE else tuple(a.options)
        config = GenerateConfig(temperature=a.temperature, engine=name, engine_options=options)
        engines[name].ready(config)
        fit(config, model)
    found = {name: measured(model, tok, name, a) for name in a.engines}
    out = figures(found, a, model)
    records.write_json(a.out, out)
    return out


def figures(found: dict[str, Any], a: argparse.Namespace, model: Any) -> dict[str, Any]:
    """Print a line a case, and give what is written: the tokens themselves are left out."""
    parity: dict[str, Any] = {}
    for name, e in found.items():
        for case, r in e["cases"].items():
            ours = found.get(REFERENCE, e)["cases"][case].get("answers")
            if name != REFERENCE and REFERENCE in found:
                parity.setdefault(name, {})[case] = compared(ours, r["answers"])
            same = parity.get(name, {}).get(case)
            equal = f"  {same['equal']}/{same['rows']} rows equal" if same else ""
            print(
                f"{name:<6} {case:<9} {r['tokens_per_second']:10.1f} tokens/s [{r['least']:.1f}, {r['most']:.1f}]{equal}"
            )
    for e in found.values():
        for r in e["cases"].values():
            r.pop("answers")
    said = {k: str(v) if isinstance(v, Path) else v for k, v in vars(a).items()}
    return {
        "asked": said,
        "device": records.device_name(model.device),
        "dtype": str(model.dtype),
        "python": platform.python_version(),
        "versions": records.versions(),
        "engines": found,
        "parity": parity,
    }


if __name__ == "__main__":
    main()
