"""Does it pay to serve many cells in one batch on one copy of the weights, each row with an adapter of its own?

    python benchmarks/many_adapters.py --shape qwen3-4b --adapters 8 --rows 192 384 768 --tokens 128 --out results.json
    python benchmarks/many_adapters.py --shape smollm2 --adapters 4 --rows 64 --tokens 12 --dtype float32

In: a shape (`benchmarks/shapes.py`), K random adapters of the preset's rank, R rows. K batches of R/K rows, one after the
other, against one batch of R rows in which row i wears adapter i·K // R:

    folded     a batch for each adapter, folded into the weights: what a run does when it generates
    beside     a batch for each adapter, beside the weights as one LoRA: what a run does when it evaluates
    masked     one batch; A x of all K adapters in one product, the columns of other rows' adapters set to 0, then B
    grouped    one batch; rows of an adapter stand together, one small product an adapter (batched)
    gathered   one batch; each row's own factors are copied beside it (batched low-rank product per row)

    y_i = W x_i + s B_{k(i)} (A_{k(i)} x_i)

Both work as a whole: sampling (every row to the full length, no row leaves), and one reading of all rows. The forms of one
batch need less of the weights' bandwidth; they pay more for the adapters. Timed in turn, `--repeats` times; medians, least and
most. Invariant: greedy tokens are those of each adapter alone, in fp32.
Source of adapters by row: Chen et al. 2023 (Punica), arXiv 2310.18547; Sheng et al. 2023 (S-LoRA), arXiv 2311.03285.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import floors
import shapes
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steer_heal_love.config import HealConfig
from steer_heal_love.ground import records
from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.parts import body
from steer_heal_love.ground.weights import folded
from steer_heal_love.heal.lora import fresh
from steer_heal_love.nouns import Adapter

PROMPT = 33
"""tokens of a prompt, as of the persona `love`'s in the embedded model's template"""

Product = Callable[
    [Float[Tensor, "b t i"], Float[Tensor, "k r i"], Float[Tensor, "k o r"], Int[Tensor, " b"]], Tensor
]
"""what is added to a module's output: from its input, all adapters' factors, and each row's adapter"""


def masked(x: Tensor, a: Tensor, b: Tensor, which: Tensor) -> Tensor:
    """[b t o] from one product over all adapters' ranks."""
    k, r, _ = a.shape
    low = (x @ a.flatten(0, 1).T).view(*x.shape[:2], k, r)
    mine = torch.nn.functional.one_hot(which, k).to(x)[:, None, :, None]
    return (low * mine).flatten(2) @ b.transpose(0, 1).flatten(1).T


def grouped(x: Tensor, a: Tensor, b: Tensor, which: Tensor) -> Tensor:
    """[b t o] from a product an adapter; rows stand in the order of their adapters, as many of each."""
    k, t = len(a), x.shape[1]
    low = torch.bmm(x.reshape(k, -1, x.shape[2]), a.transpose(1, 2))
    return torch.bmm(low, b.transpose(1, 2)).view(len(which), t, -1)


def gathered(x: Tensor, a: Tensor, b: Tensor, which: Tensor) -> Tensor:
    """[b t o] from a product a row."""
    return torch.bmm(torch.bmm(x, a[which].transpose(1, 2)), b[which].transpose(1, 2))


FORMS: dict[str, Product] = {"masked": masked, "grouped": grouped, "gathered": gathered}
WAYS = ("folded", "beside", *FORMS)


@contextmanager
def by_row(
    model: Any, adapters: Sequence[Adapter], which: Int[Tensor, " b"], form: Product
) -> Iterator[None]:
    """Row i of every batch wears adapter which[i]. All adapters are of the same modules and rank."""
    with ExitStack() as stack:
        for name in adapters[0].factors:
            down = torch.stack([x.factors[name][0] for x in adapters]).to(model.device, model.dtype)
            up = torch.stack([x.factors[name][1] * x.scaling for x in adapters]).to(model.device, model.dtype)

            def hook(_module, args, output, down=down, up=up):
                return output + form(args[0], down, up, which)

            stack.callback(model.get_submodule(name).register_forward_hook(hook).remove)
        yield


def made(model: Any, n: int) -> list[Adapter]:
    """Random adapters as a heal's, their updates about a hundredth of the weights."""
    h, out = HealConfig(), []
    for seed in range(n):
        start = fresh(model, rank=h.rank, alpha=h.alpha, share=h.layers, seed=seed)
        torch.manual_seed(seed)
        out.append(
            Adapter(
                {m: (a, 1e-3 * torch.randn_like(b)) for m, (a, b) in start.factors.items()}, start.scaling
            )
        )
    return out


def prompts_of(rows: int, vocabulary: int, length: int = PROMPT) -> list[tuple[int, ...]]:
    """Random prompts, the first token different in each, so that no start is shared."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(3, vocabulary, (rows, length), generator=draw)
    ids[:, 0] = 3 + torch.arange(rows) % (vocabulary - 3)
    return [tuple(row) for row in ids.tolist()]


def shared_out(rows: int, adapters: int) -> Int[Tensor, " b"]:
    """Each row's adapter, rows of an adapter together."""
    return torch.arange(rows) * adapters // rows


def sampled(model: Any, prompts: list[tuple[int, ...]], tokens: int) -> list[tuple[int, ...]]:
    """Greedy answers of exactly so many tokens."""
    return sample(
        model, prompts, ends=frozenset(), max_new_tokens=tokens, seed=0, temperature=0.0, batch=len(prompts)
    )


@torch.no_grad()
def forward(model: Any, rows: int, length: int) -> Tensor:
    ids = torch.arange(rows * length, device=model.device).view(rows, length) % 200 + 3
    return body(model)(input_ids=ids, use_cache=False).last_hidden_state  # type: ignore[no-any-return]


Work = Callable[[list[tuple[int, ...]]], Any]


def one_after_another(
    model: Any, adapters: Sequence[Adapter], prompts: list, work: Work, *, fold: bool
) -> list:
    """The work on each adapter's share of the prompts, a batch each."""
    each, out = len(prompts) // len(adapters), []
    for k, adapter in enumerate(adapters):
        context = folded(model, [adapter]) if fold else adapted(model, adapter.factors, adapter.scaling)
        with context:
            out += list(work(prompts[k * each : (k + 1) * each]))
    return out


def together(model: Any, adapters: Sequence[Adapter], prompts: list, work: Work, form: str) -> list:
    """The work on all prompts in one batch."""
    which = shared_out(len(prompts), len(adapters)).to(model.device)
    with by_row(model, adapters, which, FORMS[form]):
        return list(work(prompts))


def ways(model: Any, adapters: Sequence[Adapter], prompts: list, work: Work) -> dict[str, Callable[[], list]]:
    out: dict[str, Callable[[], list]] = {
        "folded": lambda: one_after_another(model, adapters, prompts, work, fold=True),
        "beside": lambda: one_after_another(model, adapters, prompts, work, fold=False),
    }
    return out | {f: (lambda f=f: together(model, adapters, prompts, work, f)) for f in FORMS}


def timed(ways: dict[str, Callable[[], list]], device: torch.device, repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, all in turn, after one that warms up: processor seconds where there is no GPU, since other
    work may share the processor."""
    out: dict[str, list[float]] = {name: [] for name in ways}
    for n in range(repeats + 1):
        for name, work in ways.items():
            began = time.process_time()
            wall, _ = floors.timed(work, device)
            if n:
                out[name].append(wall if device.type == "cuda" else time.process_time() - began)
    return out


def measured(model: Any, a: argparse.Namespace, rows: int) -> list[dict[str, Any]]:
    """A row a kind of work and a way: tokens a second, and how many times the folded way's."""
    adapters, prompts = (
        made(model, a.adapters),
        prompts_of(rows, model.config.get_text_config().vocab_size, a.prompt),
    )
    works = {
        "sample": (rows * a.tokens, lambda some: sampled(model, some, a.tokens)),
        "read": (rows * a.read, lambda some: forward(model, len(some), a.read)),
    }
    out = []
    for kind, (tokens, work) in works.items():
        asked = {n: w for n, w in ways(model, adapters, prompts, work).items() if n in a.ways}
        seconds = timed(asked, model.device, a.repeats)
        base = statistics.median(seconds["folded"])
        for way, s in seconds.items():
            median = statistics.median(s)
            row = {
                "work": kind,
                "way": way,
                "rows": rows,
                "adapters": a.adapters,
                "tokens_per_second": tokens / median,
            }
            out.append(row | {"seconds": [min(s), median, max(s)], "times_folded": base / median})
            print(
                f"{kind:<7}{way:<9} {rows} rows, {a.adapters} adapters: {tokens / median:9.1f} tokens/s, {base / median:.2f} × folded",
                flush=True,
            )
    return out


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shape", default="smollm2", choices=shapes.NAMES)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--dtype", default="", help="float32 or bfloat16; the device's own when not given")
    p.add_argument("--tokenizer", default="smollm2")
    p.add_argument("--adapters", type=int, default=4)
    p.add_argument("--rows", type=int, nargs="+", default=[64], help="multiples of --adapters")
    p.add_argument("--tokens", type=int, default=128)
    p.add_argument("--prompt", type=int, default=PROMPT, help="tokens of a prompt")
    p.add_argument("--read", type=int, default=64, help="tokens of a row that is read")
    p.add_argument(
        "--ways", nargs="+", choices=WAYS, default=WAYS, help="`folded` is what others are compared with"
    )
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--out", type=Path)
    a = p.parse_args(argv)
    if "folded" not in a.ways:
        p.error("--ways: folded is what the others are compared with; name it too")
    if wrong := [r for r in a.rows if r % a.adapters]:
        p.error(f"--rows: multiples of --adapters, found {wrong[0]} and {a.adapters}")
    model, _ = shapes.build(a.shape, device=a.device, tokenizer=a.tokenizer, dtype=a.dtype or "auto")
    found = [row for rows in a.rows for row in measured(model, a, rows)]
    if a.out:
        told = {
            "shape": a.shape,
            "device": records.device_name(model.device),
            "dtype": str(model.dtype),
            "rank": HealConfig.rank,
        }
        records.write_json(
            a.out, {**told, **records.commit(), "versions": records.versions(), "measured": found}
        )


if __name__ == "__main__":
    main()
