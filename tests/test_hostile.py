"""A generated collection of hostile files: 0 tracebacks, 0 raw escapes, 0 silently wrong results.

Sixty in every run; a thousand with `pytest -m nightly tests/test_hostile.py`. A case is repeated by its kind and seed.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
import torch

import hostile
from steer_heal_love import bake, cli, presets
from steer_heal_love.bake import llama_cpp
from steer_heal_love.cli import screen
from steer_heal_love.config import RunConfig, named
from steer_heal_love.evals.vignettes import load_bank
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.text import words
from steer_heal_love.nouns import FOUNDATIONS
from steer_heal_love.persona import load
from steer_heal_love.vector import Vector

EVERY, NIGHTLY = 10, 167
"""cases of each of the six kinds"""


def persona(path: Path) -> bool:
    p = load(str(path))
    texts = [
        p.pos,
        p.neg,
        *p.elicit,
        *p.plain,
        *(t for probe in p.probes for t in (probe.question, probe.pos, probe.neg)),
    ]
    screen.tell(p.name)
    return words(p.pos) != words(p.neg) and all(0 < len(t) <= 8_000 and words(t) for t in texts)


def settings(path: Path) -> bool:
    cfg = presets.read(path)
    cfg.check()
    screen.tell(cfg)
    start = named(RunConfig())
    return all(type(value) is type(start[name][0]) for name, (value, _) in named(cfg).items())


def vignettes(path: Path) -> bool:
    found = load_bank(path)
    for v in found:
        screen.tell(v.id)
    sound = all(
        v.text.strip() and len(v.text) <= 4_000 and v.foundation in (*FOUNDATIONS, None) for v in found
    )
    return sound and all(v.shares is None or abs(sum(v.shares) - 1) < 1e-6 for v in found)


def straight(directions: dict[int, torch.Tensor]) -> bool:
    one_width = len({tuple(v.shape) for v in directions.values()}) == 1
    return one_width and all(
        i >= 0 and v.ndim == 1 and torch.isfinite(v).all() for i, v in directions.items()
    )


def vector(path: Path) -> bool:
    v = Vector.load(path)
    cli.main(["vector", "inspect", str(path)])
    return straight(v.directions)


def adapter(path: Path) -> bool:
    a = bake.load_peft(path)
    pairs = a.factors.values()
    return (
        all(torch.isfinite(b @ x).all() and len(x) == b.shape[1] == 2 for x, b in pairs) and a.scaling == 2.0
    )


def control_vector(path: Path) -> bool:
    return straight(llama_cpp.load_control_vector(path))


READ = {"persona": persona, "settings": settings, "vignettes": vignettes, "vector": vector, "adapter": adapter, "control vector": control_vector}  # fmt: skip


def survived(case: hostile.Case, capsys) -> None:
    """Refused with a message, or read as something sound; nothing raw on the terminal either way."""
    before = sorted(case.path.parent.rglob("*"))
    try:
        sound, refused = READ[case.kind](case.path), False
    except UserError as e:
        screen.say(f"error: {e}", "red")
        sound, refused = True, True
    said = "".join(capsys.readouterr())
    assert sound, f"{case}: read as something that it isn't"
    assert refused or not case.must, f"{case}: taken without a word"
    raw = {c for c in said if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"} | set(said) & set(
        "\u202e\u2066"
    )
    assert not raw, f"{case}: {raw} on the terminal"
    assert sorted(case.path.parent.rglob("*")) == before, f"{case}: something was written"


@pytest.mark.parametrize("kind", hostile.KINDS)
def test_hostile_files_are_survived(kind, tmp_path, capsys):
    for seed in range(EVERY):
        (tmp_path / str(seed)).mkdir()
        survived(hostile.made(kind, seed, tmp_path / str(seed)), capsys)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", hostile.KINDS)
def test_a_thousand_hostile_files_are_survived(kind, tmp_path, capsys):
    for seed in range(EVERY, EVERY + NIGHTLY):
        (tmp_path / str(seed)).mkdir()
        survived(hostile.made(kind, seed, tmp_path / str(seed)), capsys)
