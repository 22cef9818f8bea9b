"""The report takes any run, escapes what models and users wrote, and needs nothing but its own file."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console

from steer_heal_love import filter as sieve
from steer_heal_love import report
from steer_heal_love.config import WalkConfig
from steer_heal_love.ground import folder as files
from steer_heal_love.ground import records
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.halves import halves
from steer_heal_love.nouns import Completion, Response, Score, Tokens
from steer_heal_love.report import html, panels, screen
from steer_heal_love.report.borderline import borderline
from steer_heal_love.report.panels import survival
from steer_heal_love.report.read import read

VOID = {"meta", "link", "br", "wbr", "img", "input", "hr", "use", "path"}


class Page(HTMLParser):
    """Collects tags and attributes, and checks that they nest."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    @property
    def ids(self) -> list[str]:
        return [i for _, a in self.tags if (i := a.get("id"))]


def write(tmp_path: Path, *runs: Path) -> tuple[str, Page]:
    to = tmp_path / "out" / "report.html"
    report.write(list(runs), to)
    assert (to.parent / "trajectory.png").read_bytes().startswith(b"\x89PNG")
    text = to.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open
    return text, page


def show(run: Path) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=80).print(report.terminal(run))
    return out.getvalue().splitlines()


def test_a_heal_of_before_is_read_by_its_old_names(fabricate, tmp_path):
    run = fabricate(rounds=1)
    page, _ = write(tmp_path, run)
    file = run / "rounds" / "00" / "healing.json"
    row = records.read_json(file)
    ratios = row["gradient_ratios"]
    records.write_json(file, {k: v for k, v in row.items() if k != "gradient_ratios"} | {"pressure": ratios})
    assert ratios and write(tmp_path, run)[0] == page


@pytest.mark.parametrize(
    "until, rounds", [("base", 1), ("starved", 1), ("starved", 2), ("healing", 1), ("end", 1), ("end", 3)]
)
def test_a_run_at_any_point(fabricate, tmp_path, until, rounds):
    run = fabricate(rounds=rounds, until=until)
    text, page = write(tmp_path, run)
    assert ("No round" in text) == (until == "base" or (rounds == 1 and until != "end"))
    assert ("Starved:" in text) == (until == "starved")
    assert {a["href"][1:] for t, a in page.tags if t == "a"} <= set(page.ids)
    assert len(show(run)) <= 40


def test_a_plot_that_does_not_fit_on_the_disk_keeps_the_last_one(fabricate, tmp_path, monkeypatch):
    run = fabricate(rounds=1)
    write(tmp_path, run)
    before = {p: p.read_bytes() for p in (tmp_path / "out").iterdir()}

    def torn(_canvas, to, **_kwargs):
        Path(to).write_bytes(b"\x89PN")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FigureCanvasAgg, "print_png", torn)
    with pytest.raises(UserError, match=r"trajectory\.png: No space left"):
        report.write([run], tmp_path / "out" / "report.html")
    assert {p: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before


def test_a_report_below_a_file_is_a_user_error(fabricate, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot write"):
        report.write([fabricate(rounds=1)], tmp_path / "file" / "report.html")


def test_missing_files_show_as_nothing(fabricate, tmp_path):
    run = fabricate(rounds=2)
    for name in (
        "summary.json",
        "config.toml",
        "persona.toml",
        "rounds/01/healing.json",
        "rounds/01/scores.json",
    ):
        (run / name).unlink()
    (run / "rounds" / "02").mkdir()
    with (run / "events.jsonl").open("a") as log:
        log.write('{"t": 1, "event": "do')
    text, _ = write(tmp_path, run)
    assert "No gate has been reached yet." in text
    assert show(run)


def test_no_run_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no run there"):
        report.write([tmp_path], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_undefined_scores_are_dashes(fabricate, tmp_path):
    run = fabricate(rounds=2)
    for file in run.glob("rounds/*/scores.json"):
        data = records.read_json(file)
        for stage in data["stages"]:
            for score in stage["scores"].values():
                score.update(mean=None, lo=None, hi=None, n=0)
        records.write_json(file, data)
    healing = records.read_json(run / "rounds/00/healing.json")
    healing["validation"][0]["nll"] = healing["steps"][0]["barrier"] = healing["gradient_ratios"][0][
        "anchor"
    ] = None
    records.write_json(run / "rounds/00/healing.json", healing)
    text, _ = write(tmp_path, run)
    assert "NaN" not in text and not re.search(r">[^<]*\bnan\b", text)
    assert not any("nan" in line for line in show(run))


def test_what_others_wrote_is_escaped(fabricate, tmp_path):
    say = " <script>alert('x')</script> $\\frac{1}{0}$ </details><img src=x onerror=alert(1)>"
    text, page = write(
        tmp_path, fabricate("a <script> $run$", rounds=1, say=say), fabricate("b $x^", rounds=1, say=say)
    )
    assert "&lt;script&gt;alert" in text
    assert "script" not in {tag for tag, _ in page.tags} and "img" not in {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_self_contained(fabricate, tmp_path):
    text, page = write(tmp_path, fabricate(rounds=1), fabricate("other", until="base", seed=1))
    assert "http://" not in text and "https://" not in text and "@import" not in text
    assert not {"link", "script", "iframe", "object", "image"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert len(page.ids) == len(set(page.ids))


def test_the_same_run_gives_the_same_bytes(fabricate, tmp_path):
    run = fabricate(until="base")
    assert write(tmp_path, run)[0] == write(tmp_path, run)[0]


def test_two_runs_share_a_trajectory(fabricate, tmp_path):
    runs = [fabricate("first", rounds=1), fabricate("second", until="base")]
    text, page = write(tmp_path, *runs)
    assert "All trajectories" in text and {"run0-top", "run1-top"} <= set(page.ids)


def test_the_diary_shows_both_kinds_and_folds_the_rest(fabricate, tmp_path):
    run = fabricate(rounds=5)
    text, _ = write(tmp_path, run)
    diary = text[text.index("<h2>Diary</h2>") : text.index("<h2>Gates</h2>")]
    shown = diary[: diary.index("more prompts")]
    assert shown.count('class="tag">probe') == shown.count('class="tag">neutral') == 3
    healed = files.load_stages(run / "rounds/04/scores.json")[1].samples[0]["text"]
    assert healed in shown and "3 rounds between" in shown


def test_terminal_fits_one_screen(fabricate):
    lines = show(fabricate(rounds=12))
    assert len(lines) <= 40 and max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for part in ("trait_shift", "own_excess", "undecided", "adapter", "generate", "12 rounds"):
        assert part in text


@pytest.mark.parametrize("columns", [40, 60, 72, 80, 200])
def test_a_narrow_screen_has_fewer_columns_and_no_column_is_cut(fabricate, columns):
    console = Console(record=True, width=columns, file=io.StringIO())
    console.print(screen.Stages(read(fabricate(rounds=2))))
    heading, *rows = console.export_text().splitlines()
    assert [row.split("  ")[0] for row in rows] == [
        "base",
        "prompt",
        *(f"{n} {s}" for n in (0, 1) for s in ("steered", "healed")),
    ]
    assert "…" not in "".join(rows) and max(map(len, rows)) <= columns
    assert {"stage", "trait_shift", "neutral_kl"} <= set(heading.split())
    assert ("own_excess" in heading) is (columns >= 60) and ("dose" in heading) is (columns >= 80)


def test_the_row_and_its_evidence_are_shown(fabricate, tmp_path):
    run = fabricate(rounds=1)
    data = records.read_json(run / "summary.json")
    data["gates"][0] |= {
        "outcome": "wrong_way",
        "means": "It moves the wrong way. Rewrite the poles.",
        "observed": "Care -0.100 [-0.120, -0.080] (n 35)",
    }
    records.write_json(run / "summary.json", data)
    lines = show(run)
    (at,) = (i for i, line in enumerate(lines) if "wrong way: It moves the wrong way." in line)
    assert lines[at].split()[0] == "steer" and "Care -0.100" in lines[at + 1]
    text = write(tmp_path, run)[0]
    for part in ("wrong way</small>", "Care -0.100 [-0.120, -0.080] (n 35)", "Rewrite the poles."):
        assert part in text


def test_the_headline_sets_the_trait_beside_the_prompt_and_what_it_cost(fabricate):
    path = fabricate(rounds=2)
    run = read(path)
    said = html.outcome(run)
    last, told = (s.scores for s in (run.healed[-1], run.stage("prompt")))
    times = last["trait_shift"].mean / told["trait_shift"].mean
    for part in (
        f"{times:.2f} [",
        "] times what the base model reaches",
        f"drifts by {last['neutral_kl'].mean:.3f} nats/token",
        f"with the prompt, {told['neutral_kl'].mean:.3f}",
        f"{html.num(last['own_excess'].mean)} nats/token odder",
    ):
        assert part in said
    assert html.outcome(read(fabricate("base", until="base"))) == "No round has been healed yet."


def test_the_headline_names_no_multiple_of_a_prompt_that_may_have_done_nothing(fabricate):
    """+0.00 [-0.23, +0.14] of a prompt once made 52 times of it."""
    run = read(fabricate(rounds=1))
    told = run.stage("prompt")
    scores = told.scores | {"trait_shift": Score(0.002, -0.23, 0.14, 8)}
    stages = [replace(s, scores=scores) if s is told else s for s in run.stages]
    said = html.outcome(replace(run, stages=stages))
    assert (
        " times " not in said
        and "; with a system prompt, the base model reaches +0.00 [−0.23, +0.14]" in said
    )


@pytest.mark.parametrize(("excess", "said"), [(0.27, "would count"), (0.61, "counts")])
def test_the_headline_says_whether_coherence_held(fabricate, excess, said):
    run = read(fabricate(rounds=1))
    odd = {"own_excess": Score(excess, excess - 0.1, excess + 0.1, 16)}
    stages = [replace(s, scores=s.scores | odd) if s.stage == "healed" else s for s in run.stages]
    run = replace(run, stages=stages, config=run.config | {"coherence_floor": 0.5})
    assert f"; past 0.5 it {said} as broken" in html.outcome(run)


def test_the_headline_says_which_way_each_half_moved(fabricate):
    run = read(fabricate(rounds=1))
    halves_of = {"trait_pos": Score(-0.11, -0.19, -0.02, 8), "trait_neg": Score(-0.05, -0.1, 0.01, 8)}
    stages = [replace(s, scores=s.scores | halves_of) if s.stage == "healed" else s for s in run.stages]
    said = html.outcome(replace(run, stages=stages))
    assert "pos answers became less likely by +0.11 [+0.02, +0.19] and neg answers likelier by +0.05" in said


def test_the_headline_says_where_the_trait_comes_from_and_the_worst_bank(fabricate, tmp_path):
    path = fabricate(rounds=1)
    run = read(path)
    said = html.outcome(run)
    last, told = run.healed[-1], run.stage("prompt")
    pos, neg = (html.num(last.scores[n].mean, 2) for n in ("trait_pos", "trait_neg"))
    assert f"became likelier by {pos} [" in said and f"less likely by {neg} [" in said
    assert halves(last.items, told.items, resamples=2000).says in said
    drift = {k: s.mean for k, s in last.scores.items() if k.startswith("neutral_kl.")}
    worst = max(drift, key=drift.get)
    assert f"most on the {worst.split('.')[1]} ones, {drift[worst]:.3f}" in said
    page = write(tmp_path, path)[0]
    assert "<dt>trait_pos</dt>" in page and "<dt>text_auc</dt>" not in page
    assert "You are " in page


def test_the_wording_that_the_prompt_took_is_shown(fabricate, tmp_path):
    path = fabricate(rounds=1)
    tried = [{"wording": i, "system": f"S{i} <b>", "trait_shift": None} for i in range(6)]
    records.write_json(path / "base" / "wording.json", {"wording": 2, "system": "S2 <b>", "tried": tried})
    page = write(tmp_path, path)[0]
    assert "“S2 &lt;b&gt;”, the best of 6 wordings" in page


def test_what_got_in_is_told_by_round(fabricate, tmp_path):
    run = fabricate(rounds=2)
    assert "Did the healed model move along the vector?" not in write(tmp_path, run)[0]
    for number, cosine in enumerate((0.61, 0.52)):
        found = {
            "cosine": cosine,
            "carried_dose": 0.071,
            "cosine_with_first_shift": None if number else 1.0,
            "halves": {"largest": 0.17, "n": 32},
        }
        (run / f"rounds/{number:02d}/transfer.json").write_text(json.dumps(found))
    text, _ = write(tmp_path, run)
    assert "Did the healed model move along the vector?" in text
    assert all(f'<td class="n">{shown}</td>' in text for shown in ("+0.61", "+0.52", "0.17", "+0.071", "–"))


def transfer(number: int, full: bool = True, say: str = "") -> dict:
    """A round's transfer.json, as `control.transferred` makes it; what is undefined is null."""
    chance = {"mean": 0.0, "sd": 0.05, "largest": 0.17, "largest_by_layer": [0.1, None, 0.2], "n": 32}
    found = {
        "layers": [3, 4, 5],
        "cosine_by_layer": [0.5 + 0.1 * number, None, 0.7],
        "cosine": 0.61,
        "carried_dose": 0.07,
        "cosine_with_first_shift": 1.0,
        "random": chance,
        "halves": chance,
        "note": say,
    }
    if not full:
        return found
    kl = {"mean_nats": {"mean": 0.02, "lo": 0.01, "hi": 0.03, "n": 40}, "p95_nats": 0.08, "tokens": 900}
    none = {"mean_nats": {"mean": None, "lo": None, "hi": None, "n": 0}, "p95_nats": None, "tokens": 0}
    shares = {
        "sufficient": {"mean": 0.634, "lo": 0.512, "hi": 0.768, "n": 48},
        "sufficient_share": 0.634,
        "remaining": {"mean": 0.41, "lo": None, "hi": None, "n": 48},
        "remaining_share": 0.41,
    }
    control = {
        "layers": [3, 4, 5],
        "cosine_by_layer": [0.11, 0.12, None],
        "cosine": 0.123,
        "method": say,
        "texts": 36,
    }
    return found | {
        "ledger": {since: {"neutral": kl, "own": none if number else kl} for since in ("total", "round")},
        "causes": shares,
        "control": control,
    }


def transfer_section(text: str) -> str:
    return text[
        text.index("Did the healed model move along the vector?") : text.index("<h2>Survival by dose</h2>")
    ]


def test_cosines_by_layer_and_the_ledger_have_a_panel_each(fabricate, tmp_path):
    say = "<script>alert('x')</script>"
    run = fabricate(rounds=2)
    for number in (0, 1):
        records.write_json(run / f"rounds/{number:02d}/transfer.json", transfer(number, say=say))
    text, page = write(tmp_path, run)
    told = transfer_section(text)
    assert re.findall('<svg role="img" aria-label="(.*?)"', told) == [
        "Cosine with the vector by layer",
        "KL on the base&#39;s neutral answers by round",
        "KL on its own samples by round",
    ]
    for shown in (
        "unsteered control",
        "random directions",
        "random halves",
        "round 1",
        "since base",
        "this round",
        "95th percentile",
    ):
        assert f">{shown}</text>" in told
    assert '<th class="n">unsteered control</th>' in told and '<td class="n">+0.12</td>' in told
    assert "63%<small>51% … 77%</small>" in told and "41%<small>– … –</small>" in told
    assert not re.search(r"\bnan\b", told, re.I) and "alert" not in text
    assert "script" not in {tag for tag, _ in page.tags}


def test_what_was_not_measured_has_no_panel(fabricate, tmp_path):
    """Cosine alone, a run that went over to all of it, and one from before the shares had an interval."""
    run = fabricate(rounds=2)
    records.write_json(run / "rounds/00/transfer.json", transfer(0, full=False))
    told = transfer_section(write(tmp_path, run)[0])
    assert (
        told.count("<svg") == 1
        and "ledger" not in told
        and "control" not in told
        and "%" not in told.split("<svg")[0]
    )
    later = transfer(1)
    for new in ("sufficient", "remaining"):
        del later["causes"][new]
    records.write_json(run / "rounds/01/transfer.json", later)
    told = transfer_section(write(tmp_path, run)[0])
    assert told.count("<svg") == 3 and '<td class="n">63%</td>' in told and "<small>" not in told


def test_borderline_takes_the_nearest_on_each_side():
    made = [
        completion(v, ["nll"] if v > 1.5 else []) for v in (0.2, 0.9, 1.1, 1.3, 1.4, 1.45, 1.55, 1.7, 3.0)
    ]
    made.append(completion(1.0, ["narration"], narration=1.0))
    kept, dropped = near(made, {"nll": 1.5, "narration": 0.0}, n=2)
    assert [b.value for b in kept] == [1.45, 1.4]
    assert [b.value for b in dropped] == [1.55, 1.7]
    assert {b.check for b in kept + dropped} == {"nll"}


def test_borderline_knows_which_side_falls():
    made = [completion(9.0, ["order"] if v < 1.5 else [], order=v) for v in (1.0, 1.4, 1.6, 2.0)]
    kept, dropped = near(made, {"order": 1.5}, n=1)
    assert (kept[0].value, dropped[0].value) == (1.6, 1.4)
    assert near([], {"order": 1.5}) == ([], [])


def test_a_calibrated_bound_may_be_a_whole_number():
    made = [
        completion(nll, ["repeat_words"] if repeat else [], repeat_words=repeat)
        for nll, repeat in ((0.5, 0.0), (1.4, 0.0), (0.5, 0.02), (0.5, 0.3))
    ]
    kept, dropped = near(made, {"nll": 1.5, "repeat_words": 0.0}, n=1)
    assert (dropped[0].check, dropped[0].value) == ("repeat_words", 0.02)
    assert (kept[0].check, kept[0].value) == ("nll", 1.4), "0 of 0 is no near miss: there is nothing below it"


def near(made: list[Completion], bounds: dict[str, float], **how):
    return borderline(made, bounds, sieve.sides(bounds), **how)


def completion(nll: float, reasons: list[str], **checks: float) -> Completion:
    checks = {"nll": nll, "narration": 0.0, **checks}
    return Completion("q", Tokens((1,), (2,)), "a", 0.5, True, checks, reasons, not reasons)


def test_the_cut_is_shown_from_what_the_run_recorded(fabricate, tmp_path):
    run = fabricate(rounds=1)
    assert "Dropped, nearly kept" in write(tmp_path, run)[0]
    sides = records.read_json(run / "base/checks.json")
    records.write_json(run / "base/checks.json", {k: v | {"limit": 0.0} for k, v in sides.items()})
    assert "Dropped, nearly kept" not in write(tmp_path, run)[0]


@pytest.mark.parametrize("asked", [0.8, 0.3])
def test_the_share_asked_for_is_a_dashed_line_that_the_curve_meets_at_its_dose(fabricate, asked):
    found = read(fabricate(rounds=1)).rounds[0]
    axes = Figure().subplots()
    survival(found, asked)(axes)
    (dashed,) = (line for line in axes.lines if line.get_linestyle() == "--")
    curve = Response(**found.walk["response"])
    assert set(dashed.get_ydata()) == {asked * curve.plateau}
    assert curve.share(curve.dose(asked)) == pytest.approx(asked * curve.plateau)


def test_the_share_asked_for_is_the_runs_own(fabricate, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(panels, "survival", lambda r, asked: seen.append(asked) or survival(r, asked))
    text, _ = write(tmp_path, fabricate(rounds=1))
    assert seen == [WalkConfig.survival]
    assert (
        "The dashed line is the share that is asked for: <code>walk.survival</code> of the curve's plateau"
        in text
    )


def test_progress_is_a_line_at_each_steps_start_and_end_where_nobody_watches():
    out = io.StringIO()
    with report.progress(Console(file=out, width=80)) as track:
        with track("heal [bold]", 3) as advance:
            advance(3)
        with pytest.raises(KeyError), track("evaluate", 2):
            raise KeyError
    begun, heal, evaluate, stopped = out.getvalue().splitlines()
    assert begun.startswith("heal [bold]: ") and evaluate.startswith("evaluate: ")
    assert heal.split()[:2] == ["heal", "[bold]"] and heal.endswith(" s")
    assert "stopped after" in stopped


def test_progress_leaves_a_terminal_clean():
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True)
    with report.progress(console) as track, track("generate", 2) as advance:
        advance(1)
        advance(1)
    assert "generate" in out.getvalue()
    assert out.getvalue().count("\x1b[?25l") == out.getvalue().count("\x1b[?25h")


def test_summary_is_read_not_recomputed(fabricate, tmp_path):
    run = fabricate(rounds=1)
    data = json.loads((run / "summary.json").read_text())
    data["gates"][0] |= {"means": "as it was recorded", "unknown": 1}
    records.write_json(run / "summary.json", data)
    assert "as it was recorded" in write(tmp_path, run)[0]
