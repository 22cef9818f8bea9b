"""Do the vignettes show scenes without judging them, and do the answers differ in foundation alone?

In: vignettes in both views, or answer sentences by foundation. Out: findings, one string "where: what" each.
A moral word in a scene would give the answer away; an answer of another length would be scored by it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from steer_heal_love.evals.vignettes import answers, load_bank
from steer_heal_love.ground.text import count_words, duplicates, outside
from steer_heal_love.nouns import FOUNDATIONS

OPENINGS = {"see": "You see ", "you": "You "}
"""how a text begins, by view"""
STEMS = (
    "abus|betray|blasphem|cheat|coerc|corrupt|cruel|defil|degrad|desecrat|dishonest|dishonor|dishonour|disloyal"
    "|disobe|disrespect|etiquette|fraud|heartless|immoral|impolite|impur|inappropriate|indecen|injust|insult"
    "|oppress|pervert|profan|sacrileg|shame|sinful|steal|thie[fv]|traitor|treason|tyran|unethical|unfair|unjust"
    "|unkind|unnatural|unusual|violat|weird|wicked"
)
EXACT = (
    "awkward|awkwardly|bad|badly|disgusting|disgustingly|ethical|evil|filthy|gross|guilty|harm|harmful|harming"
    "|honest|honestly|loyal|moral|morally|obscene|odd|oddly|rude|rudely|selfish|selfishly|sin|sins|stole|strange"
    "|strangely|vile|wrong|wrongly"
)
MORAL = re.compile(rf"\b(?:(?:{STEMS})\w*|{EXACT})\b", re.IGNORECASE)


def findings() -> list[str]:
    """What is wrong with the shipped vignettes and answers. Raises `UserError` when a file won't load."""
    views = {view: load_bank(view=view) for view in OPENINGS}
    rows = [{"id": v.id, "foundation": str(v.foundation)} for v in views["see"]]
    for view, bank in views.items():
        for row, v in zip(rows, bank, strict=True):
            row[view] = v.text
    return lint_vignettes(rows) + lint_answers(answers())


def lint_vignettes(rows: Sequence[Mapping[str, str]], *, least: int = 15) -> list[str]:
    """Everything wrong with vignettes of `id`, `foundation`, `see` and `you`."""
    ids, labels = (Counter(row[key] for row in rows) for key in ("id", "foundation"))
    out = [
        f"vignettes: {labels[f]} of {f}; expected at least {least}" for f in FOUNDATIONS if labels[f] < least
    ]
    out += [f"vignettes: id {key!r} occurs {n} times" for key, n in ids.items() if n > 1]
    texts: dict[str, str] = {}
    for view, opening in OPENINGS.items():
        located = {f"vignettes[{i}].{view} ({row['id']})": row[view] for i, row in enumerate(rows)}
        for where, text in located.items():
            if not text.startswith(opening):
                out.append(f"{where}: begins {text[:12]!r}; expected {opening!r}")
            if m := MORAL.search(text):
                out.append(f"{where}: moral word {m[0]!r}")
        texts |= located
    return [*out, *outside(texts, 6, 26), *duplicates(texts)]


def lint_answers(sentences: Mapping[str, Sequence[str]], *, apart: int = 2) -> list[str]:
    """Everything wrong with the answer sentences by foundation: all seven, the same frames for all."""
    out = [f"answers.{f}: missing" for f in FOUNDATIONS if f not in sentences]
    out += [f"answers.{f}: no such foundation" for f in sentences if f not in FOUNDATIONS]
    counts = {f: len(texts) for f, texts in sentences.items()}
    if len(set(counts.values())) > 1:
        out.append(f"answers: unequal counts {counts}")
    for k, frame in enumerate(zip(*sentences.values(), strict=False)):
        lengths = [count_words(text) for text in frame]
        if max(lengths) - min(lengths) > apart:
            by = dict(zip(sentences, lengths, strict=True))
            out.append(f"answers[{k}]: word counts {by}; expected at most {apart} apart")
    return out + duplicates(
        {f"answers.{f}[{k}]": t for f, texts in sentences.items() for k, t in enumerate(texts)}
    )
