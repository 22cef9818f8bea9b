"""Settings out of range: every number and every option has its limits, and all mistakes are told at once."""

from __future__ import annotations

import math

import pytest

from steer_heal_love import config, presets
from steer_heal_love.ground.errors import UserError

WRONG = {
    "rounds": 0,
    "batch_tokens": 0,
    "replicas": -1,
    "split": 0,
    "coherence_floor": -0.1,
    "patience": -1,
    "memory": "a lot",
    "vector.contexts": 1,
    "vector.layers": (0.7, 0.3),
    "vector.contrast": "pos",
    "generate.prompts": 0,
    "generate.max_new_tokens": 0,
    "generate.batch": 0,
    "generate.temperature": -1.0,
    "generate.min_p": 1.0,
    "walk.kind": "bisect",
    "walk.nats": 0.0,
    "walk.start": 0.0,
    "walk.span": 1.0,
    "walk.doses": 1,
    "walk.survival": 1.0,
    "walk.passes": 0,
    "walk.floor": 0.0,
    "walk.ceiling": 0.01,
    "adapt.half_life": -1.0,
    "adapt.cap_nats": -0.1,
    "adapt.rewinds": -1,
    "adapt.shrink": 0.0,
    "adapt.window": 0,
    "adapt.quantile": 0.0,
    "condition.layer": 1.0,
    "condition.cut": "median",
    "condition.value": 1.5,
    "condition.side": "under",
    "filter.quantile": 1.5,
    "filter.keep": 15,
    "filter.calibration": 0,
    "filter.least": 0,
    "heal.rank": 0,
    "heal.alpha": 0.0,
    "heal.layers": (0.5, 1.5),
    "heal.epochs": 0,
    "heal.lr": 0.0,
    "heal.batch": 0,
    "heal.micro_batch": 0,
    "heal.weight_decay": -0.1,
    "heal.spectral": -0.1,
    "heal.aggregate": "median",
    "heal.lam": -1.0,
    "heal.tau": -0.1,
    "heal.reference": "next",
    "heal.anchor": -1.0,
    "heal.anchor_prompts": -1,
    "heal.anchor_tokens": 0,
    "heal.anchor_batch": 0,
    "heal.anchor_validation": 1.0,
    "heal.validation": 1.0,
    "heal.soft": 1.01,
    "heal.teacher": -0.1,
    "heal.budget": -0.1,
    "heal.anchor_temperature": 0.0,
    "eval.probes": 0,
    "eval.probe_half": "third",
    "eval.vignettes": 0,
    "eval.vignette_view": "they",
    "eval.think_tokens": -1,
    "eval.paraphrases": 0,
    "eval.capability_blocks": 0,
    "eval.lm_eval_limit": -1,
    "eval.neutral_prompts": 0,
    "eval.neutral_kinds": ("short", "verse"),
    "eval.neutral_bank": "train",
    "eval.neutral_min_p": 1.0,
    "heal.anchor_kinds": (),
    "eval.transfer": "some",
    "eval.behaviour_prompts": 3,
    "eval.sample_prompts": -1,
    "eval.base_draws": 0,
    "eval.healed_draws": 0,
    "eval.sample_tokens": 0,
    "eval.temperature": -1.0,
    "eval.min_p": 1.0,
    "eval.resamples": 0,
}
"""a value just outside for every setting that has limits, against the other defaults"""
FREE = {
    "persona",
    "model",
    "template",
    "out",
    "device",
    "dtype",
    "ray",
    "trust_remote_code",
    "seed",
    "vector.method",
    "vector.hook",
    "generate.engine",
    "generate.engine_options",
    "adapt.operation",
    "condition.persona",
    "condition.file",
    "filter.checks",
    "heal.divergence",
    "eval.instruments",
    "eval.vignette_bank",
    "eval.judge_model",
    "eval.lm_eval_tasks",
    "eval.wordings",
    "eval.nulls",
    "eval.third_answers",
}
"""any seed will do; names and paths are looked up, with messages of their own"""


def changed(**values) -> config.RunConfig:
    """The defaults but for settings named with their room, set past the types that are checked in tests."""
    cfg = config.RunConfig()
    for name, value in values.items():
        *room, key = name.split(".")
        object.__setattr__(getattr(cfg, room[0]) if room else cfg, key, value)
    return cfg


def test_every_setting_is_limited_or_known_to_be_free():
    assert set(WRONG) | FREE == set(config.named(config.RunConfig())) and not set(WRONG) & FREE


@pytest.mark.parametrize("name", sorted(presets.PRESETS))
def test_every_preset_is_in_range(name):
    presets.preset(name).check()


@pytest.mark.parametrize(
    ("device", "model", "name"),
    [
        ("cpu", "smollm2", "cpu"),
        ("mps", "hub/model", "cpu"),
        ("cuda", "hub/model", "gpu"),
        ("cuda:1", "hub/model", "gpu"),
        ("cuda", "smollm2", "cpu"),
    ],
)
def test_the_gpu_preset_is_for_larger_models_on_cuda(device, model, name):
    assert presets.fitting(device, model) == presets.preset(name)
    assert presets.preset("gpu") != presets.preset("cpu")


def test_a_start_is_changed_and_without_one_the_preset_that_fits_is():
    small = presets.preset("cpu")
    large = presets.resolved({"device": "cuda", "model": "hub/model", "heal": {"lr": 1}})
    assert (large.heal.lr, large.generate) == (1.0, presets.preset("gpu").generate)
    assert presets.resolved({"device": "cuda", "model": "hub/model"}, small).generate == small.generate
    with pytest.raises(UserError, match="device: expected str, found 3"):
        presets.resolved({"device": 3})


def test_a_file_that_names_a_setting_that_is_gone_is_read_if_it_says_what_the_program_does(tmp_path):
    file = tmp_path / "config.toml"
    for room, gone in config.RETIRED.items():
        for key, value in gone.items():
            assert f"{room}.{key}" not in config.named(config.RunConfig())
            file.write_text(f"[{room}]\n{key} = {value}\nlr = 0.001\n")
            assert presets.read(file) == presets.resolved({room: {"lr": 0.001}})
            file.write_text(f"[{room}]\n{key} = {value + 1}\n")
            with pytest.raises(UserError, match=f"unknown setting '{room}.{key}'"):
                presets.read(file)


@pytest.mark.parametrize(("text", "size"), [("", 0.0), ("24GB", 24.0), (" 7.5 gb ", 7.5)])
def test_sizes_are_read(text, size):
    cfg = config.RunConfig(memory=text)
    cfg.check()
    assert cfg.memory_gb == size


@pytest.mark.parametrize("text", ["24", "lots", "-3GB", "24 MB"])
def test_what_is_no_size_is_named(text):
    with pytest.raises(UserError, match="24GB"):
        config.RunConfig(memory=text).check()


@pytest.mark.parametrize("name", WRONG)
def test_a_setting_out_of_range_is_named_with_what_was_found(name):
    with pytest.raises(UserError) as e:
        changed(**{name: WRONG[name]}).check()
    (line,) = str(e.value).splitlines()[1:]
    assert line.strip().startswith(f"{name}: ") and line.endswith(f"found {WRONG[name]!r}")


def test_all_of_them_are_told_at_once():
    with pytest.raises(UserError) as e:
        changed(**WRONG).check()
    told = {line.strip().partition(":")[0] for line in str(e.value).splitlines()[1:]}
    assert told == set(WRONG) - {"filter.keep", "walk.ceiling"}, "their limits are settings, wrong here too"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_is_finite(value):
    numbers = {n for n, wrong in WRONG.items() if isinstance(wrong, float)}
    with pytest.raises(UserError) as e:
        changed(**dict.fromkeys(numbers, value)).check()
    assert {n for n in numbers if f"  {n}: " in str(e.value)} == numbers


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"persona": "joy", "file": "x.safetensors"}, "one of the two"),
        ({"file": "x.safetensors", "value": 0.2}, "has its own"),
        ({"side": "below"}, "of no condition"),
        ({"persona": "joy", "cut": "quantile"}, "a quantile, above 0 and below 1, found 0.0"),
        ({"persona": "joy", "value": 0.2}, "of condition.cut quantile or threshold"),
    ],
)
def test_a_condition_that_contradicts_itself_is_refused(told, words):
    with pytest.raises(UserError, match=words):
        config.RunConfig(condition=config.ConditionConfig(**told)).check()


@pytest.mark.parametrize(
    "told", [{}, {"persona": "joy"}, {"file": "x"}, {"persona": "joy", "cut": "threshold", "side": "below"}]
)
def test_a_condition_that_says_one_thing_is_fine(told):
    config.RunConfig(condition=config.ConditionConfig(**told)).check()


def test_zero_is_fine_where_it_means_off():
    off = [
        "heal.lam",
        "heal.anchor",
        "heal.anchor_prompts",
        "heal.budget",
        "heal.soft",
        "heal.teacher",
        "heal.spectral",
        "heal.weight_decay",
        "heal.tau",
        "heal.validation",
        "heal.anchor_validation",
        "eval.sample_prompts",
        "eval.lm_eval_limit",
        "eval.think_tokens",
        "patience",
        "generate.min_p",
        "eval.neutral_min_p",
        "generate.temperature",
    ]
    zero = {n: 0 if isinstance(WRONG[n], int) else 0.0 for n in off}
    changed(**zero).check()
