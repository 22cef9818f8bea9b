"""However many rows a folder has, its page opens at once: what is embedded is bounded, and what is left out is counted."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from steer_heal_love import report
from steer_heal_love.ground import records
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.folder import RunFolder
from steer_heal_love.report.bounds import POINTS, ROWS, TEXT, clipped, thinned

ROWS_HELD = 100_000
SECONDS = 2.0
LARGEST = 8_000_000
"""bytes of a page that opens in that time"""


def multiplied(file: Path, change) -> None:
    """The file's JSON after `change`."""
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def large(fabricate, say: str = "") -> Path:
    """A run whose every list has 100,000 rows."""
    run = fabricate("large", rounds=1, say=say)
    row = run / "rounds" / "00" / "completions.jsonl"
    line = json.loads(row.read_text().splitlines()[0])
    row.write_text(
        "".join(
            json.dumps(line | {"prompt": f"{i}", "dose": 0.1 + i / ROWS_HELD, "reasons": [f"r{i}{say}"]})
            + "\n"
            for i in range(ROWS_HELD)
        )
    )
    multiplied(
        run / "rounds" / "00" / "healing.json",
        lambda h: [
            h["steps"].extend({"step": i, "nll": i % 7} for i in range(ROWS_HELD)),
            h["warnings"].extend(f"w{i}" for i in range(ROWS_HELD)),
        ],
    )
    sample = {"text": "t" * 50 + say, "ids": [1], "ended": True}
    multiplied(
        run / "base" / "scores.json",
        lambda s: s["stages"][0]["samples"].extend({"prompt": f"p{i}", **sample} for i in range(ROWS_HELD)),
    )
    multiplied(
        run / "summary.json",
        lambda s: s["gates"].extend([s["gates"][0] | {"means": "m" * 9_000}, *[s["gates"][0]] * ROWS_HELD]),
    )
    with RunFolder(run).event.path.open("a") as f:
        f.writelines(
            json.dumps({"t": 1, "event": "warning", "round": 0, "message": f"{i}{say}"}) + "\n"
            for i in range(ROWS_HELD)
        )
    return run


def test_lists_and_texts_are_cut_and_the_rest_counted():
    assert clipped("x" * TEXT) == "x" * TEXT and "(7 more characters)" in clipped("x" * (TEXT + 7))
    few, many = thinned(range(POINTS)), thinned(range(ROWS_HELD + 1))
    assert few == list(range(POINTS)) and len(many) <= POINTS + 1 and (many[0], many[-1]) == (0, ROWS_HELD)
    assert thinned([]) == []


@pytest.mark.long
def test_a_page_of_a_hundred_thousand_rows_opens_at_once_and_runs_nothing(fabricate, tmp_path):
    sys.path.append(str(Path(__file__).parents[1] / "talk"))
    import chromium

    if not chromium.browser():
        pytest.skip("no Chromium here; `apt install chromium` lifts this")
    harm = "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">{{ 'dro' * 3 }}"
    run = large(fabricate, harm)
    report.write([run], tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert len(page) < LARGEST and "more prompts" in page and f"{ROWS_HELD - ROWS:,}"[:3] in page
    with chromium.Page(tmp_path / "profile") as browser:
        began = time.monotonic()
        browser.open((tmp_path / "r.html").as_uri())
        browser.until("document.readyState == 'complete' && document.querySelectorAll('section').length > 6")
        seconds = time.monotonic() - began
        assert browser.eval("document.title").endswith(": steer-heal-love")
        assert browser.eval("performance.getEntriesByType('resource').length") == 0
        assert browser.eval("document.scripts.length") == 0 and "drodrodro" not in page
        assert browser.complaints() == []
    assert seconds < SECONDS


def test_a_page_is_bounded_whatever_the_folder_holds(fabricate, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROWS_HELD", 3_000)
    run = large(fabricate)
    report.write([run], tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert len(page) < LARGEST
    for what, kept in (('class="entry"', ROWS + 6), ('class="note"', ROWS + 60), ("dropped by <code>", ROWS)):
        assert page.count(what) <= kept, what
    assert f"… and {3_000 - ROWS:,} more" in page or "more notes, in events.jsonl" in page
    assert records.read_json(run / "summary.json")["gates"]


def test_more_stages_than_rounds_could_give_are_refused(fabricate, tmp_path):
    run = fabricate(rounds=1)
    multiplied(run / "base" / "scores.json", lambda s: s["stages"].extend(s["stages"] * 600))
    with pytest.raises(UserError, match="stages"):
        report.write([run], tmp_path / "r.html")
