"""Every method, offline, on the tiny model: two seeds, the folder's files, a study that was killed, and bad input."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import replace

import pytest
import torch

from steer_heal_love import compare, loop, persona, presets
from steer_heal_love.compare import bench, best, few_shot, grpo, null_random, study, summary
from steer_heal_love.compare.method import Trace
from steer_heal_love.config import Cluster, Grid, RunConfig
from steer_heal_love.ground import folder as files
from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.errors import Starved, UserError
from steer_heal_love.ground.folder import RunFolder
from steer_heal_love.ground.progress import silent
from steer_heal_love.nouns import Completion, Score, Tokens
from steer_heal_love.session import Base, Run
from steer_heal_love.vector import Vector
from test_loop import SETTINGS
from tiny_model import build_model, hooks_of
from tiny_run import SETTINGS as TINY

NULLS = {"null_bias", "null_random", "null_sft_base", "null_temperature", "null_unrelated"}
GRID = Grid(
    doses=(0.5, 1.0),
    scales=(0.5, 1.0),
    beyond=(1.5,),
    shots=(1.0, 2.0),
    biases=(0.5, 1.0),
    coolings=(1.2, 1.5),
    budgets=(1e-4, 0.01, 1e3),
    own_budgets=(1e-6, 1e3),
)
SMALL = {k: v for k, v in SETTINGS.items() if k != "out"}
SMALL |= {"heal": SETTINGS["heal"] | {"anchor_temperature": 1.0, "anchor_tokens": 4}}
SMALL |= {"generate": SETTINGS["generate"] | {"max_new_tokens": 6}}
SMALL |= {"eval": TINY["eval"] | {"transfer": "off"}}
"""an anchor at 1 starts from nothing, so that what it reads later was learned"""


@pytest.fixture(scope="module")
def load(tok):
    """`models.load` gives a tiny model built anew, as another process would; the models it made. The seeds' own
    reports have tests elsewhere and cost most here."""
    made = []

    def make(_name, **_kwargs):
        made.append(build_model(len(tok), tok.eos_token_id, depth=3))
        return made[-1], tok

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("steer_heal_love.ground.models.load", make)
        patch.setattr("steer_heal_love.report.write", lambda _runs, _to, **_: None)
        yield made


@pytest.fixture(scope="module")
def whole(load, tmp_path_factory):
    """Two seeds of every method, unbroken."""
    out = tmp_path_factory.mktemp("whole") / "compare"
    return out, compare.run(out=out, seeds=2, grid=GRID, **SMALL)


def test_a_folder_that_cannot_be_made_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("mine")
    cfg = RunConfig()
    run = Run(cfg, persona("love"), None, None, RunFolder(tmp_path), base=Base())
    with pytest.raises(UserError, match="cannot write"):
        bench.opened(run, tmp_path / "file" / "sft", GRID)
    with pytest.raises(UserError, match="cannot write"):
        study.seeded(cfg, None, None, tmp_path / "file" / "0", silent)


def by_name(found):
    return {m["name"]: m for m in found["methods"]}


def read(path):
    return json.loads(path.read_text(), parse_constant=lambda c: pytest.fail(f"{path}: {c} is not JSON"))


def test_every_method_has_a_frontier_in_every_seed(whole):
    out, found = whole
    assert found == read(out / "compare.json")
    named = """prompt few_shot baking sft steering weight_steering healed_round healed_loop online grpo soft_base
        soft_base_loop"""
    assert set(by_name(found)) == set(compare.methods) >= {*named.split(), *NULLS}
    for name, m in by_name(found).items():
        assert m["points"] and not m["stopped"], name
        strengths = [p["strength"] for p in m["points"]]
        assert strengths == sorted(strengths)
        for p in m["points"]:
            assert p["seeds"] == 2 and p["own_default"] in (0, 1, 2)
            assert p["scores"]["neutral_kl"]["mean"] > 0, (name, p)
            for seed in found["seeds"]:
                cell = out / "seeds" / str(seed) / "methods" / name / f"{p['strength']:g}" / "scores.json"
                assert files.load_stages(cell)[0].samples
    own = {
        n: [p["own_default"] for p in by_name(found)[n]["points"]]
        for n in ("sft", "steering", "healed_loop", "few_shot")
    }
    assert own == {"sft": [0, 2], "steering": [0, 2], "healed_loop": [0, 2, 0], "few_shot": [0, 0]}
    assert [
        len(by_name(found)[n]["points"]) for n in ("prompt", "few_shot", "steering", "sft", "healed_loop")
    ] == [
        1,
        2,
        2,
        2,
        3,
    ]


def test_a_seeds_folder_is_a_run_whose_rounds_are_the_loops(whole):
    out, found = whole
    for seed in found["seeds"]:
        run = out / "seeds" / str(seed)
        summary = read(run / "summary.json")
        assert summary["seed"] == seed and summary["rounds"] == SETTINGS["rounds"]
        healed = [s for s in summary["stages"] if s["stage"] == "healed"]
        for s, strength in zip(healed, ("1", "2"), strict=True):
            (cell,) = files.load_stages(run / "methods/healed_loop" / strength / "scores.json")
            assert cell.scores["trait_shift"].mean == s["scores"]["trait_shift"]["mean"]
    assert (out / "compare.html").stat().st_size and (out / "frontier.png").stat().st_size


def test_the_seeds_differ_and_the_base_is_made_once_a_seed(whole):
    out, found = whole
    read = lambda name: [(out / "seeds" / str(s) / "base" / name).read_text() for s in found["seeds"]]
    a, b = read("calibration.jsonl")
    assert a != b
    assert len(set(read("neutral.jsonl"))) == 1, "drift is measured on the same answers whatever the seed"
    for seed in found["seeds"]:
        events = (out / "seeds" / str(seed) / "events.jsonl").read_text()
        for file in (
            "base/neutral.jsonl",
            "rounds/00/vector.safetensors",
            "rounds/00/healing.json",
            "told/pos.jsonl",
        ):
            assert events.count(f'"file": "{file}"') == 1


def test_more_scale_costs_more(whole):
    for name in (
        "sft",
        "baking",
        "weight_steering",
        "healed_round",
        "steering",
        "online",
        "grpo",
        "soft_base",
        *NULLS,
    ):
        costs = [p["scores"]["neutral_kl"]["mean"] for p in by_name(whole[1])[name]["points"]]
        assert costs == sorted(costs) and costs[0] < costs[-1], name


def test_training_step_by_step_takes_the_loops_steps_and_completions(whole):
    out, found = whole
    heal, walk, rounds = SETTINGS["heal"], SETTINGS["walk"], SETTINGS["rounds"]
    steps = rounds * heal["epochs"] * SETTINGS["filter"]["keep"] // heal["batch"]
    drawn = rounds * walk["passes"] * walk["doses"] * SETTINGS["generate"]["prompts"]
    for seed in found["seeds"]:
        run = out / "seeds" / str(seed) / "methods"
        for name, a_step in (("online", drawn // steps), ("grpo", 4)):
            rows = read(run / name / "adapter/healing.json")["steps"]
            assert len(rows) == steps and {r["made"] for r in rows} == {a_step}, (name, rows)
            assert all(0 <= r["used"] <= r["made"] <= r["tokens"] for r in rows)
            learned = [r["anchor"] for r in rows if r["used"]]
            assert learned[-1] > 1e-6 > abs(learned[0]), "it learned, from nothing, with the adapter on"
        assert any(r.get("soft", 0) > 0 for r in read(run / "online/adapter/healing.json")["steps"])


def test_advantages_are_a_groups_own_scale_and_undefined_rewards_pull_nothing():
    def made(on_trait: float, nll: float) -> Completion:
        return Completion("p", Tokens((1,), (2,)), "", 0.0, True, {"on_trait": on_trait, "nll": nll})

    group = [made(0.5, 2.0), made(0.1, 2.0), made(0.4, 3.0), made(math.nan, 2.0)]
    found = grpo.advantages(group, usual=2.5)
    rewards = [0.5, 0.1, 0.4 - 0.5]
    mean, sd = sum(rewards) / 3, (sum((r - sum(rewards) / 3) ** 2 for r in rewards) / 3) ** 0.5
    assert found == pytest.approx([*((r - mean) / sd for r in rewards), 0.0])
    assert grpo.advantages([made(0.3, 1.0), made(0.3, 2.0)], usual=2.5) == [0.0, 0.0], "coherent is free"
    assert grpo.advantages([made(math.nan, 1.0)] * 2, usual=2.5) == [0.0, 0.0]


def test_a_budget_that_nobody_reaches_is_undefined_and_counted(whole):
    for m in whole[1]["methods"]:
        near, _, far = m["at"]
        assert (far["reached"], far["seeds"]) == (0, 2)
        assert far["trait_shift"]["mean"] is None and far["trait_shift"]["n"] == 0
        assert near["reached"] == 2 and near["trait_shift"]["mean"] is not None, m["name"]
        assert [r["budget"] for r in m["at_own_excess"]] == [1e-6, 1e3]
        assert m["at_own_excess"][1]["reached"] == 0 and m["at_own_excess"][1]["trait_shift"]["mean"] is None


def test_differences_share_all_looks_and_say_who_is_ahead(whole):
    found = whole[1]
    assert found["comparisons"] == (len(found["methods"]) - len(NULLS) - 1) * 5
    for m in found["methods"]:
        rows = m["at"] + m["at_own_excess"]
        if m["name"] == found["reference"] or m["null"]:
            assert not any("above_reference" in r for r in rows), "it isn't set against itself"
            continue
        shared, alone = (m["at"][0][f"above_reference{s}"] for s in ("", "_alone"))
        assert shared["mean"] == alone["mean"]
        assert shared["lo"] <= alone["lo"] <= alone["hi"] <= shared["hi"]
        assert (
            m["at"][0]["verdict"] in ("ahead", "behind", "not told apart") and m["at"][2]["verdict"] is None
        )
    looked = summary.said(Score(0.3, -0.1, 0.7, 9), Score(0.3, 0.1, 0.5, 9))
    assert (looked["verdict"], looked["verdict_alone"]) == ("not told apart", "ahead")
    open_ = (Score(-0.3, -math.inf, -0.1, 9), Score(-0.3, -math.inf, math.inf, 9), Score.undefined())
    assert list(map(best.verdict, open_)) == ["behind", "not told apart", None]


def test_every_method_is_set_above_the_best_null_at_equal_drift(whole):
    found = whole[1]
    assert set(found["nulls"]) == NULLS == {m["name"] for m in found["methods"] if m["null"]}
    assert found["null_comparisons"] == len(NULLS) * (len(found["methods"]) - len(NULLS)) * 3
    set_above = set()
    for i in (0, 1):
        at = {m["name"]: m["at"][i] for m in found["methods"]}
        there = {n: at[n]["trait_shift"]["mean"] for n in NULLS if at[n]["reached"] == 2}
        top = max(there, key=there.get)
        for name, row in at.items():
            assert row["best_null"] == (top if there[top] >= 0 else "base")
            assert ("above_null" in row) == (name not in NULLS)
            if name in NULLS or row["reached"] < 2:
                continue
            set_above.add((name, i))
            shared, alone, trait = row["above_null"], row["above_null_alone"], row["trait_shift"]["mean"]
            assert shared["mean"] == pytest.approx(trait - max(there[top], 0.0), abs=1e-9)
            assert shared["lo"] <= alone["lo"] <= alone["hi"] <= shared["hi"]
    assert {name for name, i in set_above if i == 0} == {m["name"] for m in found["methods"]} - NULLS
    assert all(m["at"][2]["best_null"] is None for m in found["methods"]), "no null gets to the last budget"


def test_the_random_vector_has_the_norms_of_the_real_one_and_its_round_its_own_folder(whole):
    out, found = whole
    cosines = []
    for seed in found["seeds"]:
        run = out / "seeds" / str(seed)
        real = Vector.load(run / "rounds/00/vector.safetensors")
        random = Vector.load(run / "methods/null_random/rounds/00/vector.safetensors")
        for layer, d in real.directions.items():
            assert random.directions[layer].norm() == pytest.approx(d.norm().item(), rel=1e-5)
        again = null_random.random_like(real, random.meta["seed"])
        assert all(torch.allclose(again.directions[i], d) for i, d in random.directions.items())
        cosines.append(random.cosine(real))
        assert (run / "methods/null_random/rounds/00/completions.jsonl").exists()
        other = Vector.load(run / "methods/null_unrelated/rounds/00/vector.safetensors").meta
        assert other["persona"] != "love" and other["cosine_with_the_personas"] is not None
    assert max(map(abs, cosines)) < 0.5 and cosines[0] != cosines[1]


def test_soft_targets_on_the_bases_own_text_learn_from_nothing_steered(whole):
    out, found = whole
    for seed in found["seeds"]:
        run = out / "seeds" / str(seed) / "methods"
        for name, rounds in (("soft_base", 1), ("soft_base_loop", 2)):
            texts = [files.load_completions(run / name / f"rounds/0{n}/text.jsonl") for n in range(rounds)]
            assert all(c.dose == 0 and not c.checks for made in texts for c in made), (
                "neither steered nor filtered"
            )
            assert all(len(made) == SETTINGS["filter"]["keep"] for made in texts)
            steps = read(run / name / "rounds/00/healing.json")["steps"]
            assert steps[-1]["soft"] > 0
        assert texts[0] != texts[1]
        text = files.load_completions(run / "null_sft_base/text.jsonl")
        kept = [c for c in files.load_completions(run.parent / "rounds/00/completions.jsonl") if c.used]
        assert {c.prompt for c in text} <= {c.prompt for c in kept} and len(text) <= len(kept)
        assert all(c.dose == 0 and c.kept for c in text)


def test_halves_are_read_at_each_budget_where_every_cell_has_them(whole):
    out, found = whole
    sft, (seed, other) = compare.methods["sft"], found["seeds"]
    stages = lambda s: files.load_stages(out / f"seeds/{s}/base/scores.json")
    bases = {s: split(next(x for x in stages(s) if x.stage == "base")) for s in (seed, other)}
    cell = lambda s, at: files.load_stages(out / f"seeds/{s}/methods/sft/{at}/scores.json")[0]
    traces = [
        Trace(sft, s, [(v, split(cell(s, f"{v:g}"))) for v in (0.5, 1.0)], "", 0.0) for s in (seed, other)
    ]
    near = summary.of(traces, bases, GRID, 50)["methods"][0]["at"][0]
    total = near["trait_pos"]["mean"] + near["trait_neg"]["mean"]
    assert total == pytest.approx(near["trait_shift"]["mean"]) and near["trait_pos"]["mean"] != 0


def split(stage):
    """The stage with each probe's trait told apart in two, the one from the other by some rule."""
    pos = [math.sin(9 * v) for v in stage.items["trait"]]
    neg = [v + p for v, p in zip(stage.items["trait"], pos, strict=True)]
    return replace(stage, items=stage.items | {"nll_pos": pos, "nll_neg": neg})


def test_own_excess_is_read_at_the_strengths_that_every_seed_has(whole):
    out, _ = whole
    cell = lambda seed, strength: files.load_stages(out / f"seeds/{seed}/methods/sft/{strength}/scores.json")[
        0
    ]
    bases = {
        s: next(x for x in files.load_stages(out / f"seeds/{s}/base/scores.json") if x.stage == "base")
        for s in (3, 4)
    }
    sft = compare.methods["sft"]
    full = [Trace(sft, s, [(0.5, cell(s, "0.5")), (1.0, cell(s, "1"))], "", 0.0) for s in (3, 4)]
    short = [full[0], Trace(sft, 4, full[1].cells[:1], "", 0.0)]
    both = [Trace(sft, t.seed, t.cells[:1], "", 0.0) for t in full]
    none = [full[0], Trace(sft, 4, [], "starved", 0.0)]
    rows = [summary.of(ts, bases, GRID, 50)["methods"][0]["at_own_excess"] for ts in (short, both, none)]
    assert rows[0] == rows[1]
    assert all(r["reached"] == 0 and r["trait_shift"]["mean"] is None for r in rows[2])


def test_the_one_round_is_the_loops_first_adapter_without_the_trust_regions_scale(whole, load):
    out, found = whole
    seed = found["seeds"][0]
    healing = read(out / "seeds" / str(seed) / "rounds/00/healing.json")
    one, first = by_name(found)["healed_round"]["points"][-1], by_name(found)["healed_loop"]["points"][0]
    if healing["scale"] < 1:
        assert one["scores"]["neutral_kl"]["mean"] > first["scores"]["neutral_kl"]["mean"]
    else:
        assert one["scores"] == first["scores"]


class Killed(BaseException):
    """What a kill looks like from inside."""


def kill_at(patch, target, at):
    """Raise `Killed` in place of the `at`th call of a function."""
    room, name = target.rsplit(".", 1)
    module, calls = importlib.import_module(f"steer_heal_love.{room}"), []
    real = getattr(module, name)

    def fatal(*args, **kwargs):
        calls.append(1)
        if len(calls) == at:
            raise Killed
        return real(*args, **kwargs)

    patch.setattr(module, name, fatal)


def test_killed_three_times_and_gone_on_with_is_unbroken(whole, load, tmp_path):
    """Three methods, which have every kind of step: text, heals of their own, and the loop's rounds."""
    three = dict(
        out=tmp_path / "compare", seeds=2, methods=("prompt", "sft", "healed_loop"), grid=GRID, **SMALL
    )
    out = three["out"]
    for target, at in (("compare.bench.heal", 1), ("evals.measure", 5), ("steps.heal", 1)):
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, target, at)
            with pytest.raises(Killed):
                compare.run(**three)
        assert not (out / "compare.json").exists()
    cells = {p: p.stat().st_mtime_ns for p in out.rglob("scores.json")}
    assert cells
    found, unbroken = by_name(compare.run(**three)), by_name(whole[1])
    assert set(found) == set(three["methods"])
    for name, method in found.items():
        for key in ("points", "stopped"):
            assert method[key] == unbroken[name][key], (name, key)
    assert {p: p.stat().st_mtime_ns for p in cells} == cells, "a cell was measured twice"
    assert all(hooks_of(m) == 0 for m in load)


def test_going_on_after_the_end_measures_nothing_and_a_method_can_be_asked_for_alone(whole, load):
    out, found = whole
    before = {p: p.stat().st_mtime_ns for p in (out / "seeds").rglob("scores.json")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("steer_heal_love.evals.measure", lambda *_a: pytest.fail("measured again"))
        again = compare.run(out=out, seeds=2, methods=("steering",), grid=GRID, **SMALL)
        assert by_name(again)["steering"]["points"] == by_name(found)["steering"]["points"]
        assert "above_reference" not in by_name(again)["steering"]["at"][0]
        assert compare.run(out=out, seeds=2, grid=GRID, **SMALL) == found
    assert {p: p.stat().st_mtime_ns for p in (out / "seeds").rglob("scores.json")} == before


def test_a_starved_seed_keeps_the_methods_that_need_no_steering(load, tmp_path):
    starving = SMALL | {
        "filter": {"checks": ["length"], "calibration": 2, "keep": 3, "least": 3},
        "rounds": 1,
        "generate": {"prompts": 2, "max_new_tokens": 2},
        "walk": {"doses": 2, "floor": 0.2},
    }
    grid = Grid(scales=(1.0,), budgets=(1e-6,))
    free, bound = ("prompt", "baking", "weight_steering"), ("few_shot", "sft", "healed_round", "healed_loop")
    found = by_name(compare.run(out=tmp_path / "c", seeds=1, methods=free + bound, grid=grid, **starving))
    for name in free:
        assert found[name]["points"] and not found[name]["stopped"], name
    for name in bound:
        assert not found[name]["points"] and found[name]["stopped"], name
        row = found[name]["at"][0]
        assert row["reached"] == 0 and row["trait_shift"]["mean"] is None


def test_a_loop_that_starves_late_keeps_its_rounds(load, tmp_path, monkeypatch):
    real = loop.one_round

    def starving(run, number):
        if number:
            raise Starved("round 1: nothing left")
        real(run, number)

    monkeypatch.setattr(loop, "one_round", starving)
    (m,) = compare.run(out=tmp_path / "c", seeds=1, methods=("healed_loop",), grid=GRID, **SMALL)["methods"]
    assert [p["strength"] for p in m["points"]] == [1.0, 1.5]
    assert m["stopped"] == {"3": "round 1: nothing left"}


def test_few_shot_takes_each_prompt_once_and_no_probe(whole):
    out, found = whole
    probes = {p.question for p in persona("love").probes}
    for seed in found["seeds"]:
        made = files.load_completions(out / "seeds" / str(seed) / "rounds/00/completions.jsonl")
        best = few_shot.best([c for c in made if c.used])
        assert len({c.prompt for c in best}) == len(best) >= 2
        assert not probes & {c.prompt for c in best}
        ended = [c.ended for c in best]
        assert ended == sorted(ended, reverse=True)


def test_the_pole_told_shapes_the_text_and_not_what_the_student_is_asked(whole, load, tok):
    out, found = whole
    run = out / "seeds" / str(found["seeds"][0])
    pos, neg = (files.load_completions(run / "told" / f"{pole}.jsonl") for pole in ("pos", "neg"))
    assert [c.prompt for c in pos] == [c.prompt for c in neg] and len(pos) == SETTINGS["filter"]["keep"]
    assert [c.tokens.prompt for c in pos] != [c.tokens.prompt for c in neg]
    asked = bench.unprompted(tok, pos)
    assert [c.tokens.prompt for c in asked] == [prompt_ids(tok, c.prompt) for c in pos]
    assert [c.tokens.answer for c in asked] == [c.tokens.answer for c in pos]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": 0}, ["seeds", "at least 1", "0"]),
        ({"methods": ("stearing",)}, ["stearing", "Did you mean 'steering'"]),
        ({"persona": "lave"}, ["lave", "love"]),
        ({"grid": Grid(scales=(1.0, 0.5), budgets=(-1.0,))}, ["grid.scales", "grid.budgets"]),
        ({"grid": Grid(shots=(1.5,), beyond=(0.5,))}, ["grid.shots", "grid.beyond"]),
        (
            {"grid": Grid(shots=(math.inf,), doses=(1.0, math.nan))},
            ["grid.shots: finite", "grid.doses: finite"],
        ),
        ({"cluster": Cluster(gpus=-1)}, ["gpus"]),
        ({"grid": Grid(coolings=(0.9,), biases=(2.0, 1.0))}, ["grid.coolings: above 1", "grid.biases"]),
        ({"eval": {"instruments": ["probes"]}}, ["eval.instruments", "neutral", "samples"]),
        ({"eval": {"sample_prompts": 0}}, ["eval.sample_prompts"]),
        ({"rounds": 0}, ["rounds"]),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_written(load, tmp_path, changes, words):
    count = len(load)
    with pytest.raises(UserError) as e:
        compare.run(out=tmp_path / "c", **(SMALL | {"seeds": 2, "grid": GRID} | changes))
    assert all(w in str(e.value) for w in words), str(e.value)
    assert list(tmp_path.iterdir()) == [] and len(load) == count


def test_a_seed_is_gone_on_with_elsewhere_but_not_with_another_chat_template(whole, load, tok, monkeypatch):
    out, found = whole
    path = out / "seeds" / str(found["seeds"][0])
    cfg = presets.read(path / "config.toml")
    model = load[0]
    study.seeded(replace(cfg, out="elsewhere", split=2), model, tok, path, silent)
    with pytest.raises(UserError, match="other settings"):
        study.seeded(replace(cfg, rounds=cfg.rounds + 1), model, tok, path, silent)
    monkeypatch.setattr(tok, "chat_template", tok.chat_template + " ")
    with pytest.raises(UserError, match="another chat template"):
        study.seeded(cfg, model, tok, path, silent)


def test_another_plans_folder_is_refused_and_left_as_it_was(whole, load, tmp_path):
    out, _ = whole
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    with pytest.raises(UserError, match=r"persona.*'love' there, 'joy' asked for"):
        compare.run(out=out, seeds=2, grid=GRID, **(SMALL | {"persona": "joy"}))
    with pytest.raises(UserError, match="heal"):
        compare.run(out=out, seeds=2, grid=GRID, **(SMALL | {"heal": SMALL["heal"] | {"lr": 0.5}}))
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "plan.json").write_text('{"schema": 99, "kind": "compare"}')
    with pytest.raises(UserError, match="schema: 99 there"):
        compare.run(out=tmp_path / "c", seeds=2, grid=GRID, **SMALL)
    with pytest.raises(UserError, match="something else"):
        compare.run(out=out.parent, seeds=2, grid=GRID, **SMALL)
    with pytest.raises(UserError, match="a file"):
        compare.run(out=out / "plan.json", seeds=2, grid=GRID, **SMALL)


def test_other_weights_are_refused(whole, tok, monkeypatch):
    out, _ = whole
    other = build_model(len(tok), tok.eos_token_id, seed=1)
    monkeypatch.setattr("steer_heal_love.ground.models.load", lambda _name, **_kwargs: (other, tok))
    with pytest.raises(UserError, match="model_hash"):
        compare.run(out=out, seeds=2, grid=GRID, **SMALL)


def test_the_models_weights_are_left_as_they_were(whole, load, tok):
    fresh = build_model(len(tok), tok.eos_token_id, depth=3).state_dict()
    for model in load:
        assert hooks_of(model) == 0
        assert all(torch.equal(t, fresh[n]) for n, t in model.state_dict().items())
