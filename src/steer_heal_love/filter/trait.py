"""On-trait evidence without labels, per token: log p(answer | pos pole) − log p(answer | neg pole), base model.

Cuts at the median of the base's own samples: what is kept leans further to the pos pole than plain answers.
"""

from __future__ import annotations

from steer_heal_love.filter import Scored, check


@check("on_trait", falls="below", quantile=0.5, about="trait")
def on_trait(s: Scored) -> float:
    return (s.nll_neg - s.nll_pos).mean().item()
