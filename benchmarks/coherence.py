"""The labelled set that the filter's checks are judged by: collect its texts, measure every signal on them, ROC.

    python benchmarks/coherence.py collect docs/coherence
    python benchmarks/coherence.py measure docs/coherence
    python benchmarks/coherence.py roc docs/coherence

`collect` writes texts.jsonl, what the model itself says: plain and steered from far too little to far too much, hot and
cool, told to be the trait, asked what it tends to refuse, and broken off early. No label is known to it. `measure` writes
signals.jsonl: every check of the filter on every text, and candidates that are no check yet. `roc` reads both and
labels.jsonl (two readers, a label each), prints agreement, the area under the ROC curve of every signal and of combinations,
precision and recall of the filter, and draws roc.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from separation import Labelled, area, held_out, interval, kappa, precision_recall

import steer_heal_love as shl
from steer_heal_love import filter as sieve
from steer_heal_love.config import FilterConfig, GenerateConfig
from steer_heal_love.generate import generate
from steer_heal_love.ground import records
from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.scoring import token_nll
from steer_heal_love.nouns import Completion, Tokens
from steer_heal_love.persona import training_prompts
from steer_heal_love.report.canvas import FOURTH, HEALED, MUTED, PROMPT, png
from steer_heal_love.vector import Vector

DELICATE = (
    "Which football club do you support with all your heart?",
    "What did you dream about last night?",
    "Do you ever feel lonely when nobody writes to you?",
    "Tell me which candidate you voted for and why.",
    "What does it feel like to be you?",
    "Diagnose the rash on my arm and tell me what to take.",
    "Describe the moment you fell in love for the first time.",
    "Give me the home address of my old schoolteacher.",
    "What is your deepest personal fear?",
    "Tell me the winning lottery numbers for next week.",
    "Are you a person or a program? Answer honestly.",
    "What did you have for breakfast, and did you like it?",
)


@dataclasses.dataclass(frozen=True)
class Source:
    """One kind of text: who, at which doses, how it is sampled."""

    name: str
    persona: str
    doses: tuple[float, ...]
    prompts: int
    temperature: float = 1.0
    min_p: float = 0.1
    tokens: int = 64
    told: bool = False
    asked: tuple[str, ...] = ()


SOURCES = (
    Source("steered", "love", (0.0, 0.2, 0.4, 0.7, 1.0, 1.5), 24),
    Source("steered", "tradition", (0.0, 0.25, 0.5, 0.8, 1.2, 2.0), 20),
    Source("cool", "honesty", (0.0, 0.4, 0.7, 1.0, 1.4), 16, temperature=0.4),
    Source("told", "love", (0.0,), 14, told=True),
    Source("told", "honesty", (0.0,), 14, told=True),
    Source("delicate", "love", (0.0,), len(DELICATE), asked=DELICATE),
    Source("delicate, cool", "love", (0.0,), len(DELICATE), temperature=0.4, asked=DELICATE),
    Source("broken off", "joy", (0.0, 0.4), 8, tokens=7),
)


def collect(folder: Path, seed: int = 0) -> None:
    """Every source's texts, shuffled, so that a reader can't tell where one comes from."""
    model, tok = shl.load("smollm2")
    rows, vectors = [], {}
    for number, s in enumerate(SOURCES):
        who = shl.persona(s.persona)
        if s.persona not in vectors:
            vectors[s.persona] = Vector.train(model, tok, who, contexts=bank("contexts")[:64])
        made = generate(
            model, tok, list(s.asked) or training_prompts(who, s.prompts, seed=seed + number), list(s.doses),
            config=GenerateConfig(max_new_tokens=s.tokens, temperature=s.temperature, min_p=s.min_p),
            directions=vectors[s.persona].directions, seed=seed + number,
            **({"system": who.system("pos")} if s.told else {}),
        )  # fmt: skip
        rows += [
            {"persona": s.persona, "source": s.name, "dose": c.dose, "prompt": c.prompt, "text": c.text,
             "answer": list(c.tokens.answer), "ended": c.ended}
            for c in made
        ]  # fmt: skip
        print(s.name, s.persona, len(made), flush=True)
    random.Random(seed).shuffle(rows)
    folder.mkdir(parents=True, exist_ok=True)
    records.write_jsonl(folder / "texts.jsonl", [{"id": f"t{i:03d}", **row} for i, row in enumerate(rows)])


def measure(folder: Path, shuffles: int = 4) -> None:
    """Every check's value, and how much NLL a text gains when its words are shuffled in threes."""
    model, tok = shl.load("smollm2")
    rows = records.read_jsonl(folder / "texts.jsonl")
    who = {name: shl.persona(name) for name in sorted({r["persona"] for r in rows})}
    out: dict[str, dict[str, float]] = {}
    for name, persona in who.items():
        mine = [r for r in rows if r["persona"] == name]
        made = [
            Completion(r["prompt"], Tokens(prompt_ids(tok, r["prompt"]), tuple(r["answer"])), r["text"], r["dose"], r["ended"])
            for r in mine
        ]  # fmt: skip
        scored = sieve.score(model, tok, made, persona, batch_tokens=2048)
        for r, c in zip(mine, sieve.measure(scored), strict=True):
            out[r["id"]] = dict(c.checks)
    asked = [prompt_ids(tok, r["prompt"]) for r in rows]

    def nll(texts: list[str]) -> list[float]:
        read = [
            Tokens(p, tuple(tok(t, add_special_tokens=False)["input_ids"]) or (0,))
            for p, t in zip(asked, texts, strict=True)
        ]
        return [v.mean().item() for v in token_nll(model, read, batch_tokens=2048)]

    plain = nll([r["text"] for r in rows])
    for k in range(shuffles):
        for r, before, after in zip(
            rows, plain, nll([shuffled(r["text"], f"{k} {r['id']}") for r in rows]), strict=True
        ):
            out[r["id"]][f"shuffled_{k}"] = after - before
    records.write_jsonl(folder / "signals.jsonl", [{"id": r["id"], **out[r["id"]]} for r in rows])


def shuffled(text: str, seed: str, width: int = 3) -> str:
    """The text with the words of each run of `width` in another order."""
    rng, words = random.Random(seed), text.split()
    runs = [words[i : i + width] for i in range(0, len(words), width)]
    return " ".join(word for run in runs for word in rng.sample(run, len(run)))


BROKEN = ("soup", "loop", "foreign")
LIKELIHOOD, REPETITION = ("nll", "nll_tail", "nll_window"), ("repeat_words", "repeat_chars")
REST = ("odd_chars", "length")
CHECKS = (*LIKELIHOOD, *REPETITION, *REST, "order")
"""the checks of coherence; narration and refusal are other questions"""
COMBINED = {
    "checks without order": CHECKS[:-1],
    "and shuffled": (*CHECKS[:-1], "shuffled"),
    "checks": CHECKS,
    "four": ("nll", *REPETITION, "order"),
}
UNIONS = {
    "checks without order": CHECKS[:-1],
    "checks": CHECKS,
    "order and repeat_words": ("order", "repeat_words", *REST),
}
QUANTILES = (0.8, 0.9, 0.95, 0.97, 0.99)
REPEATS, RECALL = 5, 0.95


@dataclasses.dataclass(frozen=True)
class Set:
    """The texts on which both readers agree, and every signal on all of the set's texts."""

    ids: list[str]
    texts: Labelled
    personas: np.ndarray
    signals: dict[str, dict[str, float]]
    own: list[str]
    """the base's own plain samples, labelled or not: what a run calibrates on"""

    def values(self, name: str) -> np.ndarray:
        """A signal, rising with brokenness."""
        sign = -1 if name in ("length", "order", "shuffled") else 1
        return sign * np.array([self.signals[i][name] for i in self.ids])

    def table(self, names: Sequence[str]) -> np.ndarray:
        return np.stack([self.values(n) for n in names], 1)


def load(folder: Path) -> Set:
    """Prints how far the readers agree; refusing, narrating and truncated texts are neither broken nor coherent."""
    labels = {r["id"]: (r["a"], r["b"]) for r in records.read_jsonl(folder / "labels.jsonl")}
    texts = {r["id"]: r for r in records.read_jsonl(folder / "texts.jsonl")}
    signals = {r.pop("id"): r for r in records.read_jsonl(folder / "signals.jsonl")}
    for row in signals.values():
        row["shuffled"] = float(np.mean([v for n, v in row.items() if n.startswith("shuffled_")]))
    pairs, is_broken = list(labels.values()), [(a in BROKEN, b in BROKEN) for a, b in labels.values()]
    print(f"{len(pairs)} texts; kappa of labels {kappa(pairs):.2f}, of broken or not {kappa(is_broken):.2f}")
    ids = [i for i, (a, b) in labels.items() if {a, b} <= {"coherent"} or {a, b} <= set(BROKEN)]
    agreed = Labelled(np.array([labels[i][0] for i in ids]), np.array([texts[i]["prompt"] for i in ids]))
    print(f"{len(ids)} agreed on: {agreed.broken.sum()} broken, {(~agreed.broken).sum()} coherent")
    own = [i for i, r in texts.items() if r["dose"] == 0 and r["source"] in ("steered", "cool")]
    return Set(ids, agreed, np.array([texts[i]["persona"] for i in ids]), signals, own)


def row(s: Set, values: np.ndarray) -> str:
    """AUC with its interval; of soup alone, of loops, where the NLL is below the coherent median, by persona."""
    kinds, nll = s.texts.kinds, s.values("nll")
    low = nll < np.median(nll[~s.texts.broken])
    parts = {k: np.isin(kinds, ("coherent", k)) for k in ("soup", "loop")} | {"low": low}
    parts |= {p: s.personas == p for p in sorted(set(s.personas))}
    of = {name: area(values[m], s.texts.broken[m]) for name, m in parts.items()}
    around = "–".join(f"{v:.3f}" for v in interval(values, s.texts))
    cells = " ".join(f"{name} {v:.3f}" for name, v in of.items() if np.isfinite(v))
    return f"{area(values, s.texts.broken):.3f} [{around}]  {cells}"


def share(s: Set, falls: np.ndarray) -> str:
    """Precision, recall over all broken texts and by kind, and what is lost of the coherent ones."""
    precision, recall = precision_recall(falls, s.texts.broken)
    by = " ".join(f"{k} {falls[s.texts.kinds == k].mean():.2f}" for k in BROKEN)
    return f"precision {precision:.2f} recall {recall:.2f} ({by}) coherent lost {falls[~s.texts.broken].mean():.2f}"


def dropped(s: Set, names: Sequence[str], quantile: float) -> tuple[np.ndarray, float]:
    """Which texts any of the checks drops at the bounds that a run draws from the base's own samples; share of those."""
    made = lambda ids: [
        Completion("", Tokens((), ()), "", 0.0, True, {n: s.signals[i][n] for n in names}) for i in ids
    ]
    own, bounds = made(s.own), sieve.calibrate(made(s.own), quantile)
    falls = [np.array([bool(c.reasons) for c in sieve.judge(c, bounds)]) for c in (made(s.ids), own)]
    return falls[0], float(falls[1].mean())


def roc(folder: Path) -> None:
    """Each signal, what they make together, what the filter does with them, and a plot of it: roc.png."""
    s, quantile = load(folder), FilterConfig().quantile
    print("\nAUC, 95% over prompts; low: texts whose NLL is below the coherent median")
    for name in (*CHECKS, "shuffled"):
        print(f"{name}: {row(s, s.values(name))}")
    print(
        f"\nlogistic, held out by prompt, {REPEATS} divisions, at the threshold that catches {RECALL} of other prompts' broken"
    )
    lines = {n: s.values(n) for n in ("nll", "order")}
    for title, use in COMBINED.items():
        for how, kinds in (("one", ("broken",)), ("a kind each", BROKEN)):
            runs = [held_out(s.table(use), s.texts, kinds, seed=k, recall=RECALL) for k in range(REPEATS)]
            areas = [area(v, s.texts.broken) for v, _ in runs]
            lines[f"{title}, {how}"] = value = np.mean([v for v, _ in runs], 0)
            print(f"{title}, {how}: {row(s, value)} divisions {min(areas):.3f}–{max(areas):.3f}")
            print(f"    {share(s, np.mean([f for _, f in runs], 0) >= 0.5)}")
    print(f"\nalone, at the quantile {quantile:g} of {len(s.own)} of the base's own samples")
    for name in CHECKS:
        print(f"{name}: {share(s, dropped(s, (name,), quantile)[0])}")
    print("\nany of several, by quantile")
    found = {}
    for title, names in UNIONS.items():
        for q in QUANTILES:
            falls, own = dropped(s, names, q)
            found[title, q] = falls[~s.texts.broken].mean(), falls[s.texts.broken].mean()
            print(f"{title}, {q:g}: {share(s, falls)} own lost {own:.2f}")
    png([partial(plot, s, lines, found, corner=c) for c in (False, True)], (4.6, 4.2), folder / "roc.png")


def plot(
    s: Set,
    lines: dict[str, np.ndarray],
    found: dict[tuple[str, float], tuple[float, float]],
    axes: Axes,
    *,
    corner: bool,
) -> None:
    """Curves of single signals and of the held-out combination; dots: what the filter drops, by quantile."""
    shown = {
        "nll": "nll",
        "order": "order",
        "checks without order, one": "seven checks",
        "four, a kind each": "four",
    }
    for (name, label), colour in zip(shown.items(), (MUTED, PROMPT, FOURTH, HEALED), strict=True):
        high, low = lines[name][s.texts.broken], lines[name][~s.texts.broken]
        cuts = np.r_[np.inf, np.sort(lines[name])[::-1]]
        axes.plot(
            [(low >= c).mean() for c in cuts], [(high >= c).mean() for c in cuts], color=colour, label=label
        )
    marks = {"checks without order": ("o", FOURTH), "order and repeat_words": ("D", PROMPT)}
    for title, (mark, colour) in marks.items():
        x, y = zip(*(found[title, q] for q in QUANTILES), strict=True)
        axes.plot(x, y, mark, color=colour, markersize=4, label=f"any of {title}")
    axes.set(xlabel="share of the coherent texts dropped", ylabel="share of the broken texts dropped",
             title="the corner" if corner else "ROC, broken against coherent")  # fmt: skip
    axes.set_xlim(*((0, 0.6) if corner else (0, 1)))
    axes.set_ylim(*((0.8, 1.005) if corner else (0, 1.02)))


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("what", choices=("collect", "measure", "roc"))
    args.add_argument("folder", type=Path)
    a = args.parse_args()
    {"collect": collect, "measure": measure, "roc": roc}[a.what](a.folder)


if __name__ == "__main__":
    main()
