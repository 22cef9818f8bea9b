"""What every test costs in processor seconds, so that other work on the machine doesn't distort the figures.

As a pytest plug-in it writes one line a test: `PYTHONPATH=tools pytest -p test_costs --costs costs.jsonl`.
As a script it sums such a file by folder and lists the dearest tests: `python tools/test_costs.py costs.jsonl`.
A test's cost is the user and system time of this process and of the children it has waited for. A shared
fixture is counted in the set-up of the first test that asks for it.
"""

from __future__ import annotations

import json
import resource
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

PHASES = ("setup", "call", "teardown")


def cpu_seconds() -> float:
    """User and system seconds of this process and of every child that has ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


class Costs:
    """Writes each test's line as soon as the test is over, so that a run that is stopped leaves what it measured."""

    def __init__(self, file: Path) -> None:
        self.file, self.spent = file, dict.fromkeys(PHASES, 0.0)

    def _phase(self, phase: str) -> Iterator[None]:
        before = cpu_seconds()
        try:
            return (yield)
        finally:
            self.spent[phase] = cpu_seconds() - before

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Iterator[None]:
        return (yield from self._phase("setup"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Iterator[None]:
        return (yield from self._phase("call"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Iterator[None]:
        return (yield from self._phase("teardown"))

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        with self.file.open("a", encoding="utf-8") as out:
            out.write(json.dumps({"test": nodeid, **{k: round(v, 3) for k, v in self.spent.items()}}) + "\n")
        self.spent = dict.fromkeys(PHASES, 0.0)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--costs", type=Path, default=None, help="file that takes one line a test (JSON)")


def pytest_configure(config: pytest.Config) -> None:
    divided = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if (file := config.getoption("--costs")) is not None and not divided:  # each worker writes for itself
        config.pluginmanager.register(Costs(file))


def summary(file: Path, *, dearest: int = 40) -> str:
    """The file's costs by folder and by test file, and its dearest tests, as text."""
    costs = {t["test"]: sum(t[p] for p in PHASES) for t in map(json.loads, file.read_text().splitlines())}
    folders, files = defaultdict(float), defaultdict(float)
    for test, seconds in costs.items():
        name = test.split("::")[0]
        files[name] += seconds
        folders[str(Path(name).parent)] += seconds
    top = sorted(costs.items(), key=lambda c: -c[1])[:dearest]
    rows = [*sorted(folders.items()), ("all", sum(costs.values()))]
    rows += [*sorted(files.items(), key=lambda c: -c[1])[:dearest], *top]
    return "\n".join(f"{seconds:8.1f}  {name}" for name, seconds in rows)


if __name__ == "__main__":
    print(summary(Path(sys.argv[1])))
