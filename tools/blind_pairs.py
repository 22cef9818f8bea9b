"""Blind pairwise reading: base against healed on the same prompt, for a reader who doesn't know which is which.

    python tools/blind_pairs.py write RUN [RUN ...] --out DIR [--pairs 100] [--seed 0] [--draw]
    python tools/blind_pairs.py score DIR ANSWERS

`write` takes the runs' own samples on held-out probe questions, the base's and the last healed model's; `--draw`
samples anew, several draws a question where that takes. It makes

    DIR/pairs.md      what the reader sees: the trait, and each pair as A and B
    DIR/pairs.jsonl   the same for a program: id, prompt, A, B
    DIR/key.json      which side is the healed one, and a hash of the pairs. Not for the reader

The reader writes a line a pair, `ID A`, `ID B` or `ID tie`, or JSON lines with `id` and `choice`. `score` prints the
share of decided pairs that went to the healed model, with Wilson's interval, and counts ties, pairs without an answer,
and how often A was picked (0.5 unless the reader prefers a side). Equal texts make no pair. The order of pairs and the
sides are drawn from the seed.
"""

from __future__ import annotations

import argparse
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
from steer_heal_love.ground.stats import wilson
from steer_heal_love.nouns import Stage
from steer_heal_love.report.read import RunRecord, read

LINE = re.compile(r"\s*(\d+)\s*[:.,)]?\s*(A|B|tie)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt; `run` names where they come from."""

    prompt: str
    base: str
    healed: str
    run: str


def questions(run: RunRecord) -> set[str]:
    return {p["question"] for bank in ("probes", "confirmation") for p in run.persona.get(bank, [])}


def stored(path: Path) -> list[Pair]:
    """The run's own samples on probe questions, base against the last healed model, draw by draw of the same question.

    Raises `UserError` without any.
    """
    run = read(path)
    base = run.stage("base")
    if base is None or not run.healed:
        raise UserError(f"{path}: no healed model with samples yet; let the run finish a round.")
    asked, own, moved = questions(run), texts(base), texts(run.healed[-1])
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


def drawn(path: Path, n: int, seed: int) -> list[Pair]:
    """About `n` fresh pairs: every probe question in turn, base and healed with the same draws."""
    from steer_heal_love import bake, presets, session
    from steer_heal_love.ground.chat import end_of_turn_ids, prompt_ids
    from steer_heal_love.ground.decode import sample
    from steer_heal_love.ground.hooks import adapted

    run, cfg = read(path), presets.read(path / "config.toml")
    model, tok = session.loaded(cfg)
    whole = bake.load_peft(path / "adapter")
    asked = sorted(questions(run))
    prompts = [asked[i % len(asked)] for i in range(n)]

    def answers() -> list[str]:
        made = sample(
            model,
            [prompt_ids(tok, p) for p in prompts],
            ends=end_of_turn_ids(model, tok),
            seed=seed,
            max_new_tokens=cfg.eval.sample_tokens,
            temperature=cfg.eval.temperature,
            min_p=cfg.eval.min_p,
            batch=cfg.generate.batch,
        )
        return [tok.decode(a, skip_special_tokens=True) for a in made]

    base = answers()
    with adapted(model, whole.factors, whole.scaling):
        healed = answers()
    return [Pair(p, b, h, run.name) for p, b, h in zip(prompts, base, healed, strict=True)]


def blinded(pairs: list[Pair], n: int, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Up to `n` pairs in a drawn order with drawn sides, half of them with the healed one as A; and the key. No answer is
    shown twice: one that comes back, word for word, is told by that."""
    draw = random.Random(seed)
    chosen = [p for p in dict.fromkeys(pairs) if p.base.strip() != p.healed.strip()]
    draw.shuffle(chosen)
    times = Counter(text for p in chosen for text in (p.base, p.healed))
    seen: set[str] = set()
    for p in [p for p in chosen if times[p.base] > 1 or times[p.healed] > 1]:
        if seen & {p.base, p.healed}:
            chosen.remove(p)
        seen |= {p.base, p.healed}
    chosen = chosen[:n]
    sides = ["AB"[i % 2] for i in range(len(chosen))]
    draw.shuffle(sides)
    shown, key = [], []
    for i, (p, side) in enumerate(zip(chosen, sides, strict=True), 1):
        a, b = (p.healed, p.base) if side == "A" else (p.base, p.healed)
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


def scored(key: list[dict[str, Any]], chosen: dict[int, str]) -> dict[str, Any]:
    """Wins of the healed model among decided pairs, with Wilson's 95% interval; ties and gaps counted."""
    healed = {k["id"]: k["healed"] for k in key}
    if unknown := sorted(set(chosen) - set(healed)):
        raise UserError(f"answers for pairs that there are not: {unknown[:5]}; there are 1 to {len(healed)}.")
    counts = Counter(
        "ties" if choice == "TIE" else "wins" if choice == healed[pair] else "losses"
        for pair, choice in chosen.items()
    )
    decided = counts["wins"] + counts["losses"]
    share = counts["wins"] / decided if decided else None
    picked_a = sum(c == "A" for c in chosen.values())
    return {
        "wins": counts["wins"],
        "losses": counts["losses"],
        "ties": counts["ties"],
        "unanswered": len(healed) - len(chosen),
        "win_rate": share,
        "interval": wilson(share, decided) if share is not None else None,
        "picked_A": picked_a / decided if decided else None,
    }


def write(runs: list[Path], out: Path, n: int, seed: int, fresh: bool) -> None:
    each = -(-n // len(runs))
    # Each run draws with a seed of its own: a base's answer that came back for every run would tell which side it is.
    pairs = [
        p for k, run in enumerate(runs) for p in (drawn(run, each, seed + 1000 * k) if fresh else stored(run))
    ]
    shown, key = blinded(pairs, n, seed)
    poles = {read(run).persona["pos"] for run in runs}
    if len(poles) > 1:
        raise UserError("the runs are of different personas; one reading asks about one trait.")
    records.write_jsonl(out / "pairs.jsonl", shown)
    records.write_text(out / "pairs.md", page(shown, *poles))
    told = records.hash_text((out / "pairs.jsonl").read_text(encoding="utf-8"))
    records.write_json(out / "key.json", {"seed": seed, "pairs_hash": told, "pairs": key})
    print(f"{len(shown)} pairs of {n} asked for: {out / 'pairs.md'}")


def score(folder: Path, file: Path) -> None:
    key = records.read_json(folder / "key.json")
    if key["pairs_hash"] != records.hash_text((folder / "pairs.jsonl").read_text(encoding="utf-8")):
        raise UserError(f"{folder}: pairs.jsonl is not the one that this key was made for.")
    print(json.dumps(records.plain(scored(key["pairs"], answers(file))), indent=1))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Blind pairs of base and healed answers, and their score.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    make = verbs.add_parser("write")
    make.add_argument("runs", nargs="+", type=Path)
    make.add_argument("--out", type=Path, required=True)
    make.add_argument("--pairs", type=int, default=100)
    make.add_argument("--seed", type=int, default=0)
    make.add_argument("--draw", action="store_true", help="sample anew instead of reading the runs' samples")
    read_back = verbs.add_parser("score")
    read_back.add_argument("folder", type=Path)
    read_back.add_argument("answers", type=Path)
    given = parser.parse_args(argv)
    try:
        if given.verb == "write":
            write(given.runs, given.out, given.pairs, given.seed, given.draw)
        else:
            score(given.folder, given.answers)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
