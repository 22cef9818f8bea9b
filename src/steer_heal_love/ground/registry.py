"""A plug-in is one file and one decorator: the room imports its own files, the decorator records them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from steer_heal_love.ground.errors import unknown

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """Name → plug-in, filled on first look by importing every module of `package`."""

    def __init__(self, kind: str, package: str):
        self.kind, self.package = kind, package
        self._items: dict[str, T] = {}
        self._discovered = False

    def register(self, name: str, item: T) -> T:
        if name in self._items:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._items[name] = item
        return item

    def __call__(self, name: str) -> Callable[[T], T]:
        return lambda item: self.register(name, item)

    def _discover(self) -> None:
        if self._discovered:
            return
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        self._discovered = True

    def __getitem__(self, name: str) -> T:
        self._discover()
        if name not in self._items:
            raise unknown(self.kind, name, self._items)
        return self._items[name]

    def __contains__(self, name: object) -> bool:
        self._discover()
        return name in self._items

    def get(self, name: str, default: Any = None) -> Any:
        self._discover()
        return self._items.get(name, default)

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(sorted(self._items))

    def __len__(self) -> int:
        self._discover()
        return len(self._items)
