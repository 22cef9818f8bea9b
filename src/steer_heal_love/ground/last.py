"""What was last made of some things, for as long as the very same things are asked about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Last(Generic[T]):
    """One value, known by the identity of what it was made of, which is held on to."""

    def __init__(self) -> None:
        self._of: list[Any] = []
        self._value: T | None = None

    def of(self, things: Sequence[Any]) -> T | None:
        """The value made of these very things; None where there is none. One made of others is forgotten."""
        if list(map(id, things)) != list(map(id, self._of)):
            self.forget()
        return self._value

    def keep(self, things: Sequence[Any], value: T) -> T:
        self._of, self._value = list(things), value
        return value

    def forget(self) -> None:
        """Let go of it, so that its memory is free."""
        self._of, self._value = [], None
