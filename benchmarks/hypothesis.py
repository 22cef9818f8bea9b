"""Does a regulariser take away incoherence before it takes away the trait, or does it only trade one for the other?

    python benchmarks/hypothesis.py --personas love --seeds 0 1 2 3 4 --workers 5 --out hypothesis.jsonl
    python benchmarks/hypothesis.py --figure hypothesis.jsonl --png docs/hypothesis.png

The claim under test: incoherence is large and erratic, the trait is small and systematic, so a regulariser removes the
first preferentially. The training text is steered text that no filter touched, with a known share of soup planted in it
(texts sampled at a dose that breaks the model, judged incoherent).

*Exchange.* For every share of soup and every regulariser and weight, one heal as trained, unscaled. Its effect over fixed
tokens is split in two: with δ the update's change of the final hidden states and t the change that steering makes there,

    β = Σ⟨Wδ, Wt⟩ / Σ⟨Wt, Wt⟩   the trait's coefficient (W the unembedding, sums over all tokens),
    r = δ − β·t                  what is not the trait; its cost is KL(base‖base + r), in nats/token: `off_trait_kl`.

The null line is the unregularised update of the same text scaled down: what anybody gets without a regulariser. A
regulariser takes incoherence first only where, at the same off_trait_kl, it keeps more of the trait than that line.

*Consistency.* Heals on disjoint small sets of text from one starting point. An effect that is systematic is the same in
all of them; an erratic one averages out. With e_k the effect of heal k (β_k, or the field r_k over all tokens in logit
space), the systematic share is the bias-corrected |mean e|² / mean |e|²: 1 for the same effect each time, 0 for noise.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing as mp
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ablation import ALONE, barrier, formatted, merged
from heals import Lab
from jaxtyping import Float
from shared import by_seed
from torch import Tensor

from steer_heal_love import steps
from steer_heal_love.ground import models
from steer_heal_love.ground.chat import answer_ids, prompt_ids
from steer_heal_love.ground.divergence import forward_kl
from steer_heal_love.ground.scoring import hidden_states, log_likelihood
from steer_heal_love.nouns import Adapter, Completion, Tokens

TEXTS, SETS, SET_SIZE = 36, 12, 6
SHARES = (0.0, 0.1, 0.3, 0.6)
SCALES = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4)
NONE = "none"
GAINS = ("beta", "trait_shift")
"""what of the trait is set against the null line at equal off_trait_kl"""


@dataclass(frozen=True)
class Penalty:
    """A regulariser at one weight, on top of imitation alone."""

    name: str
    weight: float
    settings: dict[str, Any] = field(default_factory=dict)


PENALTIES = [
    Penalty(NONE, 0.0),
    *(Penalty("anchor", w, {"anchor": w}) for w in (0.3, 1.0, 3.0, 10.0)),
    *(Penalty("reverse KL", w, barrier("reverse_kl", "mean", w)) for w in (0.2, 0.5, 1.0, 2.0)),
    *(Penalty("forward KL", w, barrier("forward_kl", "mean", w)) for w in (0.2, 0.5, 1.0, 2.0)),
    *(Penalty("weight decay", w, {"weight_decay": w}) for w in (30.0, 100.0, 300.0)),
    *(Penalty("spectral norm", w, {"spectral": w}) for w in (0.1, 1.0, 10.0)),
    *(Penalty("soft targets", w, {"soft": w}) for w in (0.25, 0.5, 1.0)),
]


class Effects:
    """The base's final hidden states over fixed texts, what steering does to them, and the split of any update."""

    def __init__(self, lab: Lab, questions: int, neutral: int) -> None:
        self.lab, r = lab, lab.run
        asked = [
            Tokens(prompt_ids(r.tok, p.question), answer_ids(r.tok, text))
            for p in r.persona.probes[:questions]
            for text in (p.pos, p.neg)
        ]
        self.tokens = asked + [t for _, t, _ in r.base.neutral[:neutral]]
        self.asked = len(asked)
        self.plain = self._states()
        self.base_nll = self.nll(self.plain)
        up, down = (self._states(vector=sign * lab.dose) for sign in (1, -1))
        self.trait = (up - down) / 2
        weight = r.model.get_output_embeddings().weight.float()
        weight = weight - weight.mean(0)  # a constant on all logits changes nothing
        self.metric = (weight.T @ weight) / len(weight)

    def _states(self, adapter: Adapter | None = None, vector: float = 0.0) -> Float[Tensor, "t d"]:
        r = self.lab.run
        context = steps.exported(r, [adapter]) if adapter else self.lab.vector(r.model, vector)
        with context:
            found = hidden_states(r.model, self.tokens, batch_tokens=r.config.batch_tokens)
        return torch.cat(found).to(r.model.device).float()

    def dot(self, a: Float[Tensor, "t d"], b: Float[Tensor, "t d"]) -> float:
        """⟨Wa, Wb⟩ summed over tokens, as a mean over the vocabulary."""
        return ((a @ self.metric) * b).sum().item()

    def split(self, adapter: Adapter) -> tuple[float, Float[Tensor, "t d"]]:
        """The trait's coefficient β, and the rest r of the change of hidden states."""
        moved = self._states(adapter) - self.plain
        beta = self.dot(moved, self.trait) / self.dot(self.trait, self.trait)
        return beta, moved - beta * self.trait

    def nll(self, states: Float[Tensor, "t d"]) -> Float[Tensor, "n 2"]:
        """NLL per token of every probe's pos and neg answer, nats."""
        model, sizes = self.lab.run.model, [len(t.answer) for t in self.tokens]
        out = []
        for t, h in zip(self.tokens[: self.asked], states.split(sizes), strict=False):
            targets = torch.tensor(t.answer, device=h.device)
            out.append(log_likelihood(model, h.to(model.dtype), targets).mean().neg().cpu())
        return torch.stack(out).view(-1, 2)

    def shifts(self, states: Float[Tensor, "t d"]) -> dict[str, float]:
        """How far the pos answers' NLL fell, the neg answers' rose, and the sum, nats per token."""
        pos, neg = (self.nll(states) - self.base_nll).mean(0).tolist()
        return {"trait_shift": neg - pos, "trait_pos": -pos, "trait_neg": neg}

    def kl(self, rest: Float[Tensor, "t d"]) -> tuple[float, float]:
        """KL(base‖base + rest) per token, nats: the mean, and the 99th percentile over tokens."""
        model, out = self.lab.run.model, []
        for h, d in zip(self.plain.split(256), rest.split(256), strict=True):
            base, other = (models.head(model, x.to(model.dtype)) for x in (h, h + d))
            out.append(forward_kl(base, other))
        values = torch.cat(out)
        return values.mean().item(), values.quantile(0.99).item()


def mixture(lab: Lab, share: float, texts: int) -> list[Completion]:
    """Unfiltered steered completions of which so many are replaced by soup, shuffled apart from each other."""
    soup = min(round(share * texts), len(lab.pools["broken"]))
    mixed = lab.pools["random"][: texts - soup] + lab.pools["broken"][:soup]
    order = torch.randperm(len(mixed), generator=torch.Generator().manual_seed(lab.run.config.seed)).tolist()
    return [mixed[i] for i in order]


def exchange(
    lab: Lab, effects: Effects, texts: int, shares: list[float], full: bool
) -> Iterator[dict[str, Any]]:
    """One heal by share of soup and regulariser; the unregularised one at several scales too."""
    for share in shares:
        used = mixture(lab, share, texts)
        for p in PENALTIES:
            adapter = lab.heal(used, ALONE | p.settings)
            for scale in SCALES if p.name == NONE else (1.0,):
                scaled = adapter.scaled(scale)
                beta, rest = effects.split(scaled)
                off, worst = effects.kl(rest)
                line: dict[str, Any] = {
                    "part": "exchange",
                    "soup": share,
                    "texts": len(used),
                    "penalty": p.name,
                    "weight": p.weight,
                    "scale": scale,
                    "beta": beta,
                    "off_trait_kl": off,
                    "off_trait_kl_p99": worst,
                    "neutral_kl": lab.drift(scaled),
                    **effects.shifts(effects.plain + beta * effects.trait + rest),
                }
                if full:
                    scores = lab.evaluate(scaled).scores
                    line["scores"] = {k: s.mean for k, s in scores.items()}
                yield line


def consistency(lab: Lab, effects: Effects, sets: int, size: int) -> Iterator[dict[str, Any]]:
    """Heals on disjoint sets of texts from one starting point, by kind of text and regulariser."""
    kinds = {
        "steered": lab.pools["random"],
        "soup": lab.pools["broken"],
        "the base's own": lab.pools["unsteered"],
    }
    chosen = {NONE: {}, "anchor 1": {"anchor": 1.0}, "reverse KL 0.5": barrier("reverse_kl", "mean", 0.5)}
    for kind, pool in kinds.items():
        parts = [pool[i * size : (i + 1) * size] for i in range(min(sets, len(pool) // size))]
        for name, settings in chosen.items():
            found = [effects.split(lab.heal(p, ALONE | settings)) for p in parts]
            if len(found) < 3:
                continue
            betas, rests = torch.tensor([b for b, _ in found]), [r for _, r in found]
            kls = [effects.kl(r)[0] for r in rests]
            yield {
                "part": "consistency",
                "text": kind,
                "penalty": name,
                "sets": len(found),
                "beta": betas.mean().item(),
                "beta_sd": betas.std().item(),
                "off_trait_kl": sum(kls) / len(kls),
                "trait_systematic": systematic(
                    betas.mean().item() ** 2, betas.pow(2).mean().item(), len(found)
                ),
                "rest_systematic": share_of(effects, rests),
            }


def share_of(effects: Effects, fields: list[Float[Tensor, "t d"]]) -> float:
    mean = torch.stack(fields).mean(0)
    each = sum(effects.dot(r, r) for r in fields) / len(fields)
    return systematic(effects.dot(mean, mean), each, len(fields))


def systematic(of_mean: float, mean_of: float, n: int) -> float:
    """|mean e|²/mean|e|² without the 1/n that noise alone would leave in it; NaN where nothing moved."""
    return (n * of_mean / mean_of - 1) / (n - 1) if mean_of else math.nan


def work(job: tuple[str, int, argparse.Namespace]) -> int:
    persona, seed, a = job
    torch.set_num_threads(1)
    small = json.loads(a.set)
    texts, sets, size = small.pop("texts", TEXTS), small.pop("sets", SETS), small.pop("size", SET_SIZE)
    pool = max(texts, sets * size)
    changes = {
        "persona": persona,
        "seed": seed,
        "generate": {"prompts": 24, "batch": 96},
        "filter": {"keep": pool},
    }
    changes["heal"] = {"epochs": 4}  # long enough that the update does harm
    lab = Lab.open(merged(changes, small), texts=pool)
    effects, n = Effects(lab, a.questions, a.neutral), 0
    with a.out.with_name(f"{a.out.stem}-{persona}-{seed}.jsonl").open("w") as f:
        first = [] if a.exchange_only else consistency(lab, effects, sets, size)
        for part in (first, exchange(lab, effects, texts, a.shares, a.full)):
            for line in part:
                f.write(json.dumps({"persona": persona, "seed": seed, **line}) + "\n")
                f.flush()
                n += 1
                print(persona, seed, {k: v for k, v in line.items() if k != "scores"}, flush=True)
    return n


# What the lines say, and the picture.


def above_line(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For every regularised heal: its trait less that of the scaled unregularised heal at the same off_trait_kl."""
    out = []
    for x in lines:
        if x["part"] != "exchange" or x["penalty"] == NONE:
            continue
        same = [n for n in lines if n["part"] == "exchange" and n["penalty"] == NONE]
        same = [n for n in same if all(n[k] == x[k] for k in ("persona", "seed", "soup"))]
        at = {
            k: interpolated(sorted((n["off_trait_kl"], n[k]) for n in same), x["off_trait_kl"]) for k in GAINS
        }
        out.append(x | {f"{k}_gain": x[k] - at[k] for k in GAINS})
    return out


def interpolated(line: list[tuple[float, float]], cost: float) -> float:
    """β of the null line at a cost, linear in the root of the cost (a KL grows with the square); NaN past its end."""
    points = [(0.0, 0.0), *((math.sqrt(max(c, 0.0)), b) for c, b in line)]
    root = math.sqrt(max(cost, 0.0))
    for (x0, b0), (x1, b1) in itertools.pairwise(points):
        if x0 <= root <= x1 and x1 > x0:
            return b0 + (b1 - b0) * (root - x0) / (x1 - x0)
    return math.nan


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown: by soup, regulariser and weight, the mean over seeds of trait and cost, and trait over the null line's."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for x in above_line(lines):
        found.setdefault((x["persona"], x["soup"], x["penalty"], x["weight"]), []).append(x)
    rows = [
        "| persona | soup | regulariser | weight | β | trait_shift | off_trait_kl | neutral_kl | β less the null line's | "
        "trait_shift less the null line's | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key, group in sorted(found.items()):
        means = {
            k: sum(g[k] for g in group) / len(group)
            for k in ("beta", "trait_shift", "off_trait_kl", "neutral_kl")
        }
        gains = [by_seed([g[f"{k}_gain"] for g in group]) for k in GAINS]
        persona, soup, name, weight = key
        rows.append(
            f"| {persona} | {soup:.0%} | {name} | {weight:g} | {means['beta']:+.3f} | {means['trait_shift']:+.3f} | "
            f"{means['off_trait_kl']:.4f} | {means['neutral_kl']:.4f} | {' | '.join(map(formatted, gains))} | {gains[0].n} |"
        )
    rows += [
        "",
        "| persona | text | regulariser | β | off_trait_kl | systematic share of β | of the rest | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    kinds: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for x in lines:
        if x["part"] == "consistency":
            kinds.setdefault((x["persona"], x["text"], x["penalty"]), []).append(x)
    for key, group in kinds.items():
        cells = [
            by_seed([g[k] for g in group])
            for k in ("beta", "off_trait_kl", "trait_systematic", "rest_systematic")
        ]
        rows.append(f"| {' | '.join(key)} | {' | '.join(map(formatted, cells))} | {len(group)} |")
    return "\n".join(rows)


def figure(lines: list[dict[str, Any]], png: Path) -> None:
    """A panel a share of soup: the trait's coefficient against what isn't the trait, log scales, and the null line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    exchanged = [x for x in lines if x["part"] == "exchange"]
    shares = sorted({x["soup"] for x in exchanged})
    names = list(dict.fromkeys(x["penalty"] for x in exchanged if x["penalty"] != NONE))
    fig, axes = plt.subplots(1, len(shares), figsize=(3.6 * len(shares), 3.9), sharey=True, squeeze=False)
    for ax, share in zip(axes[0], shares, strict=True):
        here = [x for x in exchanged if x["soup"] == share]
        for seed in sorted({x["seed"] for x in here}):
            null = sorted(
                (x["off_trait_kl"], x["beta"]) for x in here if x["penalty"] == NONE and x["seed"] == seed
            )
            label = "unregularised, scaled" if seed == min(x["seed"] for x in here) else None
            ax.plot(*zip(*null, strict=True), color="0.6", lw=1, zorder=1, label=label)
        for i, name in enumerate(names):
            points = [(x["off_trait_kl"], x["beta"]) for x in here if x["penalty"] == name]
            if not points:
                continue
            ax.scatter(*zip(*points, strict=True), s=12, color=f"C{i}", label=name, zorder=2)
        ax.set(xscale="log", yscale="log", title=f"soup {share:.0%}", xlabel="off-trait KL (nats/token)")
    axes[0][0].set_ylabel("trait coefficient β (1 = steering at the walked dose)")
    axes[0][-1].legend(fontsize=7, loc="lower right")
    fig.tight_layout()
    fig.savefig(png, dpi=140)


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("--personas", nargs="+", default=["love"])
    args.add_argument("--seeds", nargs="+", type=int, default=[0])
    args.add_argument(
        "--questions", type=int, default=24, help="probes whose answers the effects are read over"
    )
    args.add_argument("--neutral", type=int, default=48, help="neutral answers that they are read over")
    args.add_argument("--set", default="{}", help="JSON of RunConfig fields, and texts, sets, size")
    args.add_argument("--shares", nargs="+", type=float, default=list(SHARES), help="shares of soup")
    args.add_argument(
        "--exchange-only", action="store_true", help="leave the consistency of disjoint sets out"
    )
    args.add_argument("--full", action="store_true", help="run the instruments on every heal too")
    args.add_argument("--workers", type=int, default=1)
    args.add_argument("--out", type=Path)
    args.add_argument("--figure", type=Path, nargs="+", help="read results files instead: print the tables")
    args.add_argument("--png", type=Path, help="and draw the figure here")
    a = args.parse_args()
    if a.figure:
        lines = [json.loads(line) for f in a.figure for line in f.read_text().splitlines()]
        print(table(lines))
        if a.png:
            figure(lines, a.png)
        return
    jobs = [(p, s, a) for p in a.personas for s in a.seeds]
    with mp.get_context("spawn").Pool(a.workers, maxtasksperchild=1) as pool:
        print("lines:", sum(pool.imap_unordered(work, jobs, chunksize=1)))


if __name__ == "__main__":
    main()
