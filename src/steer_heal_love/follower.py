"""A process that follows a run: it gets the run folder from the leader, and does every step of it on its part of the rows.

    python -m steer_heal_love.follower --rank 1 --size 2 --meet file:PATH

Started by `replicas`, and by nobody else. What it writes lies in a scratch folder that goes with it; it ends when its
input does, so that no leader leaves it behind.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch.distributed as dist

from steer_heal_love import loop, replicas
from steer_heal_love.ground import team
from steer_heal_love.ground.errors import Diverged, Starved, UserError


def main(argv: list[str] | None = None) -> int:
    """Follow to the end; 0 also where the run itself ends early, which its leader tells."""
    told = parsed(argv)
    try:
        follow(told)
    except (Starved, Diverged):
        return 0
    except UserError as e:
        print(e, file=sys.stderr)
        return 2
    return 0


def follow(told: argparse.Namespace) -> None:
    """Resume the leader's run in a folder of one's own."""
    with tempfile.TemporaryDirectory(prefix="shl-follower-") as scratch, joined(told, scratch):
        team.same_folder(folder := Path(scratch) / "run")
        trust: dict[str, Any] = {"trust_remote_code": True} if told.trust_remote_code else {}
        loop.run(resume=folder, replicas=1, split=told.split, ray="", **trust)


def joined(told: argparse.Namespace, *scratch: str) -> AbstractContextManager[None]:
    """Meet the others, and be one of them for as long as the leader is there; `scratch` folders go when it isn't."""
    threading.Thread(target=ends_with_its_input, args=scratch, daemon=True).start()
    store = met(told.meet, told.size)
    store.set(replicas.hello(told.rank), "here")
    return team.joined(told.rank, told.size, store, cuda=told.cuda)


def met(address: str, size: int) -> dist.Store:
    """The meeting place that `address` names: `file:PATH` or `tcp:HOST:PORT`."""
    kind, _, where = address.partition(":")
    if kind == "file":
        return dist.FileStore(where, size)
    host, _, port = where.rpartition(":")
    return dist.TCPStore(host, int(port), is_master=False)


def ends_with_its_input(*scratch: str) -> None:
    """End this process when its leader has gone, whatever it is waiting for."""
    while sys.stdin.buffer.read(1):
        pass
    for folder in scratch:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def parsed(argv: list[str] | None) -> argparse.Namespace:
    args = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    args.add_argument("--rank", type=int, required=True)
    args.add_argument("--size", type=int, required=True)
    args.add_argument("--meet", required=True)
    args.add_argument("--split", type=int, default=1)
    args.add_argument("--cuda", action="store_true")
    args.add_argument("--trust-remote-code", action="store_true")
    return args.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
