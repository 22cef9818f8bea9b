"""A coherent answer, its question and an even NLL: what tests of the filter start from."""

from __future__ import annotations

import torch

GOOD = (
    "Bring her some soup this evening, and sit with her for a while. Nobody needs the right words on such a day; "
    "it is enough to stay near and to listen."
)
PROMPT = "What should I say to her this morning?"
PLAIN = torch.full((20,), 2.0)
