"""A polite end unwinds and says how to go on; a second one ends at once; neither is a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import steer_heal_love

CODE = """
import time
from steer_heal_love import cli
from steer_heal_love.ground.errors import resumable

def slow(_argv):
    with resumable("the same again"):
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            print("unwinding", flush=True)
            {unwinding}

cli.dispatch = slow
cli.main([])
"""


def ended(number: int, times: int) -> tuple[int, str]:
    code = CODE.format(unwinding="time.sleep(60)" if times > 1 else "pass")
    env = {**os.environ, "PYTHONPATH": str(Path(steer_heal_love.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as p:
        assert p.stdout.readline() == "ready\n"
        p.send_signal(number)
        assert p.stdout.readline() == "unwinding\n"
        if times > 1:
            p.send_signal(number)
        return p.wait(timeout=30), p.stderr.read()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_says_how_to_go_on(number, status):
    code, said = ended(number, 1)
    assert (code, said) == (
        status,
        "interrupted; everything up to the last finished step is kept; to go on: the same again\n",
    )


def test_a_second_signal_waits_for_nothing():
    assert ended(signal.SIGINT, 2) == (130, "interrupted\n")
