"""`shl list`: what there is of every kind of plug-in; of what steers also a line each, and whether weights can do the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

import tyro

from steer_heal_love import presets
from steer_heal_love.cli import screen
from steer_heal_love.ground.errors import unknown
from steer_heal_love.persona import names as persona_names

KINDS = {
    "personas": "persona",
    "methods": "vector.methods",
    "operations": "ground.operations.operations",
    "controls": "vector.controls.ABOUT",
    "adaptive": "ground.policy.MODES",
    "checks": "filter.checks",
    "divergences": "heal.divergences",
    "instruments": "evals.instruments",
    "comparisons": "compare.methods",
    "engines": "generate.engines",
    "presets": "presets.ABOUT",
}
"""kinds of plug-in, by what holds their names"""


def listed(what: tyro.conf.Positional[str | None] = None) -> None:
    """Print the names of every kind of plug-in, or of one kind.

    Args:
        what: personas, methods, operations, controls, adaptive, checks, divergences, instruments, comparisons, engines or
            presets. Of operations, controls and adaptive modes it is also said whether weights can do exactly the same
    """
    if what is not None and what not in KINDS:
        raise unknown("list", what, KINDS)
    for kind in [what] if what else KINDS:
        found = described(kind)
        if not what:
            screen.tell(f"{kind}: {', '.join(found)}")
            continue
        wide = max(map(len, found))
        screen.tell("\n".join(f"{name:<{wide}} {line}" if line else name for name, line in found.items()))


def described(kind: str) -> dict[str, str]:
    """The names of a kind, each with its line; an empty one where the name is all."""
    if kind == "personas":
        return dict.fromkeys(persona_names(), "")
    if kind == "presets":
        return dict(presets.ABOUT)
    with screen.importing():
        held = registry(KINDS[kind])
    if kind == "operations":
        foldings = registry("ground.operations.foldings")
        return {name: folds(foldings[name]) for name in held}
    if kind == "controls":
        added = folds(registry("ground.operations.foldings")["add"])
        return {name: f"{about}; added, so it {added}" for name, about in held.items()}
    if kind == "adaptive":
        return {name: f"{mode.about}; {folds(mode.folding)}" for name, mode in held.items()}
    return dict.fromkeys(held, "")


def registry(place: str) -> Any:
    """What stands under a name of a module of the package."""
    module, _, name = place.rpartition(".")
    found: Mapping[str, Any] | Iterable[str] = getattr(import_module(f"steer_heal_love.{module}"), name)
    return found


def folds(folding: Any) -> str:
    """Whether weights alone do exactly the same, and why or why not."""
    if folding.exact:
        return f"folds exactly into weights: {folding.why}"
    if folding.at_linear:
        return f"folds exactly at the output of a linear module only: {folding.why}"
    return f"does not fold into weights: {folding.why}"
