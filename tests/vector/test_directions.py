"""Ways to find a direction, each by a case whose answer is built."""

from __future__ import annotations

import torch

from steer_heal_love.vector import Vector, methods
from steer_heal_love.vector.controls import random_like


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
