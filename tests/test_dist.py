"""The wheel by itself, without the source tree: a model is tried and a tiny run made in a fresh environment. Nightly."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TINY = (
    "--rounds 1 --vector.contexts 4 --generate.prompts 4 --generate.max-new-tokens 16 --walk.doses 2 --walk.passes 1 "
    "--filter.calibration 8 --filter.least 1 --filter.keep 4 --heal.epochs 1 --heal.anchor-prompts 8 --eval.probes 4 "
    "--eval.neutral-prompts 8 --eval.sample-prompts 2 --eval.instruments neutral probes samples --eval.transfer off "
    "--no-eval.nulls --no-eval.wordings"
)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_the_wheel_works_without_the_source_tree(tmp_path):
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if not uv:
        pytest.skip("uv is not installed; `make install` puts it into .venv")
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def done(*words: str, **more) -> None:
        subprocess.run(words, check=True, cwd=tmp_path, env=clean, **more)

    dist, venv = ROOT / "dist", tmp_path / "venv"
    shutil.rmtree(dist, ignore_errors=True)
    done(uv, "build", "--quiet", "--out-dir", str(dist), str(ROOT))
    (wheel,) = dist.glob("*.whl")
    assert list(dist.glob("*.tar.gz"))
    done(uv, "venv", "--quiet", "--python", sys.executable, str(venv))
    python = str(venv / "bin" / "python")
    done(uv, "pip", "install", "--quiet", "--python", python, "--torch-backend=auto", "torch")
    done(
        uv,
        "pip",
        "install",
        "--quiet",
        "--python",
        python,
        "--no-deps",
        "-r",
        str(ROOT / "requirements.lock"),
    )
    done(uv, "pip", "install", "--quiet", "--python", python, "--no-deps", str(wheel))
    shl = str(venv / "bin" / "shl")
    done(shl, "doctor", "--model", "smollm2")
    done(shl, "run", "--persona", "love", "--model", "smollm2", "--out", "runs", *TINY.split())
    assert list(tmp_path.glob("runs/*/report.html"))
