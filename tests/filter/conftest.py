"""What tests of checks share: an answer as the filter scores it."""

from __future__ import annotations

import pytest
import torch

from plain_text import GOOD, PLAIN, PROMPT
from steer_heal_love.filter import Scored
from steer_heal_love.nouns import Completion, Tokens


@pytest.fixture
def scored(persona):
    def make(text=GOOD, prompt=PROMPT, nll=PLAIN, pos=None, neg=None, order=1.0, dose=0.5):
        pos, neg = (torch.full_like(nll, 2.0) if x is None else x.expand_as(nll) for x in (pos, neg))
        completion = Completion(prompt, Tokens((1, 2), tuple(range(len(nll)))), text, dose, True)
        return Scored(completion, persona, nll, pos, neg, torch.full_like(nll, order))

    return make
