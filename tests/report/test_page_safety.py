"""A page that a forged run folder makes: its own policy forbids what escaping should have stopped, and it replaces no
file but a report's. What the policy does, a browser says (Chromium, where there is one)."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from steer_heal_love import report
from steer_heal_love.ground.errors import UserError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HARM = (
    " <script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\"> {{ 'dro' * 3 }} {% raw %}"
    "<a href=\"javascript:document.title='ran'\">a</a> \x1b[2J</style><svg onload=\"document.title='ran'\">"
)


def test_every_page_forbids_scripts_and_whatever_lies_elsewhere(fabricate, tmp_path):
    report.write([fabricate(rounds=1)], tmp_path / "r.html")
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', (tmp_path / "r.html").read_text())
    allowed = dict(part.split(" ", 1) for part in policy.split("; "))
    assert allowed["default-src"] == "'none'" and not {"script-src", "connect-src", "frame-src"} & set(
        allowed
    )
    assert allowed["img-src"] == "data:"


@pytest.mark.parametrize("name", ["r.html", "trajectory.png"])
def test_a_file_that_no_report_wrote_is_left_alone(fabricate, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match="no report wrote it"):
        report.write([fabricate(rounds=1)], tmp_path / "r.html")
    assert (tmp_path / name).read_text() == "mine"
    (tmp_path / name).unlink()
    for _ in range(2):
        report.write([fabricate(f"again {_}", rounds=1)], tmp_path / "r.html")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_runs_nothing_of_a_forged_folder(fabricate, tmp_path):
    report.write([fabricate(rounds=2, say=HARM)], tmp_path / "r.html")
    argv = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    told = subprocess.run(
        [*argv, "--dump-dom", (tmp_path / "r.html").as_uri()], capture_output=True, text=True, timeout=120
    )
    title = re.search(r"<title>(.*?)</title>", told.stdout, re.S)
    assert title and title[1].endswith(": steer-heal-love"), told.stderr[-500:]
    assert "drodrodro" not in told.stdout and "<script" not in told.stdout
