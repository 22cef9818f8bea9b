"""Every file of a finished run and of a finished comparison, damaged in every way: each verb that reads the folder makes
it again as it was, or says what is wrong (exit status 2). Never a traceback, never other numbers without a word.

The files are found in the folder, so that a new one is tested too. A sample of the product each time, all of it with
`pytest -m long`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch

import tiny_run
from steer_heal_love import certify, loop, report
from steer_heal_love.cli import runs, verbs
from steer_heal_love.ground.errors import UserError
from steer_heal_love.report.read import read

SHORT = {"rounds": 1}
PARTS = 13
"""in which all of it is done, side by side where there are cores for it"""
SAMPLED = 53
"""in the default run, one case of so many; a prime, so that every file, damage and verb comes up"""


def nudged(raw: bytes, name: str) -> bytes:
    """Another run's file of the same kind, as near as a single file gives it: one of its numbers is another."""
    if name.endswith((".safetensors", ".png")):
        return raw[:-1] + bytes([raw[-1] ^ 1])
    changed = re.sub(rb"([0-9])(?=[,}\]\s])", lambda m: b"%d" % ((int(m[1]) + 1) % 10), raw, count=1)
    return changed if changed != raw else raw + b"\n"


Damage = Callable[[Path, Path], None]
"""what is done to a file, given the same file of another run"""
DAMAGES: dict[str, Damage] = {
    "truncated": lambda f, _: cut(f),
    "empty": lambda f, _: void(f.write_bytes(b"")),
    "garbage": lambda f, _: void(f.write_bytes(b"\xff\x00\x1b[2J{" * 50)),
    "deleted": lambda f, _: f.unlink(),
    "foreign": lambda f, other: void(
        f.write_bytes(other.read_bytes() if other.is_file() else nudged(f.read_bytes(), f.name))
    ),
}


def void(_: object) -> None:
    return None


def cut(file: Path) -> None:
    raw = file.read_bytes()
    file.write_bytes(raw[: len(raw) // 2])


def resumed(run: Path, right: Path, _out: Path) -> None:
    if not runs.finished(run):
        loop.run(resume=run)
    assert tiny_run.differing(run, right) == []


def reported(run: Path, right: Path, out: Path) -> None:
    report.write([run], out / "r.html")
    report.terminal(run)
    ours, theirs = read(run), read(right)
    said = ours.lost and any("Gone since" in note for note in ours.notes)
    assert said or repr((ours.stages, ours.rounds, ours.summary["gates"])) == repr(
        (theirs.stages, theirs.rounds, theirs.summary["gates"])
    )


def exported(run: Path, right: Path, out: Path) -> None:
    verbs.export(run, out=out / "x")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (out / "x" / name).read_bytes() == (right / "adapter" / name).read_bytes()


def certified(run: Path, right: Path, _out: Path) -> None:
    ours, theirs = (certify.target(str(p), "tiny").adapter for p in (run, right))
    assert ours.factors.keys() == theirs.factors.keys()
    assert all(
        torch.equal(x, y)
        for n in ours.factors
        for x, y in zip(ours.factors[n], theirs.factors[n], strict=True)
    )


def compared(folder: Path, right: Path, _out: Path) -> None:
    tiny_run.comparison(folder, **SHORT)
    assert tiny_run.differing(folder, right, elsewhere=True) == []  # a seed begun anew says where it lies now


VERBS = {"resume": resumed, "report": reported, "export": exported, "certify": certified, "compare": compared}
OF_A_RUN = [v for v in VERBS if v != "compare"]


@pytest.fixture(scope="module", autouse=True)
def cheap():
    with pytest.MonkeyPatch.context() as patch:
        tiny_run.made_cheap(patch.setattr)
        yield


@pytest.fixture(scope="module")
def whole(cheap, tmp_path_factory) -> Path:
    return tiny_run.shared(tmp_path_factory)


def survived(right: Path, name: str, damage: str, verb: Callable, tmp: Path, other: Path) -> str:
    """`told`, `well`, or what went wrong in words."""
    here = tmp / right.name
    shutil.copytree(right, here)
    DAMAGES[damage](here / name, other / name)
    try:
        verb(here, right, tmp)
    except UserError as e:
        return "told" if str(e) and not set(str(e)) & set("\x1b\0") else f"refused with {str(e)!r}"
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    finally:
        shutil.rmtree(here)
    return "well"


def all_survived(right: Path, cases: list[tuple[str, str, str]], tmp: Path, other: Path) -> None:
    """Every case is tried before any is complained of."""
    ended: Counter[str] = Counter()
    faults = []
    for i, (name, damage, verb) in enumerate(cases):
        (tmp / str(i)).mkdir()
        how = survived(right, name, damage, VERBS[verb], tmp / str(i), other)
        ended[f"{verb} {damage} {how if how in ('told', 'well') else 'WRONG'}"] += 1
        if how not in ("told", "well"):
            faults.append(f"{verb} with {name} {damage}: {how}")
    print(json.dumps(ended, indent=1))
    assert not faults, "\n".join(faults)


def product(right: Path, verbs: Iterable[str]) -> list[tuple[str, str, str]]:
    names = [str(p.relative_to(right)) for p in sorted(right.rglob("*")) if p.is_file() and p.name != ".lock"]
    return [(n, d, v) for n in names for d in DAMAGES for v in verbs]


def test_a_sample_of_damages_is_survived(whole, tmp_path):
    cases = product(whole, OF_A_RUN)[::SAMPLED]
    assert {d for _, d, _ in cases} == set(DAMAGES) and {v for _, _, v in cases} == set(OF_A_RUN)
    all_survived(whole, cases, tmp_path, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_damage_of_a_run_is_survived(whole, tmp_path, part):
    other = tiny_run.run(tmp_path / "other", **SHORT, seed=4)
    all_survived(whole, product(whole, OF_A_RUN)[part::PARTS], tmp_path, other)


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_damage_of_a_comparison_is_survived(cheap, tmp_path, part):
    right, other = tmp_path / "whole", tmp_path / "other"
    tiny_run.comparison(right, **SHORT)
    tiny_run.comparison(other, **SHORT, seed=4)
    other.joinpath("seeds", "4").rename(other / "seeds" / "3")
    all_survived(right, product(right, ["compare"])[part::PARTS], tmp_path, other)
