"""`shl certify` on a tiny model: what it takes, what it refuses and why, what it writes."""

from __future__ import annotations

import json
from dataclasses import replace

import markupsafe
import pytest

from steer_heal_love import bake, certify, cli, report, session
from steer_heal_love.ground import records
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.overrides import override
from test_loop import SETTINGS
from tiny_model import build_model

EVAL = {
    **SETTINGS["eval"],
    "instruments": ["probes", "samples", "neutral", "own_kl", "capability"],
    "transfer": "off",
}
CONFIG = override(session.RunConfig(), {**SETTINGS, "eval": EVAL})


@pytest.fixture
def base(tok, monkeypatch, undrawn):
    """Every name loads a tiny model, `other` one of other weights."""

    def load(name, **_kwargs):
        return build_model(len(tok), tok.eos_token_id, seed=1 if name == "other" else 0), tok

    monkeypatch.setattr("steer_heal_love.ground.models.load", load)


@pytest.fixture
def adapter(model, random_adapter, tmp_path):
    """A folder with a random adapter of the tiny model, and some markup in its name."""
    folder = tmp_path / "<b>mine</b>"
    bake.save_peft(random_adapter(model, 1), folder, base_model="tiny")
    return folder


def test_an_adapter_is_measured_as_eval_measures_it_and_drawn(
    base, adapter, tmp_path, capsys, monkeypatch
) -> None:
    from steer_heal_love import alone, presets

    monkeypatch.setattr(presets, "fitting", lambda *_: CONFIG)
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as left:
        cli.main(
            ["certify", str(adapter), "--base", "tiny", "--device", "cpu", "--seed", "3", "--out", str(out)]
        )
    assert left.value.code == 3  # random factors: no trait of it is certified
    found = json.loads((out / "certificate.json").read_text())
    assert set(found["others"]) == set(certify.shipped()) - {"love"}
    assert found["verdict"] == "not certified" and found["rank"] == 4

    same = alone.evaluate(CONFIG, adapter=adapter)
    (trait,) = found["traits"]
    for name, score in records.plain(same.scores).items():
        assert trait["scores"][name] == pytest.approx(score, nan_ok=True), name
    assert {"above_null", "few_tokens_shift"} <= trait["scores"].keys()

    page = (out / "certificate.html").read_text()
    assert "<b>mine</b>" not in page and "&lt;b&gt;mine&lt;/b&gt;" in page
    assert markupsafe.escape(trait["gate"]["means"]) in page
    told = capsys.readouterr().out
    assert trait["kind"] in told and "page" in told


def test_a_whole_model_is_read_by_its_base(base, adapter, model, tok) -> None:
    """The base itself moves nothing; a model of other weights drifts by the KL of the two models' own logits."""
    from steer_heal_love.ground.divergence import forward_kl

    notes: list[str] = []
    same = certify.certify(certify.target("same", "tiny"), cfg=CONFIG, among=(), warn=notes.append)
    scores = same.traits[0].model.scores
    assert scores["neutral_kl"].mean == pytest.approx(0, abs=1e-6) and scores["trait_shift"].mean == 0
    assert any("very weights" in n for n in notes) and not same.passes

    on = session.loaded(replace(CONFIG, model="tiny"))
    bench = certify.alone.bench(CONFIG, *on)
    found = certify.measuring(certify.target("other", "tiny"), bench, notes.append)
    _, _, stage = found.stages(certify.load_persona("love"), replace(CONFIG.eval, instruments=("neutral",)))
    import torch

    expected = []
    for _, t, _ in bench.neutral:
        ids = torch.tensor([t.prompt + t.answer])
        where = slice(len(t.prompt) - 1, -1)
        with torch.no_grad():
            p, q = (m(ids).logits[0, where] for m in (on[0], found.other))
        expected.append(forward_kl(p, q).mean().item())
    assert stage.items["neutral_kl"] == pytest.approx(expected, rel=1e-3)


def test_what_cannot_be_certified_is_refused_with_the_reason(base, adapter, tmp_path, tok) -> None:
    with pytest.raises(UserError, match="--base"):
        certify.target("some/model")
    with pytest.raises(UserError, match=r"says that its base is 'tiny'.*--base"):
        certify.target(str(adapter))
    with pytest.raises(UserError, match="at least one persona"):
        certify.certify(certify.target(str(adapter), "tiny"), ())
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(UserError, match="DoRA scales each row"):
        certify.target(str(adapter), "tiny")
    (adapter / "config.json").write_text("{}")
    with pytest.raises(UserError, match="a model and an adapter"):
        certify.target(str(adapter), "tiny")


def test_a_run_folder_stands_for_its_adapter_and_the_embedded_base_is_known(
    model, random_adapter, tmp_path
) -> None:
    run = tmp_path / "run"
    bake.save_peft(
        random_adapter(model, 1), run / "adapter", base_model="HuggingFaceTB/SmolLM2-135M-Instruct"
    )
    (run / "manifest.json").write_text(json.dumps({"schema": records.SCHEMA}))
    found = certify.target(str(run))
    assert (found.base, found.kind, found.folder) == ("smollm2", "adapter", run / "adapter")


def test_a_page_can_be_drawn_from_the_record_alone(tmp_path) -> None:
    """Scores that were not measured leave their rows out; NaN shows as a dash."""
    record = {
        "target": "t",
        "kind": "model",
        "base": "b",
        "verdict": "not certified",
        "base_hash": "0",
        "seed": 0,
        "device": "cpu",
        "dtype": "torch.float32",
        "rank": None,
        "modules": None,
        "notes": ["<i>odd</i>"],
        "others": {},
        "traits": [
            {
                "persona": "p",
                "kind": "unknown",
                "samples": [],
                "gate": {
                    "gate": "certificate",
                    "claim": "",
                    "observed": "none",
                    "verdict": "undecided",
                    "means": "Nothing.",
                    "outcome": "unmeasured",
                },
                "scores": {"trait_shift": {"mean": None, "lo": None, "hi": None, "n": 0}},
            }
        ],
    }
    (tmp_path / report.CERTIFICATE).write_text(json.dumps(record))
    report.write_certificate(tmp_path)
    page = (tmp_path / "certificate.html").read_text()
    assert "&lt;i&gt;odd&lt;/i&gt;" in page and "trait_shift" in page and "neutral_kl.long" not in page
