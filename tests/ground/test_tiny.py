"""The tiny model and the floor it gives the other tests."""

from __future__ import annotations

import socket

import pytest
import torch


def test_network_is_blocked():
    with socket.socket() as s, pytest.raises(RuntimeError, match="network"):
        s.connect(("127.0.0.1", 9))


def test_shapes_are_checked():
    from jaxtyping import TypeCheckError

    from steer_heal_love.ground.divergence import forward_kl

    with pytest.raises(TypeCheckError):
        forward_kl(torch.zeros(2, 3), torch.zeros(3, 3))


def test_tiny_model_is_far_from_uniform(tiny):
    logits = tiny.model(torch.arange(1, 40)[None]).logits[0]
    p = logits.softmax(-1)
    assert p.amax(-1).mean() > 5 / len(tiny.tok)
    assert len(set(logits.argmax(-1).tolist())) > 5
