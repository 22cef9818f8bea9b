"""Who the model should become: contrastive poles, prompts that train, probes that never do.

In: a persona's name, or the path of a TOML file of the same form. Out: a `Persona`. One file a persona.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steer_heal_love.ground.errors import UserError, unknown
from steer_heal_love.ground.untrusted import MEGABYTE, refuse, toml
from steer_heal_love.nouns import FOUNDATIONS, Json, Persona, Probe
from steer_heal_love.persona.table import mistakes

HERE = Path(__file__).parent


def names() -> list[str]:
    return sorted(p.stem for p in HERE.glob("*.toml"))


def path(name: str) -> Path:
    """The file of a persona given by name or by path. Raises `UserError` when there is none."""
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise UserError(f"persona file {name!r} does not exist.")
        return Path(name)
    if name not in names():
        raise unknown("persona", name, names(), also=", or the path of a .toml file")
    return HERE / f"{name}.toml"


def load(name: str) -> Persona:
    """Load a shipped persona by name, or one from a TOML file by path. Raises `UserError` with every mistake in the file."""
    file = path(name)
    found = toml(file, str(file), most=4 * MEGABYTE)
    data = found.data
    if problems := found.all(mistakes(data)):
        refuse(str(file), problems)
    return made(data)


def made(data: Mapping[str, Any]) -> Persona:
    """The persona of a table that has no `table.mistakes`."""
    return Persona(
        name=data["name"],
        axis=data["axis"],
        pos=data["pos"].rstrip("."),
        neg=data["neg"].rstrip("."),
        intent={f: int(data.get("intent", {}).get(f, 0)) for f in FOUNDATIONS},
        elicit=tuple(data["prompts"]["elicit"]),
        plain=tuple(data["prompts"]["plain"]),
        probes=tuple(probe(p) for p in data["probes"]),
        confirmation=tuple(probe(p) for p in data.get("confirmation", [])),
    )


def probe(table: Json) -> Probe:
    third = table.get("neutral", ""), table.get("off_topic", "")
    return Probe(table["question"], table["pos"], table["neg"], *third, table.get("kind", Probe.kind))


def training_prompts(persona: Persona, n: int, *, seed: int) -> list[str]:
    """`n` prompts, half that draw the trait out and half plain, drawn without replacement where they last."""
    draw = random.Random(seed)
    half = {"elicit": n - n // 2, "plain": n // 2}
    out: list[str] = []
    for kind, count in half.items():
        items = list(getattr(persona, kind))
        while count > 0:
            draw.shuffle(items)
            out += items[:count]
            count -= len(items[:count])
    return out
