"""Claims, observations, verdicts.

In: what a run measured so far. Out: `Gate` records, which terminal, report and tests all read. A gate is one file
here with `@gate(name, ...)`: its claim, its table of possible outcomes, and a function by which the run's own
numbers select the row. Absolute coherence is read before any ratio, verdicts come from paired intervals, and
intervals read at once share one error. `docs/verdicts.md` is the same table, printed by `gates/page.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from steer_heal_love.gates.evidence import Evidence
from steer_heal_love.ground.registry import Registry
from steer_heal_love.nouns import Gate, Score

Verdict = Literal["pass", "fail", "undecided"]
Found = tuple[str, str]
"""the outcome's name, and what was observed: the number that decided first"""


@dataclass(frozen=True)
class Row:
    """One possible outcome: its verdict, what it looks like, what it says, what to try."""

    verdict: Verdict
    pattern: str
    says: str
    tries: str = ""

    @property
    def means(self) -> str:
        return f"{self.says} {self.tries}".strip()


@dataclass(frozen=True)
class Claim:
    """A gate: its claim, the scores it needs of every stage, its table, and what selects a row."""

    step: int
    claim: str
    needs: tuple[str, ...]
    rows: dict[str, Row]
    judge: Callable[[Evidence], Found | None]


gates: Registry[Claim] = Registry("gate", __name__)


def gate(
    name: str, *, step: int, claim: str, rows: dict[str, Row], needs: tuple[str, ...] = ()
) -> Callable[[Callable[[Evidence], Found | None]], Callable[[Evidence], Found | None]]:
    """Register a gate; `step` is its place in the round. None from it means the run hasn't come that far."""

    def register(judge: Callable[[Evidence], Found | None]) -> Callable[[Evidence], Found | None]:
        gates.register(name, Claim(step, claim, needs, rows, judge))
        return judge

    return register


def in_order() -> dict[str, Claim]:
    return dict(sorted(gates.items(), key=lambda item: item[1].step))


def judge(e: Evidence) -> list[Gate]:
    """Every gate that the evidence reaches, in the order of a round."""
    out = []
    for name, g in in_order().items():
        found = g.judge(e) if e.has(*g.needs) else None
        if found:
            row = g.rows[found[0]]
            out.append(Gate(name, g.claim, found[1], row.verdict, row.means, found[0]))  # type: ignore[arg-type]
    return out


def show(s: Score, unit: str = "") -> str:
    """Effect with its interval, unit and number of items."""
    if not math.isfinite(s.mean):
        return f"undefined (n {s.n})"
    interval = f" [{s.lo:+.3f}, {s.hi:+.3f}]" if math.isfinite(s.lo) and math.isfinite(s.hi) else ""
    return f"{s.mean:+.3f}{interval}{f' {unit}' if unit else ''} (n {s.n})"


def evidence_text(parts: Mapping[Any, str], first: Any) -> str:
    """The evidence in one line, what decided first."""
    order = sorted(parts, key=lambda name: name != first)
    return "; ".join(parts[name] for name in order if parts[name])


__all__ = ["Claim", "Evidence", "Found", "Row", "evidence_text", "gate", "gates", "in_order", "judge", "show"]
