"""`shl try`: talk to a run's models, in the terminal or in a browser."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import tyro
from rich.console import Group
from rich.text import Text

from steer_heal_love.cli import screen
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.shown import shown

HELP = "type a message; /strength N, /dose N, /seed N turn a dial; /quit or Ctrl-D leaves"


def attempt(
    run: tyro.conf.Positional[Path],
    message: str = "",
    strength: float = 1.0,
    dose: float | None = None,
    seed: int = 0,
    tokens: int = 96,
    web: bool = False,
    port: int = 0,
) -> None:
    """Talk to a run's models: base, prompted, steered and healed answer the same message side by side.

    Args:
        run: the run folder
        message: one message to answer, instead of a conversation in the terminal; with --web what its field begins with
        strength: what the healed model's adapter is multiplied by, from -1 (its opposite) over 0 (the base) to 2
        dose: how much of the steering vector is added; the run's own dose when it is left out
        seed: seed of the sampling; the same seed gives the same answers again
        tokens: length of the longest answer, in tokens
        web: show a page in the browser, for this machine alone
        port: port of that page; 0 takes a free one
    """
    with screen.importing():
        from steer_heal_love import report
        from steer_heal_love import talk as room

    if not 1 <= tokens <= 4096:
        raise UserError(f"--tokens: from 1 to 4096, found {tokens}.")
    with report.progress(screen.out) as track:
        found = room.talk(run, tokens=tokens, track=track, warn=screen.warn)
    dials = room.Dials(strength, found.dose if dose is None else dose, seed)
    dials.check(found.reach)
    if web:
        serve(found, dials, message, port)
    elif message:
        tell(found, message, dials)
    else:
        converse(found, dials)


def serve(found: Any, dials: Any, message: str, port: int) -> None:
    """The page, until Ctrl-C."""
    from steer_heal_love.talk.web import Server

    with Server(found, dials, message, port) as server:
        screen.tell(
            f"open {server.address}\nThe address holds a secret: give it to nobody. Ctrl-C ends the page."
        )
        server.serve_forever()


def converse(found: Any, dials: Any) -> None:
    """Messages line by line, until the end of the input."""
    screen.tell(f"{found.name}: {found.persona.axis}\n{HELP}")
    while True:
        try:
            line = input("\n> ").strip()
        except EOFError:
            return
        if line in ("/quit", "/exit"):
            return
        try:
            if line.startswith("/"):
                dials = turned(dials, line, found.reach)
                screen.tell(f"strength {dials.strength:g}, dose {dials.dose:g}, seed {dials.seed}")
            elif line:
                tell(found, line, dials)
        except UserError as e:
            screen.say(str(e), "red")


def turned(dials: Any, line: str, reach: float) -> Any:
    """The dials after a line such as `/strength 0.5`; `reach` is the largest dose. Raises `UserError` for any other line."""
    name, *value = line[1:].split() or [""]
    kinds = {"strength": float, "dose": float, "seed": int}
    try:
        after = replace(dials, **{name: kinds[name](*value)})
    except (KeyError, ValueError, TypeError) as e:
        raise UserError(f"{shown(line)}: {HELP}") from e
    after.check(reach)
    return after


def tell(found: Any, message: str, dials: Any) -> None:
    """The four answers, one under the other, each as soon as it is there."""
    from steer_heal_love.talk import LABELS, WHO

    turned = {"steered": f" at dose {dials.dose:g}", "healed": f" at strength {dials.strength:g}"}
    for who in WHO:
        label, what = LABELS[who]
        text = found.answer(who, message, dials) or "(it says nothing)"
        width = max(screen.out.width - 4, 20)
        wrapped = "\n".join(textwrap.fill(shown(line), width) for line in text.splitlines())
        head = Text(f"\n{label}{turned.get(who, '')}", style="bold").append(f"  {what}", style="dim")
        screen.out.print(Group(head, Text(textwrap.indent(wrapped, "  "))))
