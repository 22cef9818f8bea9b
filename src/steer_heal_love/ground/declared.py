"""What instruments and loss terms say of their own numbers: how a score is read from items, and where a report shows it.

Rooms don't import rooms. So an instrument registers its scores here, a loss term its curve, each beside its own code, and
`evals`, `gates` and `report` read them from here. Looking one up imports the room that declares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from steer_heal_love.ground.registry import Registry


@dataclass(frozen=True)
class Panel:
    """A small figure of a score by round: its title, its unit, and the row of figures that it stands in."""

    title: str
    unit: str
    row: Literal["by_round", "format"] = "by_round"


@dataclass(frozen=True)
class Declared:
    """One score of an instrument.

    `shift`: what the score is of the items `items`: "" their plain mean, "rise" their paired shift from base, "fall" that
    shift with its sign turned. `place` orders scores in files and tables; `column` puts the score into the table by round.
    """

    name: str
    place: int
    items: str = ""
    """the items that it is read from, where those have another name"""
    shift: Literal["", "rise", "fall"] = ""
    interval: Literal["items", "share", "cross-fitted", "auc"] = "items"
    """over items; of items that are each 0 or 1; over items, widened since classifiers trained on the other items scored
    them; or of an out-of-fold AUC"""
    block: int = 1
    """items that depend on each other come in blocks of so many, one after the other; an interval is over blocks' means"""
    column: bool = False
    signed: bool = False
    """whether its sign says something although it is no shift"""
    means: str = ""
    """what it is, in a sentence or two"""
    panel: Panel | None = None

    @property
    def source(self) -> str:
        return self.items or self.name


@dataclass(frozen=True)
class Curve:
    """A loss term's line among a heal's curves, by the step's record of that name."""

    term: str
    label: str
    place: int


declared: Registry[Declared] = Registry("score", "steer_heal_love.evals")
curves: Registry[Curve] = Registry("curve", "steer_heal_love.heal")


def declare(*scores: Declared) -> None:
    """Register scores, each once."""
    for score in scores:
        declared.register(score.name, score)


def in_order() -> list[Declared]:
    """Every declared score, by its place."""
    return sorted(declared.values(), key=lambda s: s.place)


def shifts() -> list[Declared]:
    """The scores that are shifts from base."""
    return [s for s in in_order() if s.shift]


def columns() -> list[Declared]:
    """The scores that the table by round shows."""
    return [s for s in in_order() if s.column]


def signed(name: str) -> bool:
    """Whether a score's sign says something: it is a shift, or a difference."""
    return name in declared and (bool(declared[name].shift) or declared[name].signed)
