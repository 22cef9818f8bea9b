"""Verbs only: parse, hand over, print. What the user can fix prints one message and exits 2, a run that ends
in a verdict against itself (starved, diverged) exits 3, and everything else is a bug and shows a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import tyro

from steer_heal_love.cli import (
    certifying,
    cores,
    listing,
    personas,
    runs,
    signals,
    steering,
    sweeping,
    trying,
    verbs,
)
from steer_heal_love.cli.screen import lenient, ours_as_lines, output, say, tell
from steer_heal_love.ground.errors import Diverged, Starved, UserError, unknown

COMMANDS: dict[str, Callable[..., None]] = {
    "eval": verbs.evaluate,
    "vector extract": verbs.vector_extract,
    "vector inspect": steering.inspect,
    "vector sweep": steering.sweep,
    "vector import": steering.imported,
    "vector condition": steering.condition,
    "vector convert": verbs.vector_convert,
    "export": verbs.export,
    "report": verbs.show,
    "doctor": verbs.doctor,
    "list": listing.listed,
    "lint": verbs.lint,
    "certify": certifying.certify,
    "matrix": certifying.matrix,
    "try": trying.attempt,
    "sweep": sweeping.sweep,
    "persona import": personas.persona_import,
    "persona draft": personas.persona_draft,
}
WITH_SETTINGS: dict[str, Callable[[list[str]], None]] = {"run": runs.run, "compare": runs.compare}
"""commands whose options are every setting of a run"""

BARE = {"doctor": "--model"}
"""what a first word without an option stands for"""


def usage() -> str:
    first = {
        name: (f.__doc__ or "").splitlines()[0]
        for name, f in {"run": runs.Run, "compare": runs.Compare, **COMMANDS}.items()
    }
    lines = [f"  shl {name:<16} {text}" for name, text in first.items()]
    return "usage: shl COMMAND [options]; each command has --help\n\n" + "\n".join(lines)


def dispatch(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        tell(usage())
        return
    name = " ".join(argv[:2]) if argv[0] in ("vector", "persona") else argv[0]
    rest = argv[len(name.split()) :]
    if name in WITH_SETTINGS:
        WITH_SETTINGS[name](rest)
    elif name in COMMANDS:
        if name in BARE and rest and not rest[0].startswith("-"):
            rest = [BARE[name], *rest]
        tyro.cli(COMMANDS[name], args=rest, prog=f"shl {name}")
    else:
        raise unknown("command", name, {*WITH_SETTINGS, *COMMANDS})


def main(argv: list[str] | None = None) -> None:
    """Entry point of `shl` and `steer-heal-love`."""
    lenient()
    cores.share()
    with signals.heeded():
        handle(sys.argv[1:] if argv is None else argv)


def handle(argv: list[str]) -> None:
    """Run a verb; what it raises becomes a message and an exit status."""
    try:
        with output(), ours_as_lines():
            dispatch(argv)
    except UserError as e:
        say(f"error: {e}", "red")
        sys.exit(2)
    except (Starved, Diverged) as e:
        say(f"stopped: {e}", "yellow")
        sys.exit(3)
    except KeyboardInterrupt as e:
        say(f"interrupted; {e}" if e.args else "interrupted", "yellow")
        sys.exit(signals.ended_by(e))
