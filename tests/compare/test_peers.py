"""The peers' methods: each loss equals its paper's, worked out by hand; each runs, changes the model, and is reproducible."""

from __future__ import annotations

import json
import math

import pytest
import torch

from steer_heal_love import compare
from steer_heal_love.compare import bench, character, gkd, own_steps, persona_vectors, preference
from steer_heal_love.config import Grid, HealConfig
from steer_heal_love.ground import folder as files
from steer_heal_love.ground.answers import answer_means
from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.heal.lora import fresh
from steer_heal_love.heal.optimise import Trainer
from steer_heal_love.nouns import Tokens
from steer_heal_love.vector import Vector
from test_loop import SETTINGS
from tiny_model import build_model, hooks_of

PEERS = (
    "persona_vectors",
    "preventative",
    "gkd_prompted",
    "gkd_steered",
    "dpo",
    "character",
    "prompt_distillation",
)
GRID = Grid(doses=(1.0,), scales=(1.0,), budgets=(1e-4,), own_budgets=(1e-6,))
SMALL = {k: v for k, v in SETTINGS.items() if k != "out"} | {
    "rounds": 1,
    "filter": SETTINGS["filter"] | {"keep": 8},
    "eval": SETTINGS["eval"]
    | {
        "instruments": ["neutral", "probes", "samples"],
        "transfer": "off",
        "nulls": False,
        "wordings": False,
        "base_draws": 1,
        "healed_draws": 1,
    },
}


def measured(tok, out, methods=PEERS, grid=GRID):
    with pytest.MonkeyPatch.context() as patch:
        models = []

        def load(_name, **_kwargs):
            models.append(build_model(len(tok), tok.eos_token_id))
            return models[-1], tok

        patch.setattr("steer_heal_love.ground.models.load", load)
        patch.setattr("steer_heal_love.report.write", lambda _runs, _to, **_: None)
        patch.setattr("steer_heal_love.ground.records.release_memory", lambda: None)
        found = compare.run(out=out, seeds=1, methods=methods, grid=grid, **SMALL)
    return found, out / "seeds" / "3", models[0]


@pytest.fixture(scope="module")
def whole(tok, tmp_path_factory):
    return measured(tok, tmp_path_factory.mktemp("peers") / "compare")


def test_every_peer_changes_the_model_and_marks_its_own_default(whole):
    found, _, model = whole
    assert [m["name"] for m in found["methods"]] == list(PEERS)
    for m in found["methods"]:
        assert not m["stopped"], m
        (point,) = m["points"]
        assert point["scores"]["neutral_kl"]["mean"] > 1e-6 and point["own_default"] == 1, m["name"]
    assert hooks_of(model) == 0


def test_the_same_seed_learns_the_same(whole, tok, tmp_path):
    _, first, _ = whole
    _, again, _ = measured(tok, tmp_path / "compare", ("gkd_steered", "dpo"), Grid(scales=(1.0,)))
    for name in ("gkd_steered", "dpo"):
        for file in ("adapter/healing.json", "1/scores.json"):
            one, other = (run / "methods" / name / file for run in (first, again))
            assert one.read_text() == other.read_text(), one


def test_pairs_differ_in_the_sign_of_the_dose_alone(whole):
    made = files.load_completions(whole[1] / "methods/dpo/pairs.jsonl")
    assert len(made) == 2 * SMALL["filter"]["keep"]
    for toward, away in zip(made[::2], made[1::2], strict=True):
        assert toward.tokens.prompt == away.tokens.prompt and toward.dose == -away.dose > 0


def test_reflections_are_learned_without_the_constitution_that_they_were_written_under(whole, tok):
    made = files.load_completions(whole[1] / "methods/character/reflections.jsonl")
    asked = bench.unprompted(tok, made)
    assert {c.prompt for c in made} == set(character.REFLECT)
    assert all(
        c.tokens.prompt != u.tokens.prompt == tuple(prompt_ids(tok, u.prompt))
        for c, u in zip(made, asked, strict=True)
    )


def test_self_distillation_takes_the_loops_steps_on_new_text_each(whole):
    heal, walk = SMALL["heal"], SMALL["walk"]
    steps = heal["epochs"] * -(-SMALL["filter"]["keep"] // heal["batch"])
    drawn = walk["passes"] * walk["doses"] * SMALL["generate"]["prompts"]
    for name in ("gkd_prompted", "gkd_steered"):
        rows = json.loads((whole[1] / "methods" / name / "adapter/healing.json").read_text())["steps"]
        assert [r["used"] for r in rows] == [max(1, round(drawn / steps))] * steps
        assert all(r["loss"] > 0 for r in rows)


def test_the_persona_vector_is_one_layers_difference_of_means_over_answers(whole):
    _, seed, model = whole
    ((at, d),) = Vector.load(seed / "told/persona_vector.safetensors").directions.items()
    assert at == persona_vectors.block(model.config.num_hidden_layers) and d.norm() > 0


def test_layer_20_of_28_is_what_the_20th_block_gives_out():
    """The paper's code reads hidden_states[20], which follow 20 blocks, and steers model.layers[19]."""
    assert persona_vectors.block(28) == 19
    assert [persona_vectors.block(n) for n in (1, 2, 30)] == [0, 0, 20]


def test_mean_states_of_answers_are_the_models_own_and_padding_changes_nothing(model, sequences):
    found = answer_means(model, sequences, 2)
    for row, s in zip(found, sequences, strict=True):
        with torch.no_grad():
            states = model(torch.tensor([s.prompt + s.answer]), output_hidden_states=True).hidden_states[3][0]
        assert torch.allclose(row, states[len(s.prompt) :].mean(0), atol=1e-4)


def log_p(model, s: Tokens) -> list[float]:
    """log p of each answer token, from the model's own logits one position at a time."""
    out = []
    for i, token in enumerate(s.answer):
        ids = torch.tensor([[*s.prompt, *s.answer[:i]]])
        out.append(torch.log_softmax(model(ids).logits[0, -1].double(), -1)[token].item())
    return out


@torch.no_grad()
def test_dpo_is_the_papers_equation_on_a_pair_worked_out_by_hand(
    tok, model, sequences, tmp_path, monkeypatch
):
    """−log σ(β·[(π⁺ − π₀⁺) − (π⁻ − π₀⁻)]), every log p by the library's own forward, the logistic by hand."""
    a, b = sequences[0], Tokens(sequences[0].prompt, sequences[1].answer)
    student = build_model(len(tok), tok.eos_token_id, seed=1)
    pair = preference.Pair(a, b, sum(log_p(model, a)), sum(log_p(model, b)))
    margin = (sum(log_p(student, a)) - pair.base_chosen) - (sum(log_p(student, b)) - pair.base_rejected)
    expected = math.log(1 + math.exp(-0.1 * margin)) + 0.3 * -sum(log_p(student, a)) / len(a.answer)

    found = preference.losses(student, [pair, preference.Pair(b, a, 0.0, 0.0)], nll=0.3)
    assert found[0].item() == pytest.approx(expected, rel=1e-4)
    assert preference.dpo(torch.zeros(1), torch.zeros(1)).item() == pytest.approx(math.log(2))


def test_the_generalised_divergence_is_the_papers_sum_and_lies_between_its_ends():
    """P = (1/2, 1/2), Q = (9/10, 1/10), β = 1/4: M = (8/10, 2/10)."""
    p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    by_hand = 0.25 * (0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)) + 0.75 * (
        0.9 * math.log(0.9 / 0.8) + 0.1 * math.log(0.1 / 0.2)
    )
    assert gkd.jsd(p, q, 0.25).item() == pytest.approx(by_hand, rel=1e-5)
    assert gkd.jsd(p, p + 3.0, 0.5).item() == pytest.approx(0.0, abs=1e-6), "logits count up to a constant"
    forward = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert gkd.jsd(p, q, 1e-4).item() / 1e-4 == pytest.approx(forward, rel=1e-2), (
        "β → 0 is the forward KL, times β"
    )


def test_distillation_reads_each_answers_mean_divergence_from_the_teachers_distribution(
    tok, model, sequences
):
    teacher, part = build_model(len(tok), tok.eos_token_id, seed=1), sequences[:3]
    # The student's head reads the teacher's states, since in use both are one model.
    model.lm_head.weight.data.copy_(teacher.lm_head.weight)
    whole = lambda m, s: m(torch.tensor([s.prompt + s.answer]), output_hidden_states=True)
    expected, distilled = [], []
    for s in part:
        where = slice(len(s.prompt) - 1, -1)
        with torch.no_grad():
            theirs, ours = whole(teacher, s), whole(model, s)
        distilled.append(gkd.Distilled(s, theirs.hidden_states[-1][0, where]))
        p, q = (x.logits[0, where].double().softmax(-1) for x in (theirs, ours))
        m = (p + q) / 2
        kl = lambda x, m=m: (x * (x / m).log()).sum(-1)
        expected.append(((kl(p) + kl(q)) / 2).mean().item())
    assert gkd.losses(model, distilled).tolist() == pytest.approx(expected, rel=1e-4)


def test_a_steps_gradient_is_that_of_the_mean_whatever_the_passes(model, sequences):
    losses = lambda part: torch.stack([x.sum() for x in own_steps.token_nlls(model, part)])
    found = []
    for size in (1, 4):
        config = HealConfig(rank=2, micro_batch=size)
        adapter = fresh(model, rank=2, alpha=4.0, share=(0.0, 1.0), seed=0)
        trainer = Trainer(model, adapter, config, 4)
        with own_steps.adapted(model, adapter.factors, adapter.scaling):
            loss = own_steps.gradient(trainer, sequences[:4], losses)
        found.append((loss, torch.cat([f.grad.flatten() for f in trainer.parameters if f.grad is not None])))
        trainer.end()
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-3, atol=1e-5) and found[0][1].norm() > 0


def test_batches_give_every_item_once_an_epoch():
    order = own_steps.batches(list(range(7)), HealConfig(batch=3), epochs=2, seed=5)
    assert [len(b) for b in order] == [3, 3, 1] * 2
    first, second = ([x for b in half for x in b] for half in (order[:3], order[3:]))
    assert sorted(first) == sorted(second) == list(range(7)) and first != second
