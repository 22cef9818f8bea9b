"""Nobody is left at work: not after an interrupt, nor after a kill."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from steer_heal_love.ground import aside as module
from steer_heal_love.ground.aside import Aside

SLEEPS = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def busy():
    """One with a thread that waits to be told, and a process that takes a minute."""
    go, done, aside = threading.Event(), [], Aside()
    aside.begin(lambda: (go.wait(60), done.append("thread")))
    aside.start(SLEEPS)
    yield aside, go, done
    go.set()
    aside.settle()


def interrupted(_futures):
    raise KeyboardInterrupt


def test_who_is_interrupted_while_it_waits_still_has_the_thread_to_settle(busy, monkeypatch):
    aside, go, done = busy
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "wait", interrupted)
        aside.finish()
    assert not done
    go.set()
    aside.settle()
    assert done == ["thread"]


def test_a_process_is_ended_even_where_settling_is_interrupted(busy, monkeypatch):
    aside, _, _ = busy
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "wait", interrupted)
        aside.settle()
    assert not aside.running


def test_a_status_is_told_once():
    aside = Aside()
    assert aside.ended() is None and not aside.running
    aside.start([sys.executable, "-c", "raise SystemExit(3)"])
    while aside.running:
        time.sleep(0.01)
    assert aside.ended() == 3 and aside.ended() is None


PARENT = """
import sys, time
from steer_heal_love.ground.aside import Aside
aside = Aside()
aside.start(sys.argv[1:])
print("begun", flush=True)
time.sleep(60)
"""
CHILD = """
import os, sys
from pathlib import Path
from steer_heal_love.report.__main__ import ends_with_its_input
os._exit = lambda status: Path(sys.argv[1]).write_text("ended")
ends_with_its_input()
"""


def test_what_draws_a_report_ends_with_the_process_that_wants_it(tmp_path):
    """A kill closes its input; the folder may be another's from then on."""
    child = [sys.executable, "-c", CHILD, str(tmp_path / "said")]
    with subprocess.Popen([sys.executable, "-c", PARENT, *child], stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline() == b"begun\n"
        time.sleep(0.5)
        assert not (tmp_path / "said").exists()
        parent.kill()
    until = time.monotonic() + 60
    while not (tmp_path / "said").exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert (tmp_path / "said").exists()
