"""A step of a run: what it is called in the log, the file that its result lies in, and how that is read and written.

A step is done once. A run that was stopped reads the results that lie there and makes the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from steer_heal_love.ground import folder as files
from steer_heal_love.ground import records
from steer_heal_love.ground.folder import RunFolder
from steer_heal_love.nouns import Completion, Preview, Stage

T = TypeVar("T")


@dataclass(frozen=True)
class Codec(Generic[T]):
    """How a result is read from a file and written to one."""

    load: Callable[[Path], T]
    save: Callable[[T, Path], None]


@dataclass(frozen=True)
class Step(Generic[T]):
    """`name`: the room that the log books its seconds to. `file`: its result, in the folder of its round."""

    name: str
    file: str
    codec: Codec[T]

    def once(self, folder: RunFolder, here: Path, make: Callable[[], T], **fields: Any) -> T:
        """What lies in `here`, or what `make` makes, saved there and logged with its seconds and `fields`."""
        return folder.once(self.name, here / self.file, self.codec.load, self.codec.save, make, **fields)


COMPLETIONS: Codec[list[Completion]] = Codec(files.load_completions, files.save_completions)
STAGES: Codec[list[Stage]] = Codec(files.load_stages, files.save_stages)
PREVIEWS: Codec[list[Preview]] = Codec(files.load_previews, files.save_previews)
JSON: Codec[Any] = Codec(records.read_json, files.save_json)
