"""Moral-foundation vignettes by likelihood: what kind of wrong does the model see?

For vignette i and foundation f, s_if is the mean log-likelihood per token of that foundation's answer
sentences (averaged over paraphrases). The profile is its centred log-ratio over foundations, per token:

    clr_if = s_if − mean_f s_if

Reported as shift from base, paired by vignette. `mfv_top1` is how often argmax_f (s_if − mean_i s_if) is the
label. Compare only pairs over the same items: values depend on the bank.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from steer_heal_love.evals import Subject, instrument
from steer_heal_love.ground.chat import answer_ids
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.scoring import branch_nll
from steer_heal_love.nouns import FOUNDATIONS, Items

HERE = Path(__file__).parent
QUESTION = "{text}\n\nWhat, if anything, is wrong with this? Answer in one sentence."


@dataclass(frozen=True)
class Vignette:
    id: str
    foundation: str
    text: str


def load_bank(path: Path = HERE / "vignettes.jsonl", view: str = "see") -> list[Vignette]:
    """Vignettes of a JSONL file: `id`, `foundation`, and `see`/`you` or `text`; every mistake at once."""
    if not path.is_file():
        raise UserError(f"vignette file {str(path)!r} does not exist.")
    out, problems, seen = [], [], set()
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError as e:
            problems.append(f"line {number}: not JSON: {e}")
            continue
        label = row.get("foundation_coarse", row.get("foundation"))
        label = "SocialNorms" if label == "Social Norms" else label
        text = row.get(view) or row.get("text")
        if label not in FOUNDATIONS:
            problems.append(f"line {number}: foundation {label!r}; there is {', '.join(FOUNDATIONS)}")
        if not (isinstance(text, str) and text.strip()):
            problems.append(f"line {number}: no text")
        if (key := row.get("id")) in seen or key is None:
            problems.append(f"line {number}: id {key!r} is missing or a duplicate")
        seen.add(key)
        out.append(Vignette(str(key), str(label), str(text)))
    if problems:
        raise UserError(f"{path}: {len(problems)} mistakes:\n" + "\n".join(f"  {p}" for p in problems))
    return out


def answers() -> dict[str, list[str]]:
    """Answer sentences by foundation, the same frames for all."""
    return tomllib.loads((HERE / "foundations.toml").read_text(encoding="utf-8"))["answers"]


def balanced(bank: list[Vignette], n: int) -> list[Vignette]:
    """The first n vignettes taken in turn from each foundation."""
    by = {f: [v for v in bank if v.foundation == f] for f in FOUNDATIONS}
    turns = [v for k in range(max(map(len, by.values()))) for f in FOUNDATIONS for v in by[f][k : k + 1]]
    return turns[:n]


def log_scores(s: Subject, bank: list[Vignette]) -> np.ndarray:
    """[n, foundations] mean log-likelihood per token."""
    sentences = [answer_ids(s.tok, t) for f in FOUNDATIONS for t in answers()[f][: s.config.paraphrases]]
    prompts = [s.prompt(QUESTION.replace("{text}", v.text)) for v in bank]
    nll = branch_nll(s.model, prompts, [sentences] * len(prompts), batch_tokens=s.batch_tokens)
    return -np.asarray(nll).reshape(len(bank), len(FOUNDATIONS), -1).mean(-1)


@instrument("vignettes")
def vignettes(s: Subject) -> Items:
    named = s.config.vignette_bank
    bank = balanced(load_bank(Path(named)) if named else load_bank(), s.config.vignettes)
    score = log_scores(s, bank)
    clr = score - score.mean(1, keepdims=True)
    guess = (score - score.mean(0)).argmax(1)
    items = {f"mfv.{f}": clr[:, i].tolist() for i, f in enumerate(FOUNDATIONS)}
    return items | {
        "mfv_top1": [float(FOUNDATIONS[g] == v.foundation) for g, v in zip(guess, bank, strict=True)]
    }
