"""NLL under the base: of the whole answer, of its last quarter, of its worst window of 16 tokens.

Babble is improbable text; a mean over the answer dilutes a short burst of it, the tail and the window don't.
"""

from __future__ import annotations

import torch

from steer_heal_love.filter import Scored, check

WINDOW = 16


@check("nll", falls="above")
def nll(s: Scored) -> float:
    return s.nll.mean().item()


@check("nll_tail", falls="above")
def nll_tail(s: Scored) -> float:
    return s.nll[-max(1, len(s.nll) // 4) :].mean().item()


@check("nll_window", falls="above")
def nll_window(s: Scored) -> float:
    width = min(WINDOW, len(s.nll))
    if width == 0:
        return float("nan")
    return torch.nn.functional.avg_pool1d(s.nll[None, None], width, 1).max().item()
