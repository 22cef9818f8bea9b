"""The labelled set that the filter's checks are judged by: collect its texts, measure every signal on them, ROC.

    python benchmarks/coherence.py collect docs/coherence
    python benchmarks/coherence.py measure docs/coherence
    python benchmarks/coherence.py roc docs/coherence
    python benchmarks/coherence.py collect docs/coherence/likely --set likely
    python benchmarks/coherence.py measure docs/coherence/likely
    python benchmarks/coherence.py likely docs/coherence

`collect` writes texts.jsonl, what the model itself says: plain and steered from far too little to far too much, hot and
cool, told to be the trait, asked what it tends to refuse, and broken off early. No label is known to it. `measure` writes
signals.jsonl: every check of the filter on every text, and candidates that are no check yet. `roc` reads both and
labels.jsonl (two readers, a label each), prints agreement, the area under the ROC curve of every signal and of combinations,
precision and recall of the filter, and draws roc.png. `likely` asks the same of cool, overdosed text that the base finds
likelier than the set's median coherent text.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from separation import (
    Labelled,
    area,
    combined,
    held_out,
    interval,
    kappa,
    lost,
    lost_more,
    precision_recall,
    union,
)

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
LIKELY = tuple(
    Source("cool", persona, (0.0, 0.4, 0.6, 0.8, 1.0, 1.3), 10, temperature=temperature)
    for persona, temperature in (("joy", 0.3), ("authority", 0.4), ("love", 0.5))
)
"""cool and overdosed: where text is likeliest to be likely and broken"""
SETS = {"main": (SOURCES, 0), "likely": (LIKELY, 100)}
"""sources and seed"""


def collect(folder: Path, sources: Sequence[Source], seed: int) -> None:
    """Every source's texts, shuffled, so that a reader can't tell where one comes from."""
    model, tok = shl.load("smollm2")
    rows, vectors = [], {}
    for number, s in enumerate(sources):
        who = shl.persona(s.persona)
        if s.persona not in vectors:
            vectors[s.persona] = Vector.train(model, tok, who, contexts=bank("contexts")[:64])
        made = generate(
            model,
            tok,
            list(s.asked) or training_prompts(who, s.prompts, seed=seed + number),
            list(s.doses),
            config=GenerateConfig(max_new_tokens=s.tokens, temperature=s.temperature, min_p=s.min_p),
            directions=vectors[s.persona].directions,
            seed=seed + number,
            **({"system": who.system("pos")} if s.told else {}),
        )
        rows += [
            {
                "persona": s.persona,
                "source": s.name,
                "dose": c.dose,
                "prompt": c.prompt,
                "text": c.text,
                "answer": list(c.tokens.answer),
                "ended": c.ended,
            }
            for c in made
        ]
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
            Completion(
                r["prompt"],
                Tokens(prompt_ids(tok, r["prompt"]), tuple(r["answer"])),
                r["text"],
                r["dose"],
                r["ended"],
            )
            for r in mine
        ]
        for r, c in zip(mine, sieve.measured(model, tok, made, persona, batch_tokens=2048), strict=True):
            out[r["id"]] = dict(c.checks)
    asked = [prompt_ids(tok, r["prompt"]) for r in rows]

    def nll(texts: list[str]) -> list[float]:
        sequences = [
            Tokens(p, tuple(tok(t, add_special_tokens=False)["input_ids"]) or (0,))
            for p, t in zip(asked, texts, strict=True)
        ]
        return [v.mean().item() for v in token_nll(model, sequences, batch_tokens=2048)]

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
"""the checks of coherence"""
OWN_LABEL = {"narration": "narrating", "refusal": "refusing"}
OTHERS = (*OWN_LABEL, "on_trait")
"""checks that ask something else"""
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
PAIR = ("order", "repeat_words")
"""the union that loses least"""
QUANTILES = (0.8, 0.9, 0.95, 0.97, 0.99)
REPEATS, RECALL = 5, 0.95
READINGS: dict[str, Callable[[str, str], str | None]] = {
    "both": lambda a, b: a if a == b == "coherent" or {a, b} <= set(BROKEN) else None,
    "reader A": lambda a, b: a if a in (*BROKEN, "coherent") else None,
    "reader B": lambda a, b: b if b in (*BROKEN, "coherent") else None,
    "either": lambda a, b: next((x for x in (a, b) if x in BROKEN), a if a == b == "coherent" else None),
}
"""what two labels make of a text: broken in a way, coherent, or left out"""


@dataclasses.dataclass(frozen=True)
class Set:
    """The texts that a reading makes broken or coherent, and every signal on all of the set's texts."""

    ids: list[str]
    texts: Labelled
    personas: np.ndarray
    signals: dict[str, dict[str, float]]
    own: list[str]
    """the base's own plain samples, labelled or not: what a run calibrates on"""

    def values(self, name: str, ids: Sequence[str] = ()) -> np.ndarray:
        """A signal, rising with brokenness, of the judged texts or of those named."""
        sign = -1 if name == "shuffled" or sieve.checks[name].falls == "below" else 1
        return sign * np.array([self.signals[i][name] for i in ids or self.ids])

    def table(self, names: Sequence[str], ids: Sequence[str] = ()) -> np.ndarray:
        return np.stack([self.values(n, ids) for n in names], 1)


def labels(folder: Path) -> dict[str, tuple[str, str]]:
    return {r["id"]: (r["a"], r["b"]) for r in records.read_jsonl(folder / "labels.jsonl")}


def agreement(folder: Path) -> tuple[float, float]:
    """Kappa of the labels, and of broken or not."""
    pairs = list(labels(folder).values())
    return kappa(pairs), kappa([(a in BROKEN, b in BROKEN) for a, b in pairs])


def load(folder: Path, reading: str = "both") -> Set:
    """Refusing, narrating and truncated texts are neither broken nor coherent."""
    texts = {r["id"]: r for r in records.read_jsonl(folder / "texts.jsonl")}
    signals = {r.pop("id"): r for r in records.read_jsonl(folder / "signals.jsonl")}
    for row in signals.values():
        row["shuffled"] = float(np.mean([v for n, v in row.items() if n.startswith("shuffled_")]))
    kinds = {i: kind for i, (a, b) in labels(folder).items() if (kind := READINGS[reading](a, b))}
    labelled = Labelled(np.array(list(kinds.values())), np.array([texts[i]["prompt"] for i in kinds]))
    own = [i for i, r in texts.items() if r["dose"] == 0 and r["source"] in ("steered", "cool")]
    return Set(list(kinds), labelled, np.array([texts[i]["persona"] for i in kinds]), signals, own)


def separated(
    s: Set, use: Sequence[str], kinds: Sequence[str], *, by_own: bool = False
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """The held-out combination's value and verdict on each text, over the divisions, and each division's area."""
    own = s.table(use, s.own) if by_own else None
    runs = [held_out(s.table(use), s.texts, kinds, seed=k, recall=RECALL, own=own) for k in range(REPEATS)]
    values, falls = (np.mean(part, 0) for part in zip(*runs, strict=True))
    return values, falls >= 0.5, [area(v, s.texts.broken) for v, _ in runs]


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
    by = " ".join(f"{k} {falls[s.texts.kinds == k].mean():.2f}" for k in BROKEN if k in s.texts.kinds)
    return f"precision {precision:.2f} recall {recall:.2f} ({by}) coherent lost {falls[~s.texts.broken].mean():.2f}"


def fall(signals: dict[str, dict[str, float]], ids: Sequence[str], bounds: dict[str, float]) -> np.ndarray:
    """Which of these texts any of the bounds drops."""
    made = [Completion("", Tokens((), ()), "", 0.0, True, {n: signals[i][n] for n in bounds}) for i in ids]
    return np.array([bool(c.reasons) for c in sieve.judge(made, bounds)])


def bounds(s: Set, names: Sequence[str], quantile: float) -> dict[str, float]:
    """The bounds that a run draws from the base's own samples."""
    own = [Completion("", Tokens((), ()), "", 0.0, True, {n: s.signals[i][n] for n in names}) for i in s.own]
    return sieve.calibrate(own, quantile)


def dropped(s: Set, names: Sequence[str], quantile: float) -> tuple[np.ndarray, float]:
    """Which texts any of the checks drops at those bounds; share of the base's own samples."""
    cut = bounds(s, names, quantile)
    return fall(s.signals, s.ids, cut), float(fall(s.signals, s.own, cut).mean())


def own_label(folder: Path, s: Set, name: str) -> str:
    """What a check of something else than coherence finds of its own label, by both readers and by either."""
    labelled, label = labels(folder), OWN_LABEL[name]
    falls = dict(zip(labelled, fall(s.signals, list(labelled), bounds(s, (name,), 0.5)), strict=True))
    found = [f"falls {sum(falls.values())}"]
    for who, count in (("both", 2), ("either", 1)):
        those = [i for i, pair in labelled.items() if pair.count(label) >= count]
        hit = sum(falls[i] for i in those)
        found.append(f"{who}: {hit} of {len(those)}, precision {hit / max(1, sum(falls.values())):.2f}")
    fine = sum(falls[i] for i, pair in labelled.items() if pair == ("coherent", "coherent"))
    return f"{'; '.join(found)}; coherent {fine}"


def roc(folder: Path) -> None:
    """Each signal, what they make together, what the filter does with them, and a plot of it: roc.png."""
    s, quantile = load(folder), FilterConfig().quantile
    of_labels, of_broken = agreement(folder)
    print(f"{len(labels(folder))} texts; kappa of labels {of_labels:.2f}, of broken or not {of_broken:.2f}")
    print("\nAUC, 95% over prompts; low: texts whose NLL is below the coherent median")
    for name in (*CHECKS, *OTHERS, "shuffled"):
        print(f"{name}: {row(s, s.values(name))}")
    print(
        f"\nlogistic, held out by prompt, {REPEATS} divisions, at the threshold that catches {RECALL} of other prompts' broken"
    )
    lines = {n: s.values(n) for n in ("nll", "order")}
    for title, use in COMBINED.items():
        for how, kinds in (("one", ("broken",)), ("a kind each", BROKEN)):
            value, falls, areas = separated(s, use, kinds)
            lines[f"{title}, {how}"] = value
            print(f"{title}, {how}: {row(s, value)} divisions {min(areas):.3f}–{max(areas):.3f}")
            print(f"    {share(s, falls)}")
    print("\nfour, a kind each, by whose labels are taken")
    for reading in READINGS:
        r = load(folder, reading)
        value, falls, _ = separated(r, COMBINED["four"], BROKEN)
        print(
            f"{reading}, {r.texts.broken.sum()} of {len(r.ids)} broken: {row(r, value)}\n    {share(r, falls)}"
        )
    print(
        "\ncoherent lost at the same recall; the four standardised by the base's own samples; more: 95% over prompts"
    )
    value, _, areas = separated(s, COMBINED["four"], BROKEN, by_own=True)
    either = union(s.table(PAIR), s.table(PAIR, s.own))
    print(f"four {row(s, value)}\n{' or '.join(PAIR)} {row(s, either)}")
    for recall in (0.9, 0.95, 0.97, 0.98):
        several, alone = (lost(v, s.texts.broken, recall) for v in (value, either))
        low, high = lost_more(either, value, s.texts, recall)
        print(
            f"recall {recall}: four {several:.3f}, {' or '.join(PAIR)} {alone:.3f}, more {low:+.3f} to {high:+.3f}"
        )
    print(f"\nalone, at the quantile {quantile:g} of {len(s.own)} of the base's own samples")
    for name in (*CHECKS, *OTHERS):
        print(f"{name}: {share(s, dropped(s, (name,), quantile)[0])}")
    print("\nof their own label, among all texts")
    for name in OWN_LABEL:
        print(f"{name}: {own_label(folder, s, name)}")
    print("\nany of several, by quantile")
    found = {}
    for title, names in UNIONS.items():
        for q in QUANTILES:
            falls, own = dropped(s, names, q)
            found[title, q] = falls[~s.texts.broken].mean(), falls[s.texts.broken].mean()
            print(f"{title}, {q:g}: {share(s, falls)} own lost {own:.2f}")
    png([partial(plot, s, lines, found, corner=c) for c in (False, True)], (4.6, 4.2), folder / "roc.png")


LEAST_DOSE = 0.6


def picked(main: Set, folder: Path) -> list[str]:
    """The overdosed texts that are likelier than the main set's median coherent text: those that are labelled."""
    nll = main.values("nll")
    doses = {r["id"]: r["dose"] for r in records.read_jsonl(folder / "texts.jsonl")}
    signals = records.read_jsonl(folder / "signals.jsonl")
    middle = np.median(nll[~main.texts.broken])
    return [r["id"] for r in signals if r["nll"] < middle and doses[r["id"]] >= LEAST_DOSE]


def likely(folder: Path) -> None:
    """What each check, at the main set's bounds, and the combination, fitted on its other prompts, find in likely text."""
    main, quantile, here = load(folder), FilterConfig().quantile, folder / "likely"
    of_labels, of_broken = agreement(here)
    print(
        f"{len(picked(main, here))} texts; kappa of labels {of_labels:.2f}, of broken or not {of_broken:.2f}"
    )
    for reading in ("both", "either"):
        s = load(here, reading)
        kinds = " ".join(f"{k} {(s.texts.kinds == k).sum()}" for k in (*BROKEN, "coherent"))
        print(f"\n{reading}: {kinds}")
        for name in CHECKS:
            found = fall(s.signals, s.ids, bounds(main, (name,), quantile))
            print(f"{name}: AUC {area(s.values(name), s.texts.broken):.2f} {share(s, found)}")
        for title, names in UNIONS.items():
            print(f"any of {title}: {share(s, fall(s.signals, s.ids, bounds(main, names, quantile)))}")
        value, cut = transferred(main, s)
        print(f"four, a kind each: AUC {area(value, s.texts.broken):.2f} {share(s, value >= cut)}")


def transferred(main: Set, s: Set) -> tuple[np.ndarray, float]:
    """The combination's value on `s`, fitted on the other prompts of `main`, and the threshold that catches RECALL of those
    texts, held out."""
    use = COMBINED["four"]
    joined = Labelled(*(np.r_[getattr(main.texts, n), getattr(s.texts, n)] for n in ("kinds", "prompts")))
    seen = np.r_[~np.isin(main.texts.prompts, s.texts.prompts), np.zeros(len(s.ids), bool)]
    value = combined(np.r_[main.table(use), s.table(use)], joined, seen, BROKEN)[len(main.ids) :]
    return value, float(np.quantile(separated(main, use, BROKEN)[0][main.texts.broken], 1 - RECALL))


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
    axes.set(
        xlabel="share of the coherent texts dropped",
        ylabel="share of the broken texts dropped",
        title="the corner" if corner else "ROC, broken against coherent",
    )
    axes.set_xlim(*((0, 0.6) if corner else (0, 1)))
    axes.set_ylim(*((0.8, 1.005) if corner else (0, 1.02)))


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("what", choices=("collect", "measure", "roc", "likely"))
    args.add_argument("folder", type=Path)
    args.add_argument("--set", choices=SETS, default="main", help="what to collect")
    a = args.parse_args()
    if a.what == "collect":
        collect(a.folder, *SETS[a.set])
    else:
        {"measure": measure, "roc": roc, "likely": likely}[a.what](a.folder)


if __name__ == "__main__":
    main()
