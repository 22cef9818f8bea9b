"""A sweep on a tiny model: what is measured once, what a killed worker costs, what is added, and what is refused.

The workers here are forks of this process, which have all modules in memory: an executor like any other, behind the same
door. The long test kills one of the default executor's.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w
from markupsafe import Markup
from rich.console import Console

from steer_heal_love import cells, cli, compare, report
from steer_heal_love.cells import work
from steer_heal_love.cells.store import Store
from steer_heal_love.config import RunConfig
from steer_heal_love.executors import Asked, Ended, attempted, executors
from steer_heal_love.ground import models, records
from steer_heal_love.ground.errors import UserError
from steer_heal_love.persona import path as persona_path
from steer_heal_love.report import canvas
from steer_heal_love.report.cells_live import watched
from tiny_model import build_model
from tiny_run import SETTINGS, timeless

CHEAP = {k: v for k, v in SETTINGS.items() if k not in ("persona", "model", "seed")}
CHEAP |= {
    "rounds": 1,
    "eval": SETTINGS["eval"] | {"nulls": False, "transfer": "off", "third_answers": False, "probes": 4},
}
AXES = {"persona": ["love"], "method": ["prompt", "null_temperature"], "seed": [0, 1]}
GRID = {"coolings": [1.2, 1.5], "budgets": [1e-4]}


class Forked:
    """A process a piece of work, forked."""

    def __init__(self, asked: Asked):
        self.slots, self.threads, self.running = asked.workers, 0, {}

    def submit(self, name, work):
        if not (child := os.fork()):
            status = 1
            try:
                status = 2 if attempted(work) else 0
            finally:  # the parent must never return from here twice
                os._exit(status)
        self.running[child] = name

    def ended(self, wait):
        until, out = time.monotonic() + min(wait, 0.05), []
        while not out and time.monotonic() < until:
            for child in list(self.running):
                pid, status = os.waitpid(child, os.WNOHANG)
                if pid:
                    how = (
                        "lost"
                        if os.WIFSIGNALED(status)
                        else ["done", "broke", "failed"][os.WEXITSTATUS(status)]
                    )
                    out.append(Ended(self.running.pop(child), how, "because"))
            time.sleep(0.005)
        return out

    def close(self):
        for child in self.running:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


@pytest.fixture(scope="module", autouse=True)
def world(tok):
    """The executor `forked`; a model made anew each time; figures that aren't drawn, which are half of the cost."""
    executors.get("local")  # found before the dictionary is replaced
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executors, "_items", {**executors._items, "forked": Forked})
        patch.setattr(
            models, "load", lambda *_a, **_how: (build_model(len(tok), tok.eos_token_id, depth=2), tok)
        )
        patch.setattr(canvas, "svg", lambda *_a, **_how: Markup("<svg></svg>"))
        patch.setattr(canvas, "png", lambda _draws, _size, to: to.write_text(canvas.MARK))
        yield


@pytest.fixture(scope="module")
def tiny_folder(tok, tmp_path_factory):
    return saved(tmp_path_factory.mktemp("models") / "tiny", tok)


def saved(folder: Path, tok) -> Path:
    build_model(len(tok), tok.eos_token_id, depth=2).save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


def written(to: Path, model: Path, **more) -> Path:
    """A sweep's file."""
    table = {"axes": {**AXES, "model": [str(model)]}, "settings": CHEAP, "grid": GRID, "executor": "forked"}
    to.write_text(tomli_w.dumps(table | more))
    return to


def times_begun(out: Path, asked: cells.Asked) -> list[int]:
    return [len(Store(out).begun(c)) for b in asked.benches for c in b.cells]


def killing(out: Path, asked: cells.Asked, after: int, dead: list[int]):
    """Kill the worker of a cell that is under way, once, when at least `after` cells are done."""
    every = [c for b in asked.benches for c in b.cells]

    def watch(states):
        busy = [(s, c) for s, c in zip(states, every, strict=True) if s.state == "running"]
        if dead or not busy or sum(s.state == "done" for s in states) < after:
            return
        state, cell = busy[-1]
        if Store(out).log(cell).read()[-1]["event"] == "began":
            dead.append(int(state.who.rpartition(":")[2]))
            os.kill(dead[0], signal.SIGKILL)

    return watch


OF_THE_CLOCK = re.compile(rb'<p class="quiet">It took [^<]*, without the work that methods share')


def said(out: Path) -> dict[str, bytes | str]:
    """The report's files without the times in them."""
    files = [out / "sweep.json", out / "sweep.html", *sorted((out / "groups").rglob("*"))]
    timed = lambda f: OF_THE_CLOCK.sub(b"", f.read_bytes()) if f.suffix == ".html" else timeless(f)
    return {str(f.relative_to(out)): timed(f) for f in files if f.is_file()}


@pytest.fixture(scope="module")
def whole(tiny_folder, tmp_path_factory):
    """Four cells, one of whose workers was killed; the states that were told."""
    home = tmp_path_factory.mktemp("sweep")
    seen: list = []
    asked = cells.asked(written(home / "s.toml", tiny_folder), workers=2)
    cells.run(asked, home / "out", seen.append)
    return home, asked, seen


def test_a_killed_worker_costs_one_cell_and_the_report_is_the_same(whole, tmp_path):
    home, asked, _ = whole
    dead: list[int] = []
    cells.run(asked, tmp_path / "out", killing(tmp_path / "out", asked, 1, dead))
    assert len(dead) == 1
    assert sorted(times_begun(tmp_path / "out", asked)) == [1, 1, 1, 2]
    assert set(times_begun(home / "out", asked)) == {1}
    assert said(tmp_path / "out") == said(home / "out")


def test_nothing_is_measured_twice_and_an_axis_may_grow(whole, tmp_path):
    """Again: no cell is begun. One seed more: only its cells are, and those of before keep their addresses."""
    home, asked, _ = whole
    before = said(home / "out")
    shutil.copytree(home / "out", tmp_path / "out")
    cells.run(asked, tmp_path / "out")
    assert set(times_begun(tmp_path / "out", asked)) == {1} and said(tmp_path / "out") == before
    model = Path(asked.spec.models[0])
    more = cells.asked(
        written(
            tmp_path / "s.toml",
            model,
            axes={**AXES, "seed": [1, 0, 2], "method": ["prompt"], "model": [str(model)]},
        )
    )
    cells.run(more, tmp_path / "out")
    assert times_begun(tmp_path / "out", more) == [1, 1, 1]
    assert {c.key for b in asked.benches for c in b.cells if c.method == "prompt"} < {
        c.key for b in more.benches for c in b.cells
    }
    found = report.terminal_sweep(tmp_path / "out")
    shown = Console(width=100, file=io.StringIO())
    shown.print(found)
    assert "3 cells" in shown.file.getvalue() and "prompt" in shown.file.getvalue()


def test_the_report_is_the_comparisons_own(whole):
    """A group's folder is a comparison's: the same numbers as `shl compare` has of these seeds and methods."""
    home, asked, _ = whole
    found = records.read_json(home / "out" / "groups" / "tiny-love" / "compare.json")
    assert found["seeds"] == [0, 1] and {m["name"] for m in found["methods"]} == set(AXES["method"])
    sweep = records.read_json(home / "out" / "sweep.json")
    assert sweep["cells"] == 4 and sweep["groups"][0]["lacking"] == 0
    cfg = asked.benches[0].config
    direct = compare.run(
        cfg, out=home / "compare", seeds=2, methods=tuple(AXES["method"]), grid=asked.spec.grid
    )
    strip = lambda d: [{k: v for k, v in m.items() if k != "seconds"} for m in d["methods"]]
    assert strip(found) == strip(records.plain(direct))
    page = (home / "out" / "sweep.html").read_text()
    assert "null_temperature" in page and "Content-Security-Policy" in page


def test_what_is_told_while_it_works(whole):
    _, _, seen = whole
    assert {s.state for s in seen[-1]} == {"done"} and all(s.who and s.seconds >= 0 for s in seen[-1])
    assert any(s.state == "running" for states in seen for s in states)
    for width, terminal in ((80, True), (200, False)):
        out = Console(width=width, height=6, force_terminal=terminal, file=io.StringIO())
        with watched(out) as watch:
            for states in seen:
                watch(states)
        text = out.file.getvalue()
        assert "4 done" in text if terminal else text.count(": done after") == 4
        assert not terminal or "and 2 more" in text


def test_a_cells_address_is_of_all_that_it_depends_on(tiny_folder, tok, tmp_path):
    def key(**more):
        asked = cells.asked(
            written(
                tmp_path / "s.toml", tiny_folder, **{"axes": {**AXES, "model": [str(tiny_folder)]}} | more
            )
        )
        return asked.benches[0].cells[0].key

    first = key()
    mine = tmp_path / "mine.toml"
    mine.write_bytes(persona_path("love").read_bytes())
    axes = lambda **more: {**AXES, "model": [str(tiny_folder)]} | more
    assert key(axes=axes(persona=[str(mine)])) == first, "the text counts, not where it lies"
    assert key(workers=3, executor="ray") == first and key(grid=GRID | {"budgets": [0.1]}) == first
    with pytest.raises(UserError, match="the same persona and model under two names"):
        key(axes=axes(persona=["love", str(mine)]))
    mine.write_text(mine.read_text().replace("love", "lave", 1))
    other = saved(tmp_path / "other", tok)
    (other / "config.json").write_text(
        (other / "config.json").read_text().replace('"rope', ' "rope', 1) + " "
    )
    changed = [
        key(axes=axes(persona=[str(mine)])),
        key(axes=axes(seed=[7])),
        key(axes=axes(method=["null_temperature"])),
        key(axes=axes(model=[str(other)])),
        key(settings=CHEAP | {"rounds": 2}),
        key(grid=GRID | {"coolings": [1.3]}),
        key(overrides={"persona": {"love": {"heal": {"anchor": 0.5}}}}),
    ]
    assert len({first, *changed}) == len(changed) + 1


def test_a_bench_that_fails_is_told_and_its_cells_are_said_to_be_lacking(whole, tiny_folder, tmp_path):
    """One seed's run folder was changed by other hands: its cells fail, and no table is made without them."""
    home, asked, _ = whole
    out = tmp_path / "out"
    shutil.copytree(home / "out", out)
    bench = asked.benches[0]
    Store(out).file(bench.cells[0]).unlink()
    scores = Store(out).base(bench)
    scores.write_text(scores.read_text().replace("0", "1", 1))
    with pytest.raises(UserError, match=r"(?s)2 cells failed.*love, prompt, seed 0"):
        cells.run(asked, out)
    assert records.read_json(out / "sweep.json")["groups"][0]["lacking"] == 2
    assert "2 cells are lacking" in (out / "sweep.html").read_text()


def test_a_cell_that_loses_three_workers_fails_and_its_bench_goes_on(whole, monkeypatch, tmp_path):
    """Every worker that begins seed 0's second cell dies of it; all others are measured."""
    _, asked, _ = whole
    fatal, began = asked.benches[0].cells[1].key, Store.began

    def dying(self, cell):
        began(self, cell)
        if cell.key == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(Store, "began", dying)
    with pytest.raises(UserError, match=r"(?s)^1 cell failed.*null_temperature, seed 0.*3 workers tried"):
        cells.run(asked, tmp_path / "out")
    assert times_begun(tmp_path / "out", asked) == [1, 3, 1, 1]
    assert records.read_json(tmp_path / "out" / "sweep.json")["groups"][0]["lacking"] == 1


MISTAKES = [
    ({"axes": {"persnoa": ["love"]}}, "unknown axis 'persnoa'.*did you mean 'persona'"),
    ({"axs": {}}, "unknown key 'axs'.*did you mean 'axes'"),
    ({"axes": {"seed": ["0"]}}, "axes.seed: expected a list of whole numbers"),
    ({"axes": {"seed": [0, 0]}}, "axes.seed: a value is there twice"),
    ({"axes": {"method": ["sfft"]}}, "unknown method of comparison 'sfft'.*'sft'"),
    ({"axes": {"persona": ["lave"]}}, "unknown persona 'lave'.*'love'"),
    ({"axes": {"model": ["./nowhere"]}}, "no such folder"),
    ({"settings": {"rouns": 2}}, "unknown setting 'rouns'.*did you mean 'rounds'"),
    ({"settings": {"seed": 2}}, "settings.seed: the axes and --out decide it"),
    ({"settings": {"trust_remote_code": True}}, "settings.trust_remote_code.*--trust-remote-code"),
    ({"overrides": {"persona": {"joy": {"rounds": 1}}}}, "'joy' is none of axes.persona"),
    ({"overrides": {"method": {}}}, "overrides: unknown axis 'method'"),
    ({"overrides": {"persona": "love"}}, "overrides.persona: expected a table"),
    ({"grid": {"scale": [1.0]}}, "unknown key 'scale'.*did you mean 'scales'"),
    ({"grid": {"scales": [1.0, 0.5]}}, "grid.scales: numbers above 0, rising"),
    ({"cluster": {"partion": "gpu"}}, "unknown setting 'cluster.partion'.*did you mean 'partition'"),
    ({"workers": 0}, "workers: a whole number, at least 1"),
    ({"executor": "rya"}, "unknown executor 'rya'.*'ray'"),
    ({"preset": "gpo"}, "preset: 'gpo'.*did you mean 'gpu'"),
    ({"settings": 3}, "settings: expected a table"),
]


@pytest.mark.parametrize(("table", "says"), MISTAKES, ids=[s for _, s in MISTAKES])
def test_a_mistake_in_the_file_is_told_and_nothing_is_written(
    table, says, tiny_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    model = {"model": [str(tiny_folder)]}
    table = {"settings": CHEAP, "axes": model} | table
    table["axes"] = model | table["axes"]
    Path("s.toml").write_text(tomli_w.dumps(table))
    with pytest.raises(SystemExit, match="^2$"):
        cli.main(["sweep", "s.toml", "--out", "out"])
    assert re.search(says, " ".join(capsys.readouterr().err.split())), says
    assert not Path("out").exists()


def test_a_folder_of_something_else_is_left_alone(tiny_folder, tmp_path):
    asked = cells.asked(written(tmp_path / "s.toml", tiny_folder))
    with pytest.raises(UserError, match="holds something else than a sweep"):
        cells.run(asked, tmp_path)
    with pytest.raises(UserError, match="a file; --out takes a folder"):
        cells.run(asked, tmp_path / "s.toml")
    assert [p.name for p in tmp_path.iterdir()] == ["s.toml"]


@pytest.mark.long
@pytest.mark.timeout(0)
def test_of_twenty_cells_one_is_redone_after_a_kill_and_the_report_is_the_same(tok, tmp_path):
    """Twice twenty cells by the default executor's processes; one of them gets SIGKILL while it works."""
    folder = saved(tmp_path / "tiny", tok)
    file = written(
        tmp_path / "s.toml",
        folder,
        axes={**AXES, "seed": list(range(10)), "model": [str(folder)]},
        executor="local",
        workers=2,
    )
    asked, dead = cells.asked(file), []
    assert sum(len(b.cells) for b in asked.benches) == 20
    cells.run(asked, tmp_path / "whole")
    cells.run(asked, tmp_path / "killed", killing(tmp_path / "killed", asked, 7, dead))
    assert len(dead) == 1
    assert sorted(times_begun(tmp_path / "killed", asked)) == [1] * 19 + [2]
    assert set(times_begun(tmp_path / "whole", asked)) == {1}
    assert said(tmp_path / "killed") == said(tmp_path / "whole")


def test_a_worker_loads_its_model_as_the_settings_say(monkeypatch):
    """With its layers over as many GPUs, once for settings that only differ in what is done with it; and each bench's engine
    has to know the model."""
    loads, engines = [], []
    monkeypatch.setattr(work, "loaded", lambda cfg: loads.append(cfg) or (None, None))
    monkeypatch.setattr(work.engine, "allow", lambda cfg: engines.append(cfg.generate.engine))
    monkeypatch.setattr(work.engine, "fit", lambda generate, _model: engines.append(generate.engine))
    work.held_as.cache_clear()
    cfg = RunConfig(split=2, persona="joy", generate=replace(RunConfig().generate, engine="vllm"))
    work.held(cfg)
    work.held(replace(cfg, persona="love", generate=replace(cfg.generate, temperature=0.5)))
    assert [c.split for c in loads] == [2] and engines == ["vllm"] * 4
    work.held_as.cache_clear()
