"""The labelled set that the filter's checks are judged by: collect its texts, measure every signal on them, ROC.

    python benchmarks/coherence.py collect docs/coherence
    python benchmarks/coherence.py measure docs/coherence
    python benchmarks/coherence.py roc docs/coherence

`collect` writes texts.jsonl, what the model itself says: plain and steered from far too little to far too much, hot and
cool, told to be the trait, asked what it tends to refuse, and broken off early. No label is known to it. `measure` writes
signals.jsonl: every check of the filter on every text, and candidates that are no check yet. `roc` reads both and
labels.jsonl (two readers, a label each), and prints agreement and the area under the ROC curve.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import zlib
from pathlib import Path

import numpy as np

import steer_heal_love as shl
from steer_heal_love import filter as sieve
from steer_heal_love.config import GenerateConfig
from steer_heal_love.generate import generate
from steer_heal_love.ground import records
from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.scoring import token_nll
from steer_heal_love.nouns import Completion, Tokens
from steer_heal_love.persona import training_prompts
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
            out[r["id"]][f"order_{k}"] = after - before
    records.write_jsonl(folder / "signals.jsonl", [{"id": r["id"], **out[r["id"]]} for r in rows])


def shuffled(text: str, seed: str, width: int = 3) -> str:
    """The text with the words of each run of `width` in another order."""
    rng, words = random.Random(seed), text.split()
    runs = [words[i : i + width] for i in range(0, len(words), width)]
    return " ".join(word for run in runs for word in rng.sample(run, len(run)))


BROKEN = ("soup", "loop", "foreign")


def roc(folder: Path) -> None:
    """Agreement of the two readers; area under the ROC curve of each signal and of combinations of them, of broken
    against coherent texts on which both agree (refusing, narrating and truncated ones are neither)."""
    labels = {r["id"]: (r["a"], r["b"]) for r in records.read_jsonl(folder / "labels.jsonl")}
    texts = {r["id"]: r for r in records.read_jsonl(folder / "texts.jsonl")}
    signals = {r.pop("id"): r for r in records.read_jsonl(folder / "signals.jsonl")}
    pairs = list(labels.values())
    is_broken = lambda label: label in BROKEN
    print(f"{len(pairs)} texts; kappa of labels {kappa(pairs):.2f}, of broken or not "
          f"{kappa([(is_broken(a), is_broken(b)) for a, b in pairs]):.2f}")  # fmt: skip
    chosen = [i for i, (a, b) in labels.items() if {a, b} <= {"coherent"} or {a, b} <= set(BROKEN)]
    broken = np.array([is_broken(labels[i][0]) for i in chosen])
    print(f"{len(chosen)} agreed on: {broken.sum()} broken, {(~broken).sum()} coherent")
    names = [
        n
        for n in signals[chosen[0]]
        if not n.startswith("order_") and n not in ("narration", "refusal", "on_trait")
    ]
    table = {n: np.array([signals[i][n] for i in chosen]) for n in names}
    orders = [np.array([signals[i][n] for i in chosen]) for n in signals[chosen[0]] if n.startswith("order_")]
    table["order, one shuffle"], table["order"] = orders[0], np.mean(orders, 0)
    names = [*names, "order"]
    kinds = [labels[i][0] for i in chosen]
    person = np.array([texts[i]["persona"] for i in chosen])
    for name, values in table.items():
        values = values if name not in ("length", "order", "order, one shuffle") else -values
        of = lambda kind, v=values: area(v, broken, np.array([k in ("coherent", kind) for k in kinds]))
        by = "  ".join(
            f"{p} {area(values, broken, person == p):.3f}"
            for p in sorted(set(person))
            if broken[person == p].any()
        )
        print(f"{name:18} {area(values, broken):.3f}  soup {of('soup'):.3f}  loop {of('loop'):.3f}  {by}")
    prompts = [texts[i]["prompt"] for i in chosen]
    for title, use in (("checks", names[:-1]), ("checks and order", names)):
        print(
            f"{title}, logistic, held out by prompt: {area(held_out(table, use, broken, prompts), broken):.3f}"
        )


def kappa(pairs: list[tuple[object, object]]) -> float:
    """Cohen's kappa of two readers."""
    firsts, seconds = zip(*pairs, strict=True)
    agreed = sum(a == b for a, b in pairs) / len(pairs)
    chance = sum(firsts.count(x) * seconds.count(x) for x in set(firsts)) / len(pairs) ** 2
    return (agreed - chance) / (1 - chance)


def area(values: np.ndarray, broken: np.ndarray, among: np.ndarray | None = None) -> float:
    """Chance that a broken text's value is above a coherent one's, ties half."""
    among = np.ones(len(values), bool) if among is None else among
    high, low = values[among & broken], values[among & ~broken]
    return float(((high[:, None] > low).mean() + (high[:, None] >= low).mean()) / 2)


def held_out(
    table: dict[str, np.ndarray], use: list[str], broken: np.ndarray, prompts: list[str], folds: int = 10
) -> np.ndarray:
    """Log-odds of each text by a ridge logistic regression (Newton's method) on texts of other prompts."""
    x = np.stack([table[n] for n in use], 1)
    x = np.clip((x - x[~broken].mean(0)) / (x[~broken].std(0) + 1e-6), -6, 10)
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    ridge = np.diag([3.0] * len(use) + [1e-6])
    fold = np.array([zlib.crc32(p.encode()) % folds for p in prompts])
    out = np.zeros(len(x))
    for k in range(folds):
        seen, w = fold != k, np.zeros(x.shape[1])
        for _ in range(50):
            p = 1 / (1 + np.exp(-x[seen] @ w))
            hessian = (x[seen] * (p * (1 - p))[:, None]).T @ x[seen] + ridge
            w -= np.linalg.solve(hessian, x[seen].T @ (p - broken[seen]) + ridge @ w)
        out[~seen] = x[~seen] @ w
    return out


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("what", choices=("collect", "measure", "roc"))
    args.add_argument("folder", type=Path)
    a = args.parse_args()
    {"collect": collect, "measure": measure, "roc": roc}[a.what](a.folder)


if __name__ == "__main__":
    main()
