"""The tables of `benchmarks/ranking.py`: from the rows that lie in its file to means with intervals, and to text.

A difference, `less`, is from `mean_diff` (in its default band), or from plain text, paired by probe and seed.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from shared import Row, by_seed, formatted, over_seeds

from steer_heal_love.ground import records
from steer_heal_love.ground.stats import proportion
from steer_heal_love.nouns import Score

DEFAULT = "mean_diff 0.3-0.7"
"""the cell of the default method in the default band"""


def less(mine: dict[int, list[float]], theirs: dict[int, list[float]]) -> Score:
    """Mean difference, paired by probe in the seeds that both have."""
    shared = sorted(mine.keys() & theirs.keys())
    if not shared:
        return Score.undefined()
    return over_seeds([[x - y for x, y in zip(mine[s], theirs[s], strict=True)] for s in shared])


Values = dict[tuple[Any, ...], dict[str, dict[int, list[float]]]]
"""by group and cell, each seed's values by probe"""


def steered(rows: list[Row], part: str) -> list[Row]:
    """Tables of the parts that steer: trait, trait per nat and its difference from the first cell of its group."""
    found: dict[tuple[str, float, str], list[tuple[int, Row, Row]]] = defaultdict(list)
    for r in rows:
        for c in r["cells"] if r["part"] == part else ():
            found[r["persona"], c["dose"]["nats"], r["cell"]].append((r["seed"], c, r))
    per_nat = {
        key: {s: [x / c["dose"]["kl_nats"] for x in c["shifts"]] for s, c, _ in of}
        for key, of in found.items()
    }
    out = []
    for (persona, nats, cell), of in sorted(found.items(), key=lambda f: f[0][:2]):
        default = DEFAULT if part == "curve" else "mean_diff"
        out.append(
            {
                "part": part,
                "persona": persona,
                "nats": nats,
                "cell": cell,
                "seeds": len(of),
                "kl_nats": [c["dose"]["kl_nats"] for _, c, _ in of],
                "doses": [c["dose"]["dose"] for _, c, _ in of],
                "trait": over_seeds([c["shifts"] for _, c, _ in of]),
                "per_nat": over_seeds(list(per_nat[persona, nats, cell].values())),
                "less": less(per_nat[persona, nats, cell], per_nat.get((persona, nats, default), {})),
                "coherent": proportion([v for _, c, _ in of for v in c["passed"]]),
                "kept": proportion([v for _, c, _ in of for v in c["on_trait"]]),
            }
            | (
                {
                    "drift": over_seeds([c["drift"] for _, c, _ in of]),
                    "asked": proportion([v for _, c, _ in of for v in c["asked"]]),
                    "left": proportion([v for _, c, _ in of for v in c["left"]]),
                }
                if part == "condition"
                else {}
            )
        )
    return out


def baked(rows: list[Row], part: str) -> list[Row]:
    """Tables of the parts that heal, and whatever stopped a round."""
    found: dict[tuple[str, float, str], dict[int, Row]] = defaultdict(dict)
    for r in rows:
        for s in r["stages"] if r["part"] == part else ():
            found[r["persona"], s["scale"], r["cell"]][r["seed"]] = s
    moved = {
        key: {
            seed: [x - y for x, y in zip(s["trait"], s["base_trait"], strict=True)] for seed, s in of.items()
        }
        for key, of in found.items()
    }
    out = []
    for (persona, scale, cell), of in sorted(found.items(), key=lambda f: f[0][:2]):
        mine = moved[persona, scale, cell]
        means = {
            s: by_seed([x["scores"][s]["mean"] for x in of.values() if x["scores"].get(s)])
            for s in ("neutral_kl", "own_excess")
        }
        row = {"part": part, "persona": persona, "scale": scale, "cell": cell, "seeds": len(of)}
        first = {"text": "plain", "band": DEFAULT}.get(part, "mean_diff")
        out.append(
            row
            | {
                "trait": over_seeds(list(mine.values())),
                "less": less(mine, moved.get((persona, scale, first), {})),
                **means,
            }
        )
    return out


def summary(rows: list[Row]) -> Row:
    """Every table, JSON-ready."""
    own: dict[tuple[str, int], list[float]] = {
        (r["persona"], r["seed"]): r["base_coherent"] for r in rows if "base_coherent" in r
    }
    people = sorted({p for p, _ in own})
    return records.plain(
        {  # type: ignore[no-any-return]
            "machines": sorted({r["device"] for r in rows}),
            "base_coherent": {
                p: proportion([v for (q, _), of in own.items() if q == p for v in of]) for p in people
            },
            "steered": [r for part in ("rank", "condition", "curve") for r in steered(rows, part)],
            "healed": [r for part in ("heal", "band", "text") for r in baked(rows, part)],
            "stopped": [
                {k: r[k] for k in ("part", "persona", "seed", "cell", "stopped")}
                for r in rows
                if r.get("stopped")
            ],
        }
    )


def show(found: Row) -> None:
    """The tables as text. `less`: the difference from `mean_diff` (in its default band), or from plain text."""
    base = ", ".join(f"{p} {formatted(s, 2)}" for p, s in found["base_coherent"].items())
    print(f"{', '.join(found['machines'])}; base coherent: {base}")
    for r in found["steered"]:
        kl = ", ".join(f"{v:.2f}" for v in r["kl_nats"])
        print(
            f"{r['part']:<5} {r['persona']:<6} {r['nats']:g} nats ({kl}) {r['cell']:<30} trait {formatted(r['trait'])} "
            f"per nat {formatted(r['per_nat'])} less {formatted(r['less'])} coherent {formatted(r['coherent'], 2)} "
            f"kept {formatted(r['kept'], 2)}"
        )
        if "drift" in r:
            print(
                f"{'':<11} steered: of the probes {formatted(r['asked'], 2)}, of neutral prompts {formatted(r['left'], 2)}; drift on these "
                f"{formatted(r['drift'], 4)}"
            )
    for r in found["healed"]:
        print(
            f"{r['part']:<5} {r['persona']:<6} scale {r['scale']:g} {r['cell']:<30} trait {formatted(r['trait'])} "
            f"less {formatted(r['less'])} neutral_kl {formatted(r['neutral_kl'], 4)} own_excess {formatted(r['own_excess'])} "
            f"seeds {r['seeds']}"
        )
    for r in found["stopped"]:
        print(f"{r['part']} {r['persona']} {r['cell']} seed {r['seed']}: {r['stopped']}")
