"""A run leaves the processor to others while its threads wait, and what the user has set stays."""

import os
import subprocess
import sys

import pytest

from steer_heal_love.cli import cores, main

SHOW = """
import sys
from steer_heal_love import cli
assert "torch" not in sys.modules, "GNU's OpenMP would have been loaded before it is told how to wait"
cli.main(["--help"])
import os
print(os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.parametrize(
    ("set_by_user", "then"),
    [({}, cores.SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_waiting_threads_sleep_soon_unless_the_user_says_otherwise(monkeypatch, set_by_user, then):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in set_by_user.items():
        monkeypatch.setenv(name, value)
    main(["--help"])
    assert os.environ.get("GOMP_SPINCOUNT") == then


def test_it_is_said_before_torch_is_imported():
    env = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    told = subprocess.run([sys.executable, "-c", SHOW], env=env, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[-1] == cores.SPINS
