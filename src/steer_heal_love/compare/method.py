"""What a method is: a generator of cells, one a strength of its own knob, on a seed's bench."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from steer_heal_love.compare.bench import Bench
from steer_heal_love.ground.registry import Registry
from steer_heal_love.nouns import Stage

Kind = Literal["prompt", "steered", "healed"]


class Given(TypedDict, total=False):
    """What a model is told before every prompt: a system prompt, questions with their answers."""

    system: str
    shots: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Cell:
    """One model to measure: contexts to enter on the base, or what it is told, or a stage measured already. `own` marks
    the strength that the method itself would choose."""

    strength: float
    contexts: tuple[Callable[[], AbstractContextManager[Any]], ...] = ()
    given: Given = field(default_factory=Given)
    stage: Stage | None = None
    dose: float | None = None
    own: bool = False


Cells = Callable[[Bench], Iterator[Cell]]


@dataclass(frozen=True)
class Method:
    """`cells` yields in rising strength; `knob` says what strength means; `kind` names the stages. A `null` has no idea
    of the trait: others are set above the best of them."""

    name: str
    knob: str
    kind: Kind
    cells: Cells
    null: bool = False


@dataclass(frozen=True)
class Trace:
    """What one method reached in one seed: its cells in rising strength, why it stopped, if it did, and the strength
    of its own default; None where that is none of the cells."""

    method: Method
    seed: int
    cells: list[tuple[float, Stage]]
    stopped: str
    seconds: float
    own: float | None = None


methods: Registry[Method] = Registry("method of comparison", "steer_heal_love.compare")


def method(name: str, *, knob: str, kind: Kind, null: bool = False) -> Callable[[Cells], Cells]:
    """Register a generator of cells. It may raise `Starved` or `Diverged`; what it yielded before counts."""

    def register(cells: Cells) -> Cells:
        methods.register(name, Method(name, knob, kind, cells, null))
        return cells

    return register
