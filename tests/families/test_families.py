"""Every family passes whole or is refused at the door: twelve that stand for the mechanisms, and with -m families all."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from families import checks, matrix, zoo
from steer_heal_love import doctor, presets
from steer_heal_love.ground import models, parts, reading

MECHANISMS = (
    "llama4-text",  # a window in chunks, a decoder under another name, fused experts
    "gemma3-multimodal",  # windows, text beside a vision tower
    "gemma3n-text",  # several streams in a layer's output
    "mistral",  # a window in every layer
    "gpt2",  # transposed weights, learned positions
    "mpt",  # positions that count columns
    "mamba2",  # a scan in every layer
    "qwen3-next",  # a recurrence between attention, shared experts
    "deepseek-v3.2",  # attention that is handed more than ours knows
    "falcon",  # a linear subclass with its own forward
    "phi3-longrope",  # positions that change with the longest row
    "t5gemma",  # refused
)


HARD = {
    "mamba2": ("cache = no cache", "steering"),  # its cache has another name
    "granitemoe-hybrid": ("gradient",),  # a router's edge lies within a step
    "deepseek-v3.2": ("gradient",),  # some modules only choose
}
"""what the doctor must not take amiss"""


SOON = 5
"""seconds until a refusal"""


def check(name: str, stages: Sequence[str] = matrix.QUICK) -> None:
    found = matrix.row(name, stages)
    assert found.verdict == ("refused" if name in matrix.REFUSED else "passes"), found.wrong or found.said
    assert found.verdict == "passes" or found.load_seconds < SOON


def test_every_root_cause_names_families_of_the_zoo():
    causes = tomllib.loads((Path(__file__).parent / "causes.toml").read_text(encoding="utf-8"))
    named = [name for cause in causes.values() for name in cause["families"]]
    assert causes and set(named) <= set(zoo.ZOO)


def test_most_prompts_are_longer_than_any_window_of_the_zoo():
    """Three of four, with their answers; windows, and what else changes a row's numbers from some length on."""
    least = checks.START + sorted(checks.OWN)[1] + checks.MORE
    for name in set(zoo.ZOO) - matrix.REFUSED:
        config = zoo.configured(zoo.ZOO[name], 300, 2).get_text_config(decoder=True)
        closing = [at for at in reading.closing(config) if math.isfinite(at)]
        assert all(at < least for at in closing), (name, closing)


@pytest.mark.parametrize("name", MECHANISMS)
def test_a_mechanism_is_read_as_its_rows_alone_and_exported_as_it_is(name):
    check(name)


@pytest.mark.families
@pytest.mark.parametrize("name", [n for n in zoo.ZOO if n not in MECHANISMS])
def test_a_family_is_read_as_its_rows_alone_and_exported_as_it_is(name):
    check(name, (*matrix.QUICK, "vector", "doctor"))


@pytest.mark.parametrize("name", HARD)
def test_the_doctor_does_not_take_a_mechanism_for_an_illness(name, tmp_path):
    case = matrix.loaded(name, tmp_path)
    patient = doctor.Patient(name, case.model, case.tok, presets.preset("cpu"))
    assert {what: doctor.checks[what].run(patient).verdict for what in HARD[name]} == dict.fromkeys(
        HARD[name], "well"
    )


def test_a_residual_stream_that_stays_in_fp32_is_spoken_by_a_head_in_bfloat16(tmp_path) -> None:
    model, tok = zoo.build("mamba2")
    model.save_pretrained(tmp_path)
    tok.save_pretrained(tmp_path)
    model, _ = models.load(str(tmp_path), device="cpu", dtype="bfloat16")
    ids = torch.arange(1, 9).unsqueeze(0)
    with torch.no_grad():
        hidden = parts.body(model)(ids).last_hidden_state[0]
        assert hidden.dtype is torch.float32 and model.dtype is torch.bfloat16
        for spoken in (parts.head(model, hidden), parts.voice(model)(hidden), parts.bare(model)(hidden)):
            torch.testing.assert_close(spoken.float(), model(ids).logits[0].float())
