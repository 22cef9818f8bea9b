"""Workers on this machine: what they do, how one that dies is told apart, and that it takes no other work along."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import pytest

from steer_heal_love.config import Cluster
from steer_heal_love.executors import Asked, executors, finished, opened
from steer_heal_love.ground.errors import UserError

HERE = Asked(2, Cluster(), Path("."))


def refused() -> None:
    raise UserError("give another file")


def dies_once(mark: Path) -> None:
    if not mark.exists():
        mark.mkdir()
        os.abort()


def ended(hands, n):
    out = {}
    while len(out) < n:
        out |= {e.name: e for e in hands.ended(5)}
    return out


def test_a_killed_worker_loses_its_own_work_only_and_another_takes_its_place(tmp_path):
    with opened("local", HERE) as hands:
        hands.submit("dies", os.abort)
        hands.submit("stays", partial((tmp_path / "stays").mkdir))
        found = ended(hands, 2)
        assert found["dies"].how == "lost" and "SIGABRT" in found["dies"].why
        assert found["stays"].how == "done" and (tmp_path / "stays").is_dir()
        hands.submit("next", partial((tmp_path / "next").mkdir))
        assert ended(hands, 1)["next"].how == "done"


def test_what_the_user_can_fix_comes_back_as_its_message_and_a_bug_is_raised(tmp_path, capfd):
    with opened("local", HERE) as hands:
        hands.submit("refused", refused)
        found = ended(hands, 1)["refused"]
        assert (found.how, found.why) == ("failed", "give another file")
        hands.submit("bug", partial(os.rmdir, str(tmp_path / "gone")))
        with pytest.raises(RuntimeError, match="exit status 1"):
            ended(hands, 1)
    assert "FileNotFoundError" in capfd.readouterr().err


def test_a_lost_piece_is_done_again_and_given_up_in_the_end(tmp_path):
    """The first worker that finds no mark leaves one and dies; the second finds it."""
    told = []
    with opened("local", HERE) as hands:
        work = {
            "once": partial(os.mkdir, str(tmp_path / "made")),
            "killed": partial(dies_once, tmp_path / "mark"),
        }
        finished(hands, work, told.append)
        assert told == [1, 1] and (tmp_path / "made").is_dir()
        with pytest.raises(UserError, match="always: .*SIGABRT"):
            finished(hands, {"always": os.abort}, told.append)


def test_closing_ends_what_is_under_way():
    began = time.monotonic()
    with opened("local", HERE) as hands:
        hands.submit("long", partial(time.sleep, 600))
        (hand, _), *_ = hands.busy.values()
    assert not hand.process.is_alive() and time.monotonic() - began < 60


def test_names_and_numbers_of_workers_are_checked():
    assert {"local", "ray", "submitit"} == set(executors)
    with pytest.raises(UserError, match="unknown executor 'locl'.*'local'"), opened("locl", HERE):
        pass
    with pytest.raises(UserError, match="at least 1"), opened("local", Asked(0, Cluster(), Path("."))):
        pass
