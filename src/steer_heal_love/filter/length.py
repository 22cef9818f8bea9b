"""Too short to teach anything."""

from __future__ import annotations

from steer_heal_love.filter import Scored, check


@check("length", falls="below", limit=8.0, text_only=True)
def length(s: Scored) -> float:
    return float(len(s.words))
