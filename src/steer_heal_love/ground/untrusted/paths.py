"""Paths that stay in their folder."""

from __future__ import annotations

from pathlib import Path

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.shown import shown


def inside(root: Path, path: Path) -> Path:
    """`path`, which lies in `root` also after every symbolic link is followed.

    Raises `UserError` where a link, or `..`, leads out of `root`: what is written or read there would be someone
    else's file.
    """
    try:
        real, within = path.resolve(), root.resolve()
    except (OSError, RuntimeError) as e:
        raise UserError(f"{shown(path)}: its symbolic links lead nowhere.") from e
    if not real.is_relative_to(within):
        raise UserError(
            f"{shown(path)}: leads out of {shown(root)}, to {shown(real)}. "
            "Put the file or folder itself in its place; nothing was changed."
        )
    return path
