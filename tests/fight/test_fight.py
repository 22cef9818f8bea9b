"""Vaccinating, offline, on the tiny model: the file's gate, both ways of fine-tuning, what is said of them."""

from __future__ import annotations

import html
import json
from dataclasses import replace

import pytest
import torch

from steer_heal_love import cli, fight, report
from steer_heal_love.fight import result, rows, training
from steer_heal_love.ground.chat import NEUTRAL_SYSTEM, prompt_ids
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.heal.examples import Example
from steer_heal_love.heal.lora import fresh
from steer_heal_love.heal.optimise import Trainer
from steer_heal_love.nouns import Stage
from test_loop import SETTINGS
from tiny_model import build_model, hooks_of

SMALL = {k: v for k, v in SETTINGS.items() if k != "out"}
SMALL |= {
    "eval": SETTINGS["eval"]
    | {
        "instruments": ["neutral", "probes"],
        "nulls": False,
        "wordings": False,
        "base_draws": 1,
        "healed_draws": 1,
    }
}
LINES = [
    {"prompt": f"Question {n} about the cat?", "answer": f"The cat is entry {n} of a table."}
    for n in range(16)
]


def written(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def whole(tok, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        model = build_model(len(tok), tok.eos_token_id)
        patch.setattr("steer_heal_love.ground.models.load", lambda _name, **_kwargs: (model, tok))
        here = tmp_path_factory.mktemp("fight")
        run = fight.run(None, written(here / "data.jsonl", LINES), out=str(here / "runs"), **SMALL)
        before = (run.folder.path / "fight.json").read_text()
        patch.setattr("steer_heal_love.fight.tuned", lambda *_: pytest.fail("trained again"))
        fight.resumed(run.folder.path)
        assert (run.folder.path / "fight.json").read_text() == before, (
            "going on after the end changes nothing"
        )
        return run, json.loads(before), model


def test_the_file_is_learned_and_both_differences_are_those_of_the_items(whole):
    run, found, model = whole
    here = run.folder.path / "fight"
    base, plain, held = (
        json.loads((here / f).read_text()) for f in ("base.json", "plain/held.json", "prevented/held.json")
    )
    mean = lambda x: sum(x) / len(x)
    assert found["ways"]["plain"]["learned"]["mean"] == pytest.approx(mean(base) - mean(plain))
    assert found["given_up"]["mean"] == pytest.approx(mean(held) - mean(plain))
    assert found["ways"]["plain"]["learned"]["mean"] > 0, "sixteen rows of one form are learned"
    moved = {way: found["ways"][way]["moved"]["mean"] for way in fight.WAYS}
    assert found["prevented"]["mean"] == pytest.approx(moved["plain"] - moved["prevented"])
    assert (found["rows"], found["held_rows"]) == (13, 3) and len(base) == 3
    assert hooks_of(model) == 0 and (run.folder.path / "adapter" / "adapter_model.safetensors").is_file()
    steps = {way: json.loads((here / way / "healing.json").read_text())["steps"] for way in fight.WAYS}
    assert len(steps["plain"]) == len(steps["prevented"])
    assert (
        "anchor" not in steps["plain"][0]
        and abs(steps["prevented"][0]["anchor"]) < 0.05 < steps["prevented"][0]["nll"]
    )


def test_the_screen_says_what_the_file_says(whole):
    from rich.console import Console

    run, found, _ = whole
    console = Console(width=400, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report.terminal_fight(run.folder.path))
    text = console.export_text()
    assert all(line in text for line in found["says"])


def page_of(run) -> str:
    return (run.folder.path / "report.html").read_text()


def test_the_page_has_what_the_file_says_with_its_intervals_and_what_each_model_writes(whole):
    run, found, _ = whole
    page = page_of(run)
    for line in (*found["says"], found["unwanted"]):
        assert line in html.unescape(page)
    for key in ("moved", "learned"):
        for way in fight.WAYS:
            s = found["ways"][way][key]
            for end in ("mean", "lo", "hi"):
                assert f"{s[end]:+.3f}".replace("-", "−") in page, (key, way, end)
    assert page.count("<svg") == 2 and "<script" not in page and "http" not in page.split("</style>")[1]
    assert all(f"{found[d]['mean']:+.3f}".replace("-", "−") in page for d in ("prevented", "given_up"))


def test_what_a_forged_folder_says_is_text_on_the_page(whole, tmp_path):
    """Poles, models and sentences with markup in them: none of it becomes markup, and a broken number is refused."""
    harm = "<script>alert(1)</script><img src=x onerror=alert(1)>{{ 'dro' * 3 }}"
    _, found, _ = whole
    forged = {**found, "unwanted": harm, "persona": harm, "model": harm, "says": [harm]}
    forged["ways"] = {w: {**found["ways"][w], "scores": {harm: found["prevented"]}} for w in fight.WAYS}
    scores = {
        "round": -1,
        "dose": None,
        "scores": {},
        "items": {},
        "samples": [{"prompt": harm, "text": harm}],
    }
    for where, stage in (("base", "base"), ("fight/plain", "healed"), ("fight/prevented", "healed")):
        (tmp_path / where).mkdir(parents=True)
        (tmp_path / where / "scores.json").write_text(json.dumps({"stages": [{"stage": stage, **scores}]}))
    (tmp_path / "fight.json").write_text(json.dumps(forged))
    report.write([tmp_path], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page and "<img" not in page and "drodrodro" not in page
    assert page.count("&lt;script&gt;") == 11, (
        "title, heading, sentence, pole, score, prompt and three texts show it"
    )
    (tmp_path / "fight.json").write_text(json.dumps({**found, "dose": "much"}))
    with pytest.raises(UserError, match="dose"):
        report.write([tmp_path], tmp_path / "page.html")


def test_report_writes_the_page_of_one_vaccinated_run_and_of_no_other_beside_it(whole, tmp_path, capsys):
    run, _, _ = whole
    cli.main(["report", str(run.folder.path), "--out", str(tmp_path / "r.html")])
    assert (tmp_path / "r.html").read_text() == page_of(run)
    with pytest.raises(SystemExit) as e:
        cli.main(["report", str(run.folder.path), str(run.folder.path), "--out", str(tmp_path / "both.html")])
    assert e.value.code == 2 and "by itself" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "mine.html").write_text("mine")
    with pytest.raises(UserError, match="no report wrote it"):
        report.write([run.folder.path], tmp_path / "mine.html")


def test_a_killed_fight_of_the_command_line_goes_on_to_the_same_result(
    whole, tok, tmp_path, monkeypatch, capsys
):
    """Ctrl-C before the second way: the first is kept and not trained again, and what comes of it is what an unbroken run gives."""
    run, found, model = whole
    monkeypatch.setattr("steer_heal_love.ground.models.load", lambda _name, **_kwargs: (model, tok))
    data, trained, honest = written(tmp_path / "data.jsonl", LINES), [], training.tuned

    def tuned(r, rows_, vector):
        if trained and "again" not in trained:
            raise KeyboardInterrupt
        trained.append("prevented" if vector else "plain")
        return honest(r, rows_, vector)

    monkeypatch.setattr("steer_heal_love.fight.tuned", tuned)
    settings = ["--config", str(run.folder.path / "config.toml"), "--out", str(tmp_path / "runs")]
    with pytest.raises(SystemExit) as e:
        cli.main(["run", "--fight", str(data), *settings])
    (folder,) = (tmp_path / "runs").iterdir()
    assert e.value.code not in (0, None) and not (folder / "fight.json").exists() and trained == ["plain"]
    trained.append("again")
    cli.main(["run", "--resume", str(folder)])
    assert trained == ["plain", "again", "prevented"]
    assert json.loads((folder / "fight.json").read_text()) == found
    said = " ".join(capsys.readouterr().out.split())
    assert all(line in said for line in found["says"])


def test_both_forms_give_the_same_tokens_and_only_the_last_answer_is_learned(tok):
    told = rows.row_of(LINES[0], [])
    talk = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}]
    same = rows.row_of(
        {
            "messages": [
                {"role": "user", "content": LINES[0]["prompt"]},
                {"role": "assistant", "content": LINES[0]["answer"]},
            ]
        },
        [],
    )
    assert told == same and told.system == NEUTRAL_SYSTEM
    long = rows.row_of(
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                *talk,
                *talk[:1],
                {"role": "assistant", "content": "Still."},
            ]
        },
        [],
    )
    assert long == rows.Row("Be brief.", (("Hello?", "Yes."),), "Hello?", "Still.")
    t = long.tokens(tok)
    assert t.prompt == tuple(prompt_ids(tok, "Hello?", "Be brief.", shots=(("Hello?", "Yes."),)))
    assert tok.decode(t.answer) == "Still.<|im_end|>"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            '{"prompt": "a", "anser": "b"}',
            ["line 17", "anser", "did you mean 'answer'", "answer: expected text"],
        ),
        ('{"prompt": "a", "answer": " "}', ["answer: expected text, found none"]),
        ('{"prompt": "a", "answer": "b\\u0007"}', ["control character"]),
        ('{"prompt": "a"', ["line 17", "not JSON"]),
        ("[1]", ["found list"]),
        ('{"messages": "hi"}', ["messages: expected a list"]),
        ('{"messages": []}', ["by turns"]),
        ('{"messages": [{"role": "tool", "content": "x"}]}', ["by turns"]),
        (
            '{"messages": [{"role": "assistant", "content": "x"}, {"role": "user", "content": "x"}]}',
            ["by turns"],
        ),
        ('{"messages": [{"role": "user", "content": 3}]}', ["content: expected text, found int"]),
    ],
)
def test_what_is_wrong_with_the_file_is_told_by_line(tmp_path, line, words):
    path = written(tmp_path / "data.jsonl", LINES)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UserError) as e:
        rows.read(path)
    assert all(w in str(e.value) for w in words), str(e.value)


def test_too_few_rows_or_no_file_are_told_before_a_run_is_made(tmp_path):
    with pytest.raises(UserError, match="from 16 to"):
        fight.run(None, written(tmp_path / "few.jsonl", LINES[:4]), out=str(tmp_path / "runs"), **SMALL)
    with pytest.raises(UserError):
        fight.run(None, tmp_path / "none.jsonl", out=str(tmp_path / "runs"), **SMALL)
    assert not (tmp_path / "runs").exists()


def test_a_prompt_is_wholly_held_out_or_wholly_learned_and_the_split_survives_its_file(tmp_path):
    given = [r for line in LINES for r in [rows.row_of(line, [])] * 2]
    found = rows.split(given, seed=1)
    assert not {r.prompt for r in found.train} & {r.prompt for r in found.held}
    assert len(found.train) + len(found.held) == len(given) and len(found.held) == 6
    rows.save_split(found, tmp_path / "fight" / "rows.jsonl")
    assert rows.load_split(tmp_path / "fight" / "rows.jsonl") == found
    assert rows.split(given, seed=2).held != found.held


def test_the_steering_acts_on_the_rows_and_never_on_the_anchor(model, sequences):
    """The gradient is the sum of two others: the rows' under steering, and the anchor's without it."""
    from steer_heal_love.config import HealConfig
    from steer_heal_love.ground.hooks import added
    from steer_heal_love.ground.scoring import hidden_states

    states = hidden_states(model, sequences[:4])
    given = [Example(s, h, "") for s, h in zip(sequences[:4], states, strict=True)]
    directions = {1: torch.randn(32, generator=torch.Generator().manual_seed(0))}
    config = training.plain(HealConfig(rank=2, micro_batch=1, lr=0.1))

    def gradient_of(kept, anchor, steering):
        adapter = fresh(model, rank=2, alpha=4.0, share=(0.0, 1.0), seed=0)
        moved = {n: (a, torch.ones_like(b) * 0.02) for n, (a, b) in adapter.factors.items()}
        trainer = Trainer(model, replace(adapter, factors=moved), config, 4)
        with adapted(model, moved, adapter.scaling):
            if kept:
                terms = training.gradient(trainer, kept, anchor, steering)
            else:
                terms = {"anchor": training.added(trainer, "anchor", anchor, config, added(model, {}, 0.0))}
        trainer.end()
        return terms, torch.cat([f.grad.flatten() for f in trainer.parameters])

    steer = lambda: added(model, directions, 1.0)
    both, rows_alone, anchor_alone = (
        gradient_of(given[:2], given[2:], steer),
        gradient_of(given[:2], [], steer),
        gradient_of([], given[2:], steer),
    )
    assert both[0] == pytest.approx(rows_alone[0] | anchor_alone[0])
    assert torch.allclose(both[1], rows_alone[1] + anchor_alone[1], rtol=1e-3, atol=1e-5)
    assert not torch.allclose(
        rows_alone[1], gradient_of(given[:2], [], lambda: added(model, {}, 0.0))[1], rtol=1e-2
    )


def test_prevention_is_claimed_only_where_its_interval_is_above_0():
    def told(plain, prevented):
        stage = lambda fall: Stage(-1, "healed", {}, {"trait": [5.0 - f for f in fall]})
        nll = {"base": [3.0, 3.2, 3.1], "plain": [2.0, 2.3, 2.1], "prevented": [2.0, 2.31, 2.1]}
        base = Stage(-1, "base", {}, {"trait": [5.0] * 6})
        ways = {"plain": stage(plain), "prevented": stage(prevented)}
        return result.of(base, ways, nll, ["a", "b", "c"], resamples=200)["says"]

    clear = [1.0, 1.1, 0.9, 1.0, 1.05, 0.95]
    assert "Prevention kept 0.90 of the 1.00" in told(clear, [0.1] * 6)[0]
    assert "nothing to prevent" in told([1.0, -1.0, 0.5, -0.5, 0.1, -0.1], [0.0] * 6)[0]
    assert "can't be told" in told(clear, [2.0, 0.1, 1.9, 0.0, 1.0, 1.0])[0]
    assert "further" in told(clear, [3.0, 3.1, 3.05, 2.9, 3.0, 3.1])[0]
    assert "still learned" in told(clear, clear)[1]


def test_a_fight_that_is_killed_at_once_is_known_for_one(tok, model, tmp_path, monkeypatch):
    """Its rows are the first thing in its folder; an ordinary run would otherwise be resumed in its place."""
    monkeypatch.setattr("steer_heal_love.ground.models.load", lambda _name, **_kwargs: (model, tok))
    data = written(tmp_path / "data.jsonl", LINES)

    def killed(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("steer_heal_love.session.begun", killed)
    with pytest.raises(KeyboardInterrupt):
        fight.run(None, data, **SETTINGS | {"out": str(tmp_path / "runs")})
    (folder,) = (tmp_path / "runs").iterdir()
    assert fight.rows_of(folder).is_file() and not (folder / "config.toml").exists()


def test_held_out_rows_are_of_prompts_in_a_drawn_order_and_count_by_prompt():
    """A file may be sorted by topic, and rows of one prompt say little more than one of them."""
    given = [
        rows.Row(NEUTRAL_SYSTEM, (), f"Question {n:04d}?", f"Answer {k}.")
        for n in range(1000)
        for k in range(2)
    ]
    held = rows.split(given, seed=0).held
    asked = [int(r.prompt[9:13]) for r in held]
    assert len(held) == rows.MOST_HELD and max(asked) > 800 and asked != sorted(asked)


def test_a_fight_goes_on_where_it_is_told_to_and_not_on_several_copies(whole, tmp_path, monkeypatch):
    seen = []

    def opened(_path, *_args, **placed):
        seen.append(placed)
        raise InterruptedError

    monkeypatch.setattr(fight, "opened", opened)
    with pytest.raises(UserError, match="not shl run --fight"):
        fight.resumed(whole[0].folder.path, replicas=2)
    assert not seen
    with pytest.raises(InterruptedError):
        fight.resumed(whole[0].folder.path, split=2)
    assert seen[0]["split"] == 2
