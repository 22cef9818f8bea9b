"""A healthy model passes every check; a model that is made sick in one way fails the check for it."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional

from steer_heal_love import bake, cli, doctor, presets
from steer_heal_love.doctor.gradient import sloped
from steer_heal_love.doctor.plan import work
from steer_heal_love.doctor.screen import screen, summary
from steer_heal_love.ground import fused, loading, models, reading
from steer_heal_love.ground.hooks import Doses
from tiny_model import TURNS, build_model, build_tokenizer, hooks_of


@pytest.fixture
def patient(tiny):
    return doctor.Patient("tiny", tiny.model, tiny.tok, presets.preset("cpu"))


def verdict(patient, name) -> str:
    """One check's verdict, as `examine` gives it."""
    only = {name: doctor.checks[name]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "checks", only)
        (found,) = doctor.examine(patient)
    assert found.verdict == "well" or found.do, found
    return found.verdict


def test_a_healthy_model_passes_every_check_and_is_left_as_it_was(patient, bits):
    before = bits(patient.model)
    found = doctor.examine(patient)
    assert [f.check for f in found if f.verdict in ("fails", "skipped")] == []
    assert len(found) == len(doctor.checks) and "All well" in summary(found)
    assert hooks_of(patient.model) == 0 and not any(w.requires_grad for w in patient.model.parameters())
    after = patient.model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(before[n], after[n]) for n in before)


def inputs(change):
    """Sick in what the decoder is given."""

    def make(model, _patch):
        body, well = model.model, model.model.forward
        body.forward = lambda *args, **kwargs: well(*args, **change(kwargs))

    return make


def embedding(change):
    """Sick in the embedding's output."""

    def make(model, _patch):
        layer, well = model.model.embed_tokens, model.model.embed_tokens.forward
        layer.forward = lambda ids: change(well(ids))

    return make


def stale(model, _patch):
    """A layer that computes with a copy of its weight."""
    layer = model.model.layers[2].mlp.up_proj
    kept = layer.weight.detach().clone()
    layer.forward = lambda x: functional.linear(x, kept)


def detached(model, _patch):
    layer, well = model.model.norm, model.model.norm.forward
    layer.forward = lambda x: well(x).detach()


def upside_down(_model, patch):
    from steer_heal_love.ground import places

    real = places.layers
    patch.setattr(places, "layers", lambda model: real(model)[::-1])


def only_the_prompt(_model, patch):
    real = Doses.of
    patch.setattr(Doses, "of", lambda self, h: 0.0 if h.shape[1] == 1 else real(self, h))


def half(_model, patch):
    real = bake.save_peft
    patch.setattr(bake, "save_peft", lambda a, folder, **how: real(a.scaled(0.5), folder, **how))


SICK = {
    "batch = single": embedding(lambda h: h * (1 + 0.05 * (len(h) - 1))),
    "padding": embedding(lambda h: h + 0.3 * h.mean(1, keepdim=True)),  # sees what follows, padding too
    "cache = no cache": embedding(lambda h: h * (1.1 if h.shape[1] == 1 else 1)),
    "layers": upside_down,
    "identity": embedding(lambda h: h + 0.01 * torch.randn_like(h)),
    "steering": only_the_prompt,
    "trees": inputs(lambda k: k | {"attention_mask": None}),
    "fold": stale,
    "gradient": detached,
    "heal": detached,
    "export": half,
}


@pytest.mark.parametrize("name", SICK)
def test_a_model_that_is_sick_in_one_way_fails_the_check_for_it(patient, name, monkeypatch):
    """It falls sick once its way of reading is known: one that is tried while sick is read around its fault."""
    reading.way(patient.model)
    SICK[name](patient.model, monkeypatch)
    assert verdict(patient, name) == "fails"


def test_text_that_only_repeats_is_no_false_alarm(patient):
    """One token whatever happens: states still move, and are what the checks compare."""
    with torch.no_grad():
        patient.model.lm_head.weight[5] *= 1000
    for name in ("steering", "layers", "identity"):
        assert verdict(patient, name) == "well"


def test_an_end_past_the_head_fails_and_none_in_the_template_is_noted(model):
    tok = build_tokenizer(TURNS.replace("<|im_end|>", ""))
    # Turns begin with a mark of their own, which is then what ends an answer; without any mark nothing does.
    tok.chat_template = tok.chat_template.replace("<|im_start|>", "")
    patient = doctor.Patient("tiny", model, tok, presets.preset("cpu"))
    assert verdict(patient, "end of turn") == "note"
    model.generation_config.eos_token_id = [10**6]
    assert verdict(doctor.Patient("tiny", model, tok, presets.preset("cpu")), "end of turn") == "fails"


def test_an_end_that_was_never_trained_is_noted(patient):
    with torch.no_grad():
        patient.model.lm_head.weight[patient.tok.eos_token_id] *= 1e-4
    assert verdict(patient, "end of turn") == "note"


def test_a_model_that_is_decoded_without_its_cache_is_noted_and_told_when_loaded(patient, monkeypatch):
    monkeypatch.setattr(reading.Trial, "goes_on", lambda *_args, **_how: False)
    reading.forget(patient.model)
    with pytest.warns(UserWarning, match="decoded without its cache"):
        models.placed(patient.model, "cpu")
    assert loading.notes(patient.model) == loading.notes(patient.model, "cache") == (models.UNCACHED,)
    found = doctor.checks["cache = no cache"].run(patient)
    assert found.verdict == "note" and models.UNCACHED in found.seen


def test_kernels_that_are_left_out_are_noted(patient, monkeypatch):
    monkeypatch.setattr("steer_heal_love.doctor.dtype.auto_dtype", lambda _device: patient.model.dtype)
    assert verdict(patient, "number type") == "well"
    loading.note(patient.model, "kernels", fused.LEFT_OUT)
    found = doctor.checks["number type"].run(patient)
    assert found.verdict == "note" and fused.LEFT_OUT in found.seen


def test_a_config_that_miscounts_the_layers_fails(patient):
    patient.model.config.num_hidden_layers += 1
    assert verdict(patient, "layers") == "fails"


def test_a_number_type_other_than_the_devices_own_is_noted(tok):
    model = build_model(len(tok), tok.eos_token_id).to(torch.float16)
    assert verdict(doctor.Patient("tiny", model, tok, presets.preset("cpu")), "number type") == "note"


def test_the_longest_prompt_passes_the_window(tok):
    model = build_model(len(tok), tok.eos_token_id)
    model.config.sliding_window = 150
    patient = doctor.Patient("tiny", model, tok, presets.preset("cpu"))
    assert patient.window == 150 and max(map(len, patient.prompts)) > 150


def test_twice_the_rounds_is_more_work_of_every_kind():
    one, two = (work(presets.resolved({"rounds": n}), 40) for n in (1, 2))
    assert two.decoded > one.decoded and two.read > one.read and two.trained == 2 * one.trained


def test_what_a_model_calls_itself_is_not_markup(patient, capsys):
    from rich.console import Console

    odd = doctor.Patient("[red]x[/red]", patient.model, patient.tok, patient.config)
    Console(width=120).print(screen(odd, [doctor.Finding("a", "[bold]b", "note", "[/c]")]))
    shown = capsys.readouterr().out
    assert "[red]x[/red]" in shown and "[bold]b" in shown and "[/c]" in shown


def test_the_command_prints_json_and_exits_with_3_when_a_check_fails(tok, capsys, monkeypatch):
    monkeypatch.setattr(
        "steer_heal_love.ground.models.load",
        lambda _name, **_how: (build_model(len(tok), tok.eos_token_id), tok),
    )
    monkeypatch.setattr(doctor, "checks", {n: doctor.checks[n] for n in ("template", "export")})
    cli.main(["doctor", "--model", "tiny", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (told["fails"], [c["check"] for c in told["checks"]]) == (False, ["template", "export"])
    half(None, monkeypatch)
    with pytest.raises(SystemExit) as stop:
        cli.main(["doctor", "--model", "tiny"])
    assert stop.value.code == 3 and "export" in capsys.readouterr().out


def test_a_step_so_small_that_rounding_decides_does_not_count():
    """Both sides of the smallest step agree on half as much again, by rounding; the larger ones bend a little."""
    x = torch.zeros(1, dtype=torch.float64)
    rounded = lambda: ((x + x.pow(2) / 2).sum() / 3e-5).round() * 3e-5
    found = sloped(rounded, [x], [torch.ones(1, dtype=torch.float64)], [0.005, 1e-3, 2e-4, 2e-5])
    assert abs(found - 1) < 0.01 and x.abs().max() < 1e-12
