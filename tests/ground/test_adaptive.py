"""Steering that adapts as it writes, against plain decoding and against a loop that reads one row anew for every token."""

from __future__ import annotations

import math

import pytest
import torch
from tests.ground.test_operations import made, sliding
from tests.tiny_model import build_model, hooks_of

from steer_heal_love.ground import replay
from steer_heal_love.ground.adaptive import written
from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.divergence import forward_kl
from steer_heal_love.ground.operations import Steering, operations, rows
from steer_heal_love.ground.policy import Policy, band, capped, left

DRAW = torch.Generator().manual_seed(3)
PROMPTS = [tuple(torch.randint(4, 60, (n,), generator=DRAW).tolist()) for n in (4, 9, 6, 5)]
DIRECTIONS = {i: torch.randn(32, generator=DRAW) for i in (1, 3)}
DOSES = [0.5, 1.0, 0.2, 0.8]
STEPS = 9
HOW = {"ends": frozenset({2, 7, 30}), "max_new_tokens": STEPS, "seed": 4, "min_p": 0.0}
GREEDY = HOW | {"temperature": 0.0}
BACK = Policy(rewinds=2, window=3, band=(1.2, 2.2))
ONCE = Policy(rewinds=1, window=3, band=(1.2, 2.2), shrink=0.9)
"""so mild a step back that rows leave the band once more, and may not go back again"""
MODES = {
    "plain": Policy(),
    "decay": Policy(half_life=4.0),
    "cap": Policy(cap_nats=0.3),
    "rewind": BACK,
    "rewind once": ONCE,
    "all": Policy(5.0, 0.5, 2, 0.5, 3, (1.2, 2.2)),
}
EVERY = pytest.mark.parametrize("mode", sorted(MODES))


@pytest.fixture(scope="module", params=["plain", "sliding"])
def net(request):
    return build_model(64, 2) if request.param == "plain" else sliding()


def write(net, policy, prompts=PROMPTS, doses=DOSES, operation="add", steers=DIRECTIONS, how=GREEDY, **more):
    return written(
        net, prompts, steering=Steering(steers, operation), doses=doses, policy=policy, **how, **more
    )


@pytest.mark.parametrize("operation", sorted(operations))
@pytest.mark.parametrize("how", [HOW, GREEDY], ids=["drawn", "greedy"])
def test_a_cap_out_of_reach_gives_the_steered_tokens_and_a_cap_of_nothing_the_plain_ones(net, operation, how):
    steers = made(operation) if operation in rows else DIRECTIONS
    steered = sample(net, PROMPTS, steer=steers, operation=operation, doses=DOSES, **how)
    plain = sample(net, PROMPTS, **how)
    assert write(net, Policy(), operation=operation, steers=steers, how=how).answers == steered
    assert write(net, Policy(cap_nats=1e9), operation=operation, steers=steers, how=how).answers == steered
    assert write(net, Policy(cap_nats=0.0), operation=operation, steers=steers, how=how).answers == plain
    assert write(net, Policy(rewinds=3), operation=operation, steers=steers, how=how).answers == steered
    assert steered != plain


@EVERY
def test_a_batch_writes_what_single_rows_do_whatever_their_padding(net, mode):
    policy = MODES[mode]
    alone = [write(net, policy, [p], [d]) for p, d in zip(PROMPTS, DOSES, strict=True)]
    for batch in (8, 3):
        both = write(net, policy, batch=batch)
        assert both.answers == [w.answers[0] for w in alone]
        assert both.rewinds == [w.rewinds[0] for w in alone]
    assert both.read == sum(w.read for w in alone)


def push(layer, by):
    """A hook that adds this to the layer's output."""
    return layer.register_forward_hook(
        lambda _m, _a, out: (out[0] + by, *out[1:]) if isinstance(out, tuple) else out + by
    )


def naive(net, policy, prompt, dose):
    """One row, greedy, no cache: the dose of each token by position, the cap by a search of its own, going back by hand."""
    kept, nll, back = [], [], 0
    while True:
        prefix = len(kept)
        while len(kept) < STEPS and not (kept[prefix:] and kept[-1] in HOW["ends"]):
            ids, at = torch.tensor([[*prompt, *kept]]), dose * policy.factor**prefix
            size = [at] * (len(prompt) + prefix) + [
                dose * policy.factor ** (t + 1) for t in range(prefix, len(kept))
            ]
            handles = [
                push(net.model.layers[i], torch.tensor(size)[None, :, None] * v)
                for i, v in DIRECTIONS.items()
            ]
            steered = net(ids).logits[0, -1]
            for h in handles:
                h.remove()
            plain = net(ids).logits[0, -1]
            token = mixed(steered, plain, policy.cap_nats).argmax().item()
            kept.append(token)
            nll.append(-plain.log_softmax(-1)[token].item())
            if back < policy.rewinds and left(nll, policy) is not None:
                break
        at = left(nll, policy)
        if at is None or back >= policy.rewinds:
            return tuple(kept), back
        good = max(at + 1 - policy.window, 0)
        kept, nll, dose, back = kept[:good], nll[:good], dose * policy.shrink, back + 1


def mixed(steered, plain, nats):
    shares = torch.linspace(0, 1, 4001)[:, None]
    each = plain + shares * (steered - plain)
    kl = forward_kl(each, plain.expand_as(each))
    return each[(kl <= nats).nonzero().max()]


@EVERY
def test_every_mode_is_what_one_row_read_anew_for_every_token_gives(net, mode):
    found = write(net, MODES[mode])
    want = [naive(net, MODES[mode], p, d) for p, d in zip(PROMPTS, DOSES, strict=True)]
    assert list(zip(found.answers, found.rewinds, strict=True)) == want
    if "rewind" in mode:
        assert any(found.rewinds), "a row must go back for this test to say anything"


@EVERY
def test_dose_zero_is_plain_text_and_nothing_stays_on_the_model_after_an_error(net, mode, monkeypatch):
    policy = MODES[mode]
    zero = write(net, policy, doses=[0.0] * 4)
    if not policy.rewinds:
        assert zero.answers == sample(net, PROMPTS, **GREEDY)
    monkeypatch.setattr(
        "steer_heal_love.ground.adaptive.choose", lambda *_: (_ for _ in ()).throw(KeyError("inside"))
    )
    with pytest.raises(KeyError, match="inside"):
        write(net, policy)
    assert hooks_of(net) == 0


def test_the_cap_holds_and_is_used_up_where_the_steered_model_is_beyond_it():
    steered, plain = 3 * torch.randn(6, 40, generator=DRAW), torch.randn(6, 40, generator=DRAW)
    steered[0] = plain[0]
    whole, found = forward_kl(steered, plain), forward_kl(capped(steered, plain, 0.4), plain)
    assert whole[0] < 0.4 < whole[1:].min()
    assert (found <= 0.4 + 1e-5).all() and (found[1:] > 0.39).all()
    assert torch.equal(capped(steered, plain, 0.4)[0], steered[0])
    assert torch.equal(capped(steered, plain, 0.0)[1:], plain[1:])


def test_the_band_holds_the_base_and_its_edge_is_the_first_window_outside():
    rows = [torch.tensor([1.0, 1.0, 4.0]), torch.tensor([2.0, 2.0, 2.0]), torch.tensor([9.0])]
    assert band(rows, 2, 1.0) == (1.0, 2.5)
    assert band(rows[2:], 2, 0.9) == (-math.inf, math.inf)
    policy = Policy(rewinds=1, window=2, band=(1.0, 2.5))
    assert left((2.0, 2.0, 4.0, 0.0), policy) == 2
    assert left((9.0,), policy) is None and left((2.0, 2.0, 1.0), policy) is None


def test_what_was_read_is_counted_token_by_token(net):
    (prompt, steps) = PROMPTS[1], 5
    n, how = len(prompt), {"ends": frozenset(), "max_new_tokens": 5, "seed": 4, "temperature": 0.0}
    found = write(net, Policy(), [prompt], [1.0], how=how)
    # The prompt is read once, then every token but the last; each attends to all before it and to itself.
    assert (found.read, found.predicted) == (n + steps - 1, steps)
    assert found.pairs == sum(range(1, n + steps))
    twice = write(net, Policy(cap_nats=1e9), [prompt], [1.0], how=how)
    assert (twice.read, twice.pairs, twice.predicted) == (2 * found.read, 2 * found.pairs, 2 * steps)


@EVERY
def test_a_batch_counts_what_single_rows_do(net, mode):
    alone = [write(net, MODES[mode], [p], [d]) for p, d in zip(PROMPTS, DOSES, strict=True)]
    both = write(net, MODES[mode], batch=3)
    for name in ("read", "pairs", "predicted"):
        assert getattr(both, name) == sum(getattr(w, name) for w in alone)


def test_who_has_used_up_its_rewinds_is_written_to_the_end(net):
    found = write(net, ONCE)
    last = [a for a, back in zip(found.answers, found.rewinds, strict=True) if back == ONCE.rewinds]
    assert last and all(len(a) == STEPS or a[-1] in HOW["ends"] for a in last)


@EVERY
def test_what_a_span_holds_after_a_row_has_left_is_not_counted(net, mode, monkeypatch):
    """On a GPU a step gives several tokens a row; here three single steps stand for one of those."""
    one = write(net, MODES[mode])
    step = replay.steps

    def span(model, cache, mask, tokens, most, draw, ended, *, even=False):
        out = []
        for s in range(min(3, most)):
            choose = lambda h, _, s=s: draw(h, torch.tensor([s]))
            found, known = step(model, cache, mask, tokens, most, choose, ended, even=even)
            tokens = found[:, 0]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            out.append(tokens)
        return torch.stack(out, 1), known

    monkeypatch.setattr(replay, "steps", span)
    found = write(net, MODES[mode])
    assert found == one
