"""Whether the words stand where they do for a reason, which likely soup and loops lack alike.

    order = mean_i share_{j ≠ i} [ p(y_j | y_<i) < p(y_i | y_<i) ]

The base model guesses each token of the answer from among the answer's own tokens. What they are, and how likely they are as a
bag, cancels; a token that comes again wins against none of its copies. It costs no pass: the logits are those of the NLL.
"""

from __future__ import annotations

from steer_heal_love.filter import Scored, check


@check("order", falls="below")
def order(s: Scored) -> float:
    return s.order.mean().item()
