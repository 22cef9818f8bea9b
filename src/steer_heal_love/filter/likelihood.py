"""NLL under the base, plain or as the pos pole: of the whole answer, its last quarter, its worst 16 tokens.

Babble is improbable text; a mean over the answer dilutes a short burst of it, the tail and the window don't.
"""

from __future__ import annotations

from steer_heal_love.filter import Scored, check

WINDOW = 16


@check("nll", falls="above")
def nll(s: Scored) -> float:
    return s.likeliest.mean().item()


@check("nll_tail", falls="above")
def nll_tail(s: Scored) -> float:
    return s.likeliest[-max(1, len(s.nll) // 4) :].mean().item()


@check("nll_window", falls="above")
def nll_window(s: Scored) -> float:
    width = min(WINDOW, len(s.nll))
    if width == 0:
        return float("nan")
    return s.likeliest.unfold(0, width, 1).mean(1).max().item()
