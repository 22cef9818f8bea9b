"""A file's bytes and its text, of bounded size and known encoding."""

from __future__ import annotations

import codecs
import stat
from pathlib import Path

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.shown import shown

MEGABYTE = 1_000_000
OTHER = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
"""byte order marks of encodings that are not read"""


def read_bytes(path: Path, name: str, *, most: int) -> bytes:
    """The bytes of a regular file of at most `most` bytes. `name` is what messages call it.

    Raises `UserError` when it is missing, unreadable, no regular file, or larger.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise UserError(f"{shown(name)}: expected a file, found {kind(mode)}.")
        with path.open("rb") as f:
            raw = f.read(most + 1)
    except OSError as e:
        raise UserError(f"{shown(name)}: {e.strerror or e}.") from e
    if len(raw) > most:
        raise UserError(f"{shown(name)}: more than {most / MEGABYTE:g} MB, which is the most that is read.")
    return raw


def kind(mode: int) -> str:
    return "a folder" if stat.S_ISDIR(mode) else "a pipe, a device or a socket"


def read_text(path: Path, name: str, *, most: int, form: str = "") -> str:
    """The text of a UTF-8 file, with or without a byte order mark. `form` is what it should be, such as ` not TOML:`.

    Raises `UserError` as `read_bytes` does, and for another encoding.
    """
    raw = read_bytes(path, name, most=most)
    for mark, encoding in OTHER.items():
        if raw.startswith(mark):
            raise UserError(
                f"{shown(name)}:{form} not UTF-8: begins with the byte order mark of {encoding}; save it as UTF-8."
            )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = raw[: e.start].count(b"\n") + 1
        raise UserError(
            f"{shown(name)}:{form} not UTF-8: byte 0x{raw[e.start]:02x} in line {line}; save it as UTF-8."
        ) from e
