"""The wheel by itself, without the source tree: a model is tried and a tiny run made in a fresh environment. Nightly."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from steer_heal_love.cli import runs

ROOT = Path(__file__).parent.parent
TINY = (
    "--rounds 1 --vector.contexts 4 --generate.prompts 4 --generate.max-new-tokens 16 --walk.doses 2 --walk.passes 1 "
    "--filter.calibration 8 --filter.least 1 --filter.keep 4 --heal.epochs 1 --heal.anchor-prompts 8 --eval.probes 4 "
    "--eval.neutral-prompts 8 --eval.sample-prompts 2 --eval.instruments neutral probes samples --eval.transfer off "
    "--eval.no-nulls --eval.no-wordings"
)


def test_the_settings_of_the_tiny_run_are_settings():
    tyro.cli(runs.Run, args=["--persona", "love", *TINY.split()]).check()


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_the_wheel_works_without_the_source_tree(tmp_path):
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if not uv:
        pytest.skip("uv is not installed; `make install` puts it into .venv")
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def done(*words: str, **named: str) -> None:
        subprocess.run(words, check=True, cwd=tmp_path, env=clean | named)

    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    # The wheel is built from the source archive, so that a file which the archive lacks is missed here too.
    done(uv, "build", "--quiet", "--out-dir", str(dist), str(ROOT))
    (wheel,) = dist.glob("*.whl")
    assert list(dist.glob("*.tar.gz"))
    done("sh", str(ROOT / "tools" / "install"), PYTHON=sys.executable, WHEEL=str(wheel))
    python, shl = (str(tmp_path / ".venv" / "bin" / name) for name in ("python", "shl"))
    where = "import steer_heal_love, sys; sys.exit(not steer_heal_love.__file__.startswith(sys.prefix))"
    done(python, "-c", where)
    done(shl, "doctor", "--model", "smollm2")
    done(shl, "run", "--persona", "love", "--model", "smollm2", "--out", "runs", *TINY.split())
    assert list(tmp_path.glob("runs/*/report.html"))
