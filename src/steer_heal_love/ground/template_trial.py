"""A chat template rendered in a process of its own, which may use little time and memory: a template is a program.

The sandbox that renders templates keeps them from files and from Python, not from loops within loops or from a text
times a thousand million. This file is also what that process runs. It then knows of jinja2 and of nothing else here.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CPU_SECONDS, WALL_SECONDS, MEMORY, LONGEST = 5, 30, 2**30, 10_000_000
"""what the process may use, in bytes for the memory, and how many characters of prompt it may make"""
NEEDED = ("jinja2", "markupsafe")
"""packages that the process which tries imports"""
TURNS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "A plain question."}],
    [{"role": "user", "content": [{"type": "text", "text": "A plain question."}]}],
    [{"role": "system", "content": "A role."}, {"role": "user", "content": "A question."}],
    [{"role": "user", "content": "A question."}, {"role": "assistant", "content": "An answer."}] * 3,
    [{"role": "user", "content": "A long question. " * 1_000}],
]


def harmless(template: str, tokens: Mapping[str, str] | None = None) -> bool:
    """Whether the template renders a few plain conversations within the limits; `tokens`: what else it may name.

    A template that raises is harmless: whoever renders it next says what it raised.
    """
    return tried(template, tuple(sorted((tokens or {}).items())))


@lru_cache(maxsize=64)
def tried(template: str, tokens: tuple[tuple[str, str], ...]) -> bool:
    """`harmless`, once for each template. The process that tries has no user's site, so it is told where Jinja lies."""
    here = [str(Path(spec.origin).parents[1]) for name in NEEDED if (spec := find_spec(name)) and spec.origin]
    try:
        ended = subprocess.run(
            [sys.executable, "-I", __file__, *here],
            input=json.dumps([template, dict(tokens)]).encode("ascii"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=WALL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return False
    return ended.returncode == 0


def limited() -> None:
    """This process held to the limits, where the system has them; else the one that waits has a clock."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    with contextlib.suppress(ValueError, OSError):  # some systems have no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def main() -> None:
    sys.path += sys.argv[1:]
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The tag that marks what the assistant says."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refused(said: object = "") -> str:
        raise ValueError(said)

    raised = (
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        TemplateError,
        TypeError,
        ValueError,
    )
    template, tokens = json.loads(sys.stdin.read())
    limited()
    room = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    room.globals |= {"raise_exception": refused, "strftime_now": str}
    room.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    for turns in TURNS:
        for tag in (True, False):
            given = {"messages": turns, "add_generation_prompt": tag, "enable_thinking": False, "tools": None}
            length = 0
            try:
                for piece in room.from_string(template).generate({**tokens, **given}):
                    length += len(piece)
                    if length > LONGEST:
                        sys.exit(1)
            except (MemoryError, RecursionError):
                sys.exit(1)
            except raised:  # the library's own rendering will say so
                continue


if __name__ == "__main__":
    main()
