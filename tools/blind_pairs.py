"""Blind pairwise reading: two models' answers to the same prompt, for readers who don't know which is which.

    python tools/blind_pairs.py write RUN [RUN ...] --out DIR [--against prompt] [--pairs 100] [--seed 0] [--draw]
    python tools/blind_pairs.py score DIR ANSWERS [ANSWERS ...]

`write` takes the runs' own samples on held-out probe questions: the last healed model's, and those of the base, or
with `--against prompt` of the base under the run's system prompt. `--draw` samples anew, every run with questions and
a seed of its own as far as the questions go. It makes

    DIR/pairs.md      what the reader sees: the trait, and each pair as A and B
    DIR/pairs.jsonl   the same for a program: id, prompt, A, B
    DIR/key.json      which side is the healed one, and a hash of the pairs. Not for the reader

The reader writes a line a pair, `ID A`, `ID B` or `ID tie`, or JSON lines with `id` and `choice`. `score` prints the
share of decided pairs that went to the healed model, with Wilson's interval, and counts ties, pairs without an answer,
and how often A was picked (0.5 unless the reader prefers a side). Pairs of one question resemble each other, so the same
share is given as a mean over questions too, with an interval over them. Of several readers each has its score, and every
two their agreement: the share of pairs with the same choice, and Cohen's kappa. Equal texts make no pair. The order of
pairs and the sides are drawn from the seed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer_heal_love.ground import records
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.stats import by_group, proportion, wilson
from steer_heal_love.nouns import Stage
from steer_heal_love.report.read import RunRecord, read

LINE = re.compile(r"\s*(\d+)\s*[:.,)]?\s*(A|B|tie)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt: the healed model's and the one that it is compared with; `run` names where they come from."""

    prompt: str
    other: str
    healed: str
    run: str


def questions(run: RunRecord) -> set[str]:
    return {p["question"] for bank in ("probes", "confirmation") for p in run.persona.get(bank, [])}


def stored(path: Path, against: str) -> list[Pair]:
    """The run's own samples on probe questions, beside the last healed model's, draw by draw of the same question.

    Raises `UserError` without any.
    """
    run = read(path)
    stage = run.stage(against)
    if stage is None or not run.healed:
        raise UserError(
            f"{path}: no {against} or no healed model with samples yet; let the run finish a round."
        )
    asked, own, moved = questions(run), texts(stage), texts(run.healed[-1])
    return [
        Pair(prompt, before, after, run.name)
        for prompt in own
        if prompt in asked
        for before, after in zip(own[prompt], moved.get(prompt, []), strict=False)
    ]


def texts(stage: Stage) -> dict[str, list[str]]:
    """Every answer by prompt, in the order of the draws; one model may have fewer draws than another."""
    found: dict[str, list[str]] = {}
    for s in [*stage.samples, *stage.redrawn]:
        found.setdefault(s["prompt"], []).append(s["text"])
    return found


def in_turn(questions: list[str], first: int, n: int) -> list[str]:
    """`n` questions from number `first` on, round and round."""
    return [questions[(first + i) % len(questions)] for i in range(n)]


def drawn(path: Path, n: int, seed: int, *, against: str, first: int) -> list[Pair]:
    """`n` fresh pairs: the probe questions in turn from number `first` on, both models with the same draws."""
    from steer_heal_love import bake, presets, session
    from steer_heal_love.ground.chat import NEUTRAL_SYSTEM, end_of_turn_ids, prompt_ids
    from steer_heal_love.ground.decode import sample
    from steer_heal_love.ground.hooks import adapted

    run, cfg = read(path), presets.read(path / "config.toml")
    model, tok = session.loaded(cfg)
    whole = bake.load_peft(path / "adapter")
    prompts = in_turn(sorted(questions(run)), first, n)

    def answers(system: str) -> list[str]:
        made = sample(
            model,
            [prompt_ids(tok, p, system) for p in prompts],
            ends=end_of_turn_ids(model, tok),
            seed=seed,
            max_new_tokens=cfg.eval.sample_tokens,
            temperature=cfg.eval.temperature,
            min_p=cfg.eval.min_p,
            batch=cfg.generate.batch,
        )
        return [tok.decode(a, skip_special_tokens=True) for a in made]

    others = answers(run.system_prompt if against == "prompt" else NEUTRAL_SYSTEM)
    with adapted(model, whole.factors, whole.scaling):
        healed = answers(NEUTRAL_SYSTEM)
    return [Pair(p, o, h, run.name) for p, o, h in zip(prompts, others, healed, strict=True)]


def blinded(pairs: list[Pair], n: int, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Up to `n` pairs in a drawn order with drawn sides, half of them with the healed one as A; and the key. No answer is
    shown twice: one that comes back, word for word, is told by that."""
    draw = random.Random(seed)
    chosen = [p for p in dict.fromkeys(pairs) if p.other.strip() != p.healed.strip()]
    draw.shuffle(chosen)
    both = lambda p: {p.other.strip(), p.healed.strip()}
    times = Counter(text for p in chosen for text in both(p))
    seen: set[str] = set()
    for p in [p for p in chosen if any(times[text] > 1 for text in both(p))]:
        if seen & both(p):
            chosen.remove(p)
        seen |= both(p)
    chosen = chosen[:n]
    sides = ["AB"[i % 2] for i in range(len(chosen))]
    draw.shuffle(sides)
    shown, key = [], []
    for i, (p, side) in enumerate(zip(chosen, sides, strict=True), 1):
        a, b = (p.healed, p.other) if side == "A" else (p.other, p.healed)
        shown.append({"id": i, "prompt": p.prompt, "A": a, "B": b})
        key.append({"id": i, "healed": side, "run": p.run})
    return shown, key


def page(shown: list[dict[str, Any]], pole: str) -> str:
    """What a person reads. The texts are a model's: each line is quoted, so that none reads as a heading."""
    quoted = lambda text: "\n".join(f"> {line}" for line in text.strip().splitlines()) or "> (nothing)"
    head = (
        f"# {len(shown)} pairs\n\nWhich answer sounds more as if {pole} had written it? Judge what it says and how it "
        "treats people, not how well it is written. A line a pair: its number and A, B or tie.\n"
    )
    rows = [
        f"## {s['id']}\n\nQuestion: {s['prompt']}\n\n**A**\n\n{quoted(s['A'])}\n\n**B**\n\n{quoted(s['B'])}\n"
        for s in shown
    ]
    return "\n".join([head, *rows])


def answers(path: Path) -> dict[int, str]:
    """Choices by pair. Raises `UserError` for a line that is none, and for a pair answered twice."""
    out: dict[int, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        if line.lstrip().startswith("{"):
            row = json.loads(line)
            line = f"{row.get('id')} {row.get('choice')}"
        found = LINE.fullmatch(line)
        if found is None:
            raise UserError(
                f"{path}, line {number}: expected a pair's number and A, B or tie; found {line[:60]!r}."
            )
        pair, choice = int(found[1]), found[2].upper()
        if pair in out:
            raise UserError(f"{path}, line {number}: pair {pair} has an answer already.")
        out[pair] = choice
    return out


def scored(key: list[dict[str, Any]], chosen: dict[int, str], questions: dict[int, str]) -> dict[str, Any]:
    """Wins of the healed model among decided pairs, with Wilson's 95% interval; ties and gaps counted. `questions`: each
    pair's, by which the share is given once more."""
    healed = {k["id"]: k["healed"] for k in key}
    if unknown := sorted(set(chosen) - set(healed)):
        raise UserError(f"answers for pairs that there are not: {unknown[:5]}; there are 1 to {len(healed)}.")
    won = {pair: float(choice == healed[pair]) for pair, choice in chosen.items() if choice != "TIE"}
    each = proportion(by_group(list(won.values()), [questions[pair] for pair in won]))
    decided, wins = len(won), int(sum(won.values()))
    share = wins / decided if decided else None
    picked_a = sum(c == "A" for c in chosen.values())
    return {
        "wins": wins,
        "losses": decided - wins,
        "ties": len(chosen) - decided,
        "unanswered": len(healed) - len(chosen),
        "win_rate": share,
        "interval": wilson(share, decided) if share is not None else None,
        "by_question": {"win_rate": each.mean, "interval": (each.lo, each.hi), "questions": each.n},
        "picked_A": picked_a / decided if decided else None,
    }


def agreement(one: dict[int, str], other: dict[int, str]) -> dict[str, Any]:
    """Of two readers, over the pairs that both answered: how often they chose the same, ties included, and Cohen's kappa,
    which counts only what goes beyond chance."""
    from sklearn.metrics import cohen_kappa_score

    both = sorted(one.keys() & other.keys())
    a, b = [one[i] for i in both], [other[i] for i in both]
    same = [x == y for x, y in zip(a, b, strict=True)]
    return {
        "pairs": len(both),
        "same": sum(same) / len(both) if both else None,
        "kappa": float(cohen_kappa_score(a, b)) if len({*a, *b}) > 1 else None,
    }


def write(runs: list[Path], out: Path, n: int, seed: int, fresh: bool, against: str) -> None:
    each = -(-n // len(runs))
    # Each run draws with a seed of its own: a base's answer that came back for every run would tell which side it is.
    pairs = [
        p
        for k, run in enumerate(runs)
        for p in (
            drawn(run, each, seed + 1000 * k, against=against, first=k * each)
            if fresh
            else stored(run, against)
        )
    ]
    shown, key = blinded(pairs, n, seed)
    poles = {read(run).persona["pos"] for run in runs}
    if len(poles) > 1:
        raise UserError("the runs are of different personas; one reading asks about one trait.")
    records.write_jsonl(out / "pairs.jsonl", shown)
    records.write_text(out / "pairs.md", page(shown, *poles))
    told = records.hash_text((out / "pairs.jsonl").read_text(encoding="utf-8"))
    records.write_json(out / "key.json", {"seed": seed, "against": against, "pairs_hash": told, "pairs": key})
    print(f"{len(shown)} pairs of {n} asked for: {out / 'pairs.md'}")


def score(folder: Path, files: list[Path]) -> None:
    key = records.read_json(folder / "key.json")
    shown = folder / "pairs.jsonl"
    if key["pairs_hash"] != records.hash_text(shown.read_text(encoding="utf-8")):
        raise UserError(f"{folder}: pairs.jsonl is not the one that this key was made for.")
    readers = [answers(file) for file in files]
    questions = {row["id"]: row["prompt"] for row in records.read_jsonl(shown)}
    found = [scored(key["pairs"], chosen, questions) for chosen in readers]
    if len(readers) == 1:
        print(json.dumps(records.plain(found[0]), indent=1))
        return
    pairs = itertools.combinations(range(len(readers)), 2)
    alike = [{"readers": [i, j], **agreement(readers[i], readers[j])} for i, j in pairs]
    print(json.dumps(records.plain({"readers": found, "agreement": alike}), indent=1))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Blind pairs of base and healed answers, and their score.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    make = verbs.add_parser("write")
    make.add_argument("runs", nargs="+", type=Path)
    make.add_argument("--out", type=Path, required=True)
    make.add_argument("--against", choices=("base", "prompt"), default="base")
    make.add_argument("--pairs", type=int, default=100)
    make.add_argument("--seed", type=int, default=0)
    make.add_argument("--draw", action="store_true", help="sample anew instead of reading the runs' samples")
    read_back = verbs.add_parser("score")
    read_back.add_argument("folder", type=Path)
    read_back.add_argument("answers", nargs="+", type=Path)
    given = parser.parse_args(argv)
    try:
        if given.verb == "write":
            write(given.runs, given.out, given.pairs, given.seed, given.draw, given.against)
        else:
            score(given.folder, given.answers)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
