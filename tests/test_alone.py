"""A run and `shl eval` measure the base alike: same banks, same answers, same samples; and the prompt's best wording."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from steer_heal_love import alone, bake, base, evals, session
from steer_heal_love.evals import neutral, wording
from steer_heal_love.ground import banks, records
from steer_heal_love.ground.overrides import override
from steer_heal_love.ground.progress import silent
from steer_heal_love.nouns import WORDINGS, Adapter
from test_loop import SETTINGS
from tiny_model import build_model

ASKED = {
    **SETTINGS["eval"],
    "instruments": ["probes", "samples", "neutral", "own_kl", "text_auc"],
    "sample_tokens": 5,
    "base_draws": 2,
}


@pytest.fixture
def begun(tok, monkeypatch, tmp_path):
    """A run whose base has been measured."""
    monkeypatch.setattr(
        "steer_heal_love.ground.models.load",
        lambda _name, **_kwargs: (build_model(len(tok), tok.eos_token_id), tok),
    )
    made = session.created(None, {**SETTINGS, "eval": ASKED, "out": str(tmp_path)}, silent)
    return session.Run.on(made, base.measured(made))


def test_the_base_is_the_same_in_a_run_and_alone_and_the_prompt_the_best_wording(begun) -> None:
    found = alone.evaluate(begun.config)
    base, told = begun.stages
    assert [s["ids"] for s in found.samples] == [s["ids"] for s in base.samples]
    assert len(base.redrawn) == len(base.samples)
    assert found.items.keys() == base.items.keys()
    for name, values in base.items.items():
        assert found.items[name] == pytest.approx(values, abs=1e-5, nan_ok=True), name
    assert base.scores["text_auc"].n == ASKED["sample_prompts"]

    chosen = records.read_json(begun.folder.path / "base" / "wording.json")
    assert len(chosen["tried"]) == len(WORDINGS) >= 5
    assert len({t["system"] for t in chosen["tried"]}) == len(WORDINGS)
    best = max(chosen["tried"], key=lambda t: t["trait_shift"]["mean"])
    assert chosen["system"] == best["system"]
    again = alone.evaluate(begun.config, system=chosen["system"])
    assert again.scores["trait_shift"].mean == pytest.approx(told.scores["trait_shift"].mean, abs=1e-5)


def test_the_wording_is_chosen_on_the_search_half_alone(tiny, persona) -> None:
    """Answers of the report half are made the likeliest under another wording; the choice stays."""
    config = override(session.RunConfig(), {**SETTINGS, "eval": ASKED}).eval
    subject = evals.Subject(tiny.model, tiny.tok, persona, config, [])
    found = wording.choose(subject)
    other = tuple(replace(p, pos=p.neg, neg=p.pos) if i % 2 else p for i, p in enumerate(persona.probes))
    assert wording.choose(replace(subject, persona=replace(persona, probes=other))) == found
    assert found.system == persona.system("pos", found.wording)
    assert found.tried[0].trait_shift.n == len(persona.probes[::2])


def test_drift_and_the_anchor_are_made_of_all_kinds_in_equal_shares(begun) -> None:
    cfg = begun.config
    kinds = [kind for kind, _ in neutral.prompts(cfg.eval)]
    assert sorted(kinds) == sorted(banks.KINDS)
    assert [e.prompt for e in begun.base.anchor] == [t for _, t in banks.mix(banks.KINDS, "train", 4)]
    items = begun.stages[0].items
    assert [v for kind in kinds for v in items[f"neutral_kl.{kind}"]] == items["neutral_kl"]


def test_sealed_prompts_are_opened_only_by_name() -> None:
    every = {part: {t for k in banks.KINDS for t in banks.bank(banks.named(k, part))} for part in banks.PARTS}
    default, sealed = session.RunConfig().eval, replace(session.RunConfig().eval, neutral_bank="sealed")
    assert {t for _, t in neutral.prompts(default)} <= every["heldout"]
    assert {t for _, t in neutral.prompts(sealed)} <= every["sealed"]
    assert not every["sealed"] & (every["train"] | every["heldout"])


@pytest.mark.parametrize("n", [1, 3, 10, 96, 200])
def test_a_mix_is_even_in_every_stretch(n: int) -> None:
    found = banks.mix(banks.KINDS, "heldout", n)
    counts = [sum(kind == k for kind, _ in found) for k in banks.KINDS]
    full = [min(len(banks.bank(banks.named(k, "heldout"))), -(-n // 4)) for k in banks.KINDS]
    assert all(full[i] - 1 <= c <= full[i] for i, c in enumerate(counts))
    assert len({t for _, t in found}) == len(found) == sum(counts)
    if n <= 4 * 24:
        first = found[: n // 2]
        shares = [sum(kind == k for kind, _ in first) for k in banks.KINDS]
        assert max(shares) - min(shares) <= 1


def test_neutral_answers_are_drawn_as_the_base_speaks_and_own_samples_are_cut() -> None:
    cfg = session.RunConfig()
    drawn = session.reference_sampling(cfg)
    assert (drawn.temperature, drawn.min_p) == (1.0, 0.0) and cfg.eval.min_p > 0


def test_the_rounds_as_one_adapter_are_made_once_and_again_when_there_are_others(begun) -> None:
    one, two = (
        Adapter(
            {"model.layers.1.mlp.down_proj": (torch.randn(2, width_in), torch.randn(width_out, 2))}, scaling
        )
        for scaling in (0.5, 2.0)
        for width_out, width_in in [begun.model.get_submodule("model.layers.1.mlp.down_proj").weight.shape]
    )
    begun.history = [one]
    first = begun.whole(begun.history)
    assert begun.whole([one]) is first
    begun.history = [one, two]
    both = begun.whole(begun.history)
    whole = bake.stack([one, two])
    for name, (a, b) in both.factors.items():
        assert torch.equal(a, whole.factors[name][0]) and torch.equal(b, whole.factors[name][1])
    assert begun.whole([one]) is not first, "only the last is remembered"
    assert begun.whole([]).factors == {}
    begun.wholes.forget()
    assert vars(begun.wholes) == {"_of": [], "_value": None} and begun.wholes.of([]) is None
