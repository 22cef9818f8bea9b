"""The numbers under everything, over drawn values: finite where they are defined, never on the wrong side of 0, the same
in any order, and those of a reference that is computed otherwise in float64."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fuzz import fuzz
from steer_heal_love.ground.divergence import entropy, forward_kl, reverse_kl
from steer_heal_love.ground.stats import bootstrap, crossed, paired, proportion, ratio, unpaired, wilson
from steer_heal_love.ground.weights import rounded

EXTREME = 1e4
"""of a logit; models reach about 1e2"""


def logits(most: float = EXTREME):
    """Two rows of tokens' logits of one shape, of ordinary size or extreme, equal now and then."""
    size = st.sampled_from([1.0, 30.0, most])
    shape = st.tuples(st.integers(1, 4), st.integers(2, 9))

    def pair(of):
        (t, v), scale = of
        row = arrays(np.float32, (t, v), elements=st.floats(-scale, scale, width=32))
        return st.one_of(st.tuples(row, row), row.map(lambda x: (x, x.copy())))

    return st.tuples(shape, size).flatmap(pair)


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    top = x.max(-1, keepdims=True)
    return x - top - np.log(np.exp(x - top).sum(-1, keepdims=True))


def reference_kl(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    p, q = log_softmax(a), log_softmax(b)
    return (np.exp(p) * (p - q)).sum(-1)


@fuzz(pair=logits(), seed=st.integers(0, 99))
def test_kl_is_the_float64_references_never_below_zero_and_has_no_order(pair, seed):
    a, b = map(torch.from_numpy, pair)
    found = forward_kl(a, b)
    within = 4e-6 * (1 + max(np.abs(x).max() for x in pair))
    assert torch.isfinite(found).all() and (found >= 0).all()
    assert np.allclose(found.double().numpy(), reference_kl(*pair), rtol=1e-5, atol=within)
    assert torch.equal(reverse_kl(a, b), forward_kl(b, a))
    if np.array_equal(*pair):
        assert (found == 0).all()
    order = torch.randperm(a.shape[1], generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(forward_kl(a[:, order], b[:, order]), found, rtol=1e-5, atol=within)
    assert torch.equal(forward_kl(a.flip(0), b.flip(0)), found.flip(0))


@fuzz(pair=logits(2.0**127), out=st.integers(0, 8))
def test_tokens_that_are_ruled_out_make_no_number_undefined(pair, out):
    a, b = (torch.from_numpy(x.copy()) for x in pair)
    a[:, out % a.shape[1]] = -math.inf
    assert not forward_kl(a, b).isnan().any() and (forward_kl(a, b) >= 0).all()
    assert not entropy(a).isnan().any()
    b[:, out % a.shape[1]] = -math.inf
    assert not forward_kl(a, b).isnan().any()


@fuzz(pair=logits())
def test_entropy_lies_between_none_and_all_tokens_alike(pair):
    x, _ = pair
    found, p = entropy(torch.from_numpy(x)).double().numpy(), log_softmax(x)
    assert (found >= -1e-5).all() and (found <= math.log(x.shape[1]) + 1e-5).all()
    assert np.allclose(found, -(np.exp(p) * p).sum(-1), rtol=1e-4, atol=4e-6 * (1 + np.abs(x).max()))


NUMBERS = st.one_of(
    st.floats(-1e6, 1e6), st.sampled_from([0.0, 1.0, -1.0, 1e-300, 1e100, -1e100, math.nan, math.inf])
)
LISTS = st.lists(NUMBERS, max_size=12)


def sound(s, values) -> None:
    """n counts what is finite, the mean is theirs, and the interval, where there is one, holds it."""
    x = [v for v in values if math.isfinite(v)]
    assert s.n == len(x)
    if not x:
        assert math.isnan(s.mean)
        return
    assert math.isclose(s.mean, math.fsum(x) / len(x), rel_tol=1e-9, abs_tol=1e-9 * max(map(abs, x)))
    if len(x) > 1:
        assert math.isfinite(s.lo) and math.isfinite(s.hi) and s.lo <= s.mean <= s.hi


@fuzz(values=LISTS, seed=st.integers(0, 99))
def test_a_mean_and_its_interval_are_sound_and_have_no_order(values, seed):
    s = bootstrap(values, resamples=50, seed=seed)
    sound(s, values)
    turned = bootstrap(values[::-1], resamples=50, seed=seed)
    assert turned.n == s.n
    assert s.n == 0 or math.isclose(turned.mean, s.mean, rel_tol=1e-9, abs_tol=1e-9 * abs(s.hi - s.lo or 1))


@fuzz(pairs=st.lists(st.tuples(NUMBERS, NUMBERS), max_size=12))
def test_pairs_are_the_mean_of_their_differences(pairs):
    a, b = [p[0] for p in pairs], [p[1] for p in pairs]
    sound(paired(a, b, resamples=50), [x - y for x, y in pairs])
    apart, both = unpaired(a, b), [[v for v in side if math.isfinite(v)] for side in (a, b)]
    if all(both):
        assert apart.n == sum(map(len, both)) and math.isfinite(apart.mean)
        if min(map(len, both)) > 1:
            assert apart.lo <= apart.mean <= apart.hi


@fuzz(
    table=st.integers(1, 6).flatmap(
        lambda n: st.lists(st.lists(st.floats(-1e6, 1e6), min_size=n, max_size=n), min_size=1, max_size=4)
    )
)
def test_items_crossed_with_seeds_have_the_grand_mean_and_no_order_of_seeds(table):
    s = crossed(table, resamples=50)
    flat = [v for row in table for v in row]
    assert s.n == len(table[0])
    assert math.isclose(s.mean, math.fsum(flat) / len(flat), rel_tol=1e-9, abs_tol=1e-6)
    turned = crossed(table[::-1], resamples=50)
    if s.n > 1:
        assert s.lo <= s.mean <= s.hi
        assert math.isclose(turned.lo, s.lo, rel_tol=1e-6, abs_tol=1e-6 * max(1.0, max(map(abs, flat))))


@fuzz(values=st.lists(st.floats(0, 1), max_size=12), hits=st.integers(0, 40), more=st.integers(0, 40))
def test_shares_stay_shares(values, hits, more):
    s = proportion(values)
    assert s.n == len(values)
    if s.n > 1:
        assert 0 <= s.lo <= s.mean <= s.hi <= 1
    if n := hits + more:
        lo, hi = wilson(hits / n, n)
        assert 0 <= lo <= hits / n <= hi <= 1


@fuzz(pairs=st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=2, max_size=8))
def test_a_ratio_is_the_ratio_of_the_means_and_its_interval_holds_it(pairs):
    part, whole = [p[0] for p in pairs], [p[1] for p in pairs]
    s = ratio(part, whole, resamples=20)
    below = math.fsum(whole) / len(whole)
    if abs(below) > 1e-3:
        assert math.isclose(s.mean, math.fsum(part) / len(part) / below, rel_tol=1e-6, abs_tol=1e-9)
    if math.isfinite(s.lo + s.hi):
        assert s.lo <= s.mean <= s.hi


@fuzz(
    x=arrays(np.float32, (3, 4), elements=st.floats(-6e4, 6e4, width=32)),
    half=st.sampled_from([torch.bfloat16, torch.float16]),
)
def test_a_rounded_weight_is_one_of_its_two_neighbours(x, half):
    exact = torch.from_numpy(x)
    found, nearest = rounded(exact, half, "w"), exact.to(half)
    assert torch.isfinite(found).all() and torch.equal(rounded(exact, torch.float32, "w"), exact)
    up, down = (torch.nextafter(nearest, torch.full_like(nearest, side)) for side in (math.inf, -math.inf))
    assert ((found == nearest) | (found == up) | (found == down)).all()
    held = nearest.float() == exact
    assert torch.equal(found[held], nearest[held])


@fuzz(factors=arrays(np.float32, (2, 2, 3, 4), elements=st.floats(-10, 10, width=32)), s=st.floats(-4, 4))
def test_folded_rounds_are_the_float64_sum_in_either_order(factors, s):
    from steer_heal_love.bake import stack
    from steer_heal_love.nouns import Adapter

    rounds = [
        Adapter({"w": (torch.from_numpy(f[0]), torch.from_numpy(f[1]).T.contiguous())}, s) for f in factors
    ]
    exact = sum(s * f[1].T.astype(np.float64) @ f[0].astype(np.float64) for f in factors)
    for order in (rounds, rounds[::-1]):
        whole = stack(order)
        a, b = whole.factors["w"]
        assert np.allclose((whole.scaling * (b @ a)).double().numpy(), exact, rtol=1e-4, atol=1e-2)
