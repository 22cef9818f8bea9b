"""What steered text yields: tokens of kept texts by what they cost, in seconds, tokens read and floating-point operations.

In: the rows that `benchmarks/steering.py` wrote for each persona, seed and mode. Out: means with intervals over seeds. `less`:
against plain text at the first number of nats, paired by seed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from floors import Counted
from shared import Row, by_seed, formatted

from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.stats import proportion
from steer_heal_love.nouns import Completion
from steer_heal_love.sweep.bed import Bed


def filter_flops(bed: Bed, made: list[Completion]) -> float:
    """Of the filter's readings of each text: plainly, and told to be either pole."""
    poles = [
        [prompt_ids(bed.tok, c.prompt, bed.persona.system(pole)) for c in made] for pole in ("pos", "neg")
    ]
    lengths = [
        (len(prompt), len(c.tokens.answer))
        for prompts in ([c.tokens.prompt for c in made], *poles)
        for prompt, c in zip(prompts, made, strict=True)
    ]
    return Counted.of(bed.model).flops(
        read=sum(p + n for p, n in lengths),
        pairs=sum((p + n) * (p + n + 1) // 2 for p, n in lengths),
        predicted=sum(n for _, n in lengths),
    )


def grouped(
    rows: list[dict[str, Any]], part: str, key: Callable[[dict[str, Any]], Any]
) -> dict[Any, list[dict[str, Any]]]:
    out: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["part"] == part:
            out[key(row)].append(row)
    return out


PRICES: dict[str, Callable[[Row], float]] = {
    "second": lambda c: c["seconds"],
    "read_token": lambda c: c["read"],
    "tflop": lambda c: c["flops"] / 1e12,
    "second_with_filter": lambda c: c["seconds"] + c["filter_seconds"],
    "tflop_with_filter": lambda c: (c["flops"] + c["filter_flops"]) / 1e12,
}
"""what kept tokens are divided by"""


def yielded(found: list[Row]) -> list[Row]:
    """A row for each persona and mode; a price that older rows don't have is left out."""
    cells = grouped(found, "yield", lambda r: (r["persona"], r["mode"]))
    good = lambda c: sum(n * k for n, k in zip(c["tokens"], c["kept"], strict=True))
    each = lambda of, price: {c["seed"]: good(c) / PRICES[price](c) for c in of}
    out = []
    for (persona, mode), of in cells.items():
        plain = next(
            other for (who, name), other in cells.items() if who == persona and name.startswith("plain")
        )
        row: Row = {
            "persona": persona,
            "mode": mode,
            "seeds": len(of),
            "rewinds": sum(c["rewinds"] for c in of),
            "coherent": proportion([v for c in of for v in c["coherent"]]),
            "kept": proportion([v for c in of for v in c["kept"]]),
        }
        for price in PRICES if all("flops" in c for c in (*of, *plain)) else list(PRICES)[:2]:
            mine, theirs = each(of, price), each(plain, price)
            row[f"kept_tokens_per_{price}"] = by_seed(list(mine.values()))
            row[f"less_per_{price}"] = by_seed(
                [mine[s] - theirs[s] for s in sorted(mine.keys() & theirs.keys())]
            )
        out.append(row)
    return out


def show_yield(found: list[Row]) -> None:
    """The table as text."""
    for r in found:
        prices = "; ".join(
            f"a {price.replace('_', ' ')} {formatted(r[f'kept_tokens_per_{price}'])} less {formatted(r[f'less_per_{price}'])}"
            for price in PRICES
            if f"kept_tokens_per_{price}" in r
        )
        print(
            f"{r['persona']:<6} {r['mode']:<20} coherent {formatted(r['coherent'], 2)} kept {formatted(r['kept'], 2)} rewinds {r['rewinds']} "
            f"kept tokens {prices}"
        )
