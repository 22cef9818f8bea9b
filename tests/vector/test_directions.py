"""Ways to find a direction, each by a case whose answer is built."""

from __future__ import annotations

import pytest
import torch

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.operations import operations
from steer_heal_love.ground.places import Directions
from steer_heal_love.ground.writers import Writers
from steer_heal_love.vector import Vector, methods
from steer_heal_love.vector.controls import random_like, unrelated_like


def test_a_logistic_normal_lies_along_the_step_where_the_spread_is_mirrored_about_it():
    neg = torch.cat([torch.eye(6), -torch.eye(6)])
    step = torch.zeros(6)
    step[2] = 3.0
    (found,) = methods["logistic"]({0: neg + step}, {0: neg}).values()
    assert torch.allclose(found, step, atol=1e-4)


def test_a_logistic_normal_discounts_the_axis_that_varies():
    draw = torch.Generator().manual_seed(0)
    spread = torch.tensor([8.0, 0.2, 0.2, 0.2])
    neg = torch.randn(60, 4, generator=draw) * spread
    pos = torch.randn(60, 4, generator=draw) * spread + torch.tensor([2.0, 2.0, 0.0, 0.0])
    probe, mean = (methods[m]({0: pos}, {0: neg})[0] for m in ("logistic", "mean_diff"))
    quiet = torch.tensor([0.0, 1.0, 0.0, 0.0])
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(probe, quiet, dim=0) > 0.95 > cosine(mean, quiet, dim=0)


def test_the_best_cluster_leaves_out_a_pair_that_disagrees():
    step = torch.tensor([1.0, 2.0, 0.0])
    pos = {0: torch.stack([step, step, step, -step])}
    found = methods["cluster_diff"](pos, {0: torch.zeros(4, 3)})
    assert torch.allclose(found[0], step)


def test_a_random_control_has_the_norm_and_not_the_direction():
    v = Vector({1: torch.ones(64), 3: 5 * torch.ones(64)})
    one, again, other = (random_like(v, seed) for seed in (0, 0, 1))
    for i, direction in v.directions.items():
        assert torch.allclose(one.directions[i].norm(), direction.norm())
        assert torch.equal(one.directions[i], again.directions[i])
    assert abs(v.cosine(one)) < 0.5 and abs(one.cosine(other)) < 0.5


def test_the_map_of_linear_transport_carries_the_neg_poles_quantiles_onto_the_pos_poles():
    draw = torch.Generator().manual_seed(0)
    neg = torch.randn(50, 4, generator=draw)
    slope, offset = torch.tensor([0.5, 1.0, 2.0, 1.0]), torch.tensor([0.0, 3.0, -1.0, 0.0])
    pos = (slope * neg + offset)[torch.randperm(50, generator=draw)]  # which context is which is no matter
    found = methods["linear_act"]({0: pos}, {0: neg})[0]
    assert torch.allclose(found, torch.stack([slope - 1, offset]), atol=1e-4)
    moved = neg + operations["transport"](neg[None], found, 1.0)[0]
    assert torch.allclose(moved.sort(0).values, pos.sort(0).values, atol=1e-4)
    flat = methods["linear_act"]({0: torch.full((3, 1), 5.0)}, {0: torch.full((3, 1), 2.0)})[0]
    assert torch.equal(flat, torch.tensor([[0.0], [3.0]]))


def test_what_a_map_moves_is_the_poles_mean_difference_on_the_neg_states():
    draw = torch.Generator().manual_seed(0)
    pos, neg = ({0: 2 * torch.randn(40, 6, generator=draw)} for _ in range(2))
    found = Vector(Directions(methods["linear_act"](pos, neg), operation="transport"))
    want = methods["mean_diff"](pos, neg)
    assert torch.allclose(found.moves(neg)[0], want[0], atol=1e-4)
    assert torch.allclose(Vector(want).moves(neg)[0], want[0], atol=1e-5)


class Known(Writers):
    """Writers whose weights are given."""

    def __init__(self, *weights: torch.Tensor):
        self._grams = {i: w @ w.T for i, w in enumerate(weights)}


@pytest.mark.parametrize("method", ["writer_svd", "writer_svd_pooled"])
def test_the_contrast_is_kept_where_the_writers_write_and_dropped_where_they_hardly_do(method):
    axis = torch.eye(5)
    first, second = (torch.diag(torch.tensor(v)) for v in ([9.0, 9, 1, 1, 1], [1.0, 1, 1, 30, 1]))
    neg = torch.zeros(4, 5)
    step = torch.ones(5)
    found = methods[method]({0: neg + step, 1: neg + step}, {0: neg, 1: neg}, Known(first, second))
    assert torch.allclose(found[0], axis[0] + axis[1], atol=1e-5)  # both are needed for half of the squares
    assert torch.allclose(found[1], axis[3], atol=1e-5)
    again = methods[method](
        {i: v.expand(2, 5) for i, v in found.items()}, dict.fromkeys(found, neg[:2]), Known(first, second)
    )
    assert all(torch.allclose(again[i], v, atol=1e-5) for i, v in found.items())


def test_pooled_writers_are_those_of_all_layers_up_to_the_vectors():
    one, two = torch.zeros(3, 3), torch.zeros(3, 3)
    one[0, 0], two[1, 1] = 5.0, 1.0
    states = {1: torch.ones(2, 3)}, {1: torch.zeros(2, 3)}
    assert torch.allclose(methods["writer_svd_pooled"](*states, Known(one, two))[1], torch.eye(3)[0])
    assert torch.allclose(methods["writer_svd"](*states, Known(one, two))[1], torch.eye(3)[1])


def test_an_unrelated_control_is_the_least_alike_of_the_others_at_this_ones_norms():
    axis = torch.eye(4)
    v = Vector({0: 2 * axis[0], 1: 3 * axis[0]})
    others = {"near": Vector({0: axis[0], 1: axis[0]}), "far": Vector({0: 5 * axis[1], 1: -7 * axis[2]})}
    found = unrelated_like(v, others)
    assert found.meta["persona"] == "far" and v.cosine(found) == 0.0
    assert torch.equal(found.directions[0], 2 * axis[1]) and torch.equal(found.directions[1], -3 * axis[2])
    with pytest.raises(UserError, match="another persona"):
        unrelated_like(v, {})
