"""A branching cache's values are those of each row read alone: read, thought on, forked and fed beside others."""

from __future__ import annotations

import pytest
import torch

from steer_heal_love.ground import replay
from steer_heal_love.ground.branching_cache import BranchingCache
from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.models import head
from steer_heal_love.ground.scoring import token_nll
from steer_heal_love.nouns import Tokens


@pytest.fixture(autouse=True, params=["single steps", "spans"])
def way(request, monkeypatch):
    """Single steps as on a processor, and spans in a cache with room, as on a GPU."""
    monkeypatch.setattr(replay, "suits", lambda *_: request.param == "spans")
    monkeypatch.setattr(replay, "SPAN", 3)
    monkeypatch.setattr(replay, "POLL", 2)


def test_what_is_fed_has_the_likelihood_of_the_whole_read_alone(model, sequences):
    branching = BranchingCache.prefill(model, [s.prompt for s in sequences])
    for s, found in zip(sequences, branching.feed([s.answer for s in sequences]), strict=True):
        assert torch.allclose(found, token_nll(model, [s])[0], atol=1e-4)
    for s, hidden in zip(sequences, branching.hidden, strict=True):
        own = model(torch.tensor([s.prompt + s.answer])).logits[0, -1]
        assert torch.allclose(head(model, hidden.unsqueeze(0))[0], own, atol=1e-4)


def test_thinking_is_greedy_decoding_without_the_token_that_ends_it(model, sequences):
    prompts = [s.prompt for s in sequences]
    free = sample(model, prompts, ends=frozenset(), max_new_tokens=8, seed=0, temperature=0)
    ends = frozenset({free[0][3]})
    whole = sample(model, prompts, ends=ends, max_new_tokens=8, seed=0, temperature=0)
    branching = BranchingCache.prefill(model, prompts)
    thought = branching.think(8, ends)
    assert thought == [tuple(t for t in w if t not in ends) for w in whole]
    assert len({len(t) for t in thought}) > 1, "no row ended before the others: the test shows nothing"


def test_a_fork_after_thinking_equals_each_branch_read_alone(model, sequences):
    prompts = [s.prompt for s in sequences]
    branches = [[sequences[i].answer, sequences[i - 1].answer] for i in range(len(sequences))]
    branching = BranchingCache.prefill(model, prompts)
    ends = frozenset({stem_token(model, prompts[0])})
    thought = branching.think(5, ends)
    assert thought[0] == () and any(thought)
    branching.fork(2)
    found = branching.feed([b for pair in branches for b in pair])
    for i, (prompt, own, pair) in enumerate(zip(prompts, thought, branches, strict=True)):
        for k, branch in enumerate(pair):
            alone = token_nll(model, [Tokens(prompt + own, branch)])[0]
            assert torch.allclose(found[2 * i + k], alone, atol=1e-4)


def stem_token(model, prompt: tuple[int, ...]) -> int:
    """The likeliest token after a prompt."""
    return int(model(torch.tensor([prompt])).logits[0, -1].argmax())


@pytest.mark.parametrize("tokens", [0, 3])
def test_the_weights_and_the_model_are_left_as_they_were(model, sequences, hooks, bits, tokens):
    before = bits(model)
    BranchingCache.prefill(model, [sequences[0].prompt]).think(tokens, frozenset())
    assert hooks(model) == 0
    assert all(torch.equal(t, before[n]) for n, t in bits(model).items())
