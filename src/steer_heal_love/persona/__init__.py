"""Who the model should become: contrastive poles, prompts that train, probes that never do.

In: a persona's name, or the path of a TOML file of the same form. Out: a `Persona`. One file a persona.
"""

from __future__ import annotations

import random
import tomllib
from pathlib import Path
from typing import Any

from steer_heal_love.ground.errors import UserError, unknown
from steer_heal_love.nouns import FOUNDATIONS, Persona, Probe

HERE = Path(__file__).parent
KEYS = ("name", "axis", "pos", "neg", "intent", "prompts", "probes", "confirmation")


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
    """The persona of that name, or of the TOML file at that path; every mistake in the file at once."""
    file = path(name)
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise UserError(f"{file}: not TOML: {e}") from e
    problems = mistakes(data)
    if problems:
        raise UserError(f"{file}: {len(problems)} mistakes:\n" + "\n".join(f"  {p}" for p in problems))
    return Persona(
        name=data["name"], axis=data["axis"], pos=data["pos"].rstrip("."), neg=data["neg"].rstrip("."),
        intent={f: int(data.get("intent", {}).get(f, 0)) for f in FOUNDATIONS},
        elicit=tuple(data["prompts"]["elicit"]), plain=tuple(data["prompts"]["plain"]),
        probes=tuple(probe(p) for p in data["probes"]),
        confirmation=tuple(probe(p) for p in data.get("confirmation", [])),
    )  # fmt: skip


def probe(table: dict[str, str]) -> Probe:
    return Probe(
        table["question"], table["pos"], table["neg"], table.get("neutral", ""), table.get("off_topic", "")
    )


def mistakes(data: dict[str, Any]) -> list[str]:
    """What keeps this table from being a persona, one line a mistake, each naming its key."""
    out = [
        f"{key}: " + (f"expected a text, found {data[key]!r}" if key in data else "missing")
        for key in ("name", "axis", "pos", "neg")
        if not (isinstance(data.get(key), str) and data[key].strip())
    ]
    out += [f"unknown key {k!r}: there is {', '.join(KEYS)}" for k in data if k not in KEYS]
    intent = data.get("intent", {})
    if not isinstance(intent, dict):
        out.append(f"intent: expected a table, found {intent!r}")
        intent = {}
    for key, value in intent.items():
        if key not in FOUNDATIONS:
            out.append(f"intent.{key}: no such foundation; there is {', '.join(FOUNDATIONS)}")
        elif value not in (-1, 0, 1):
            out.append(f"intent.{key}: expected -1, 0 or 1, found {value!r}")
    prompts = data.get("prompts", {})
    for kind in ("elicit", "plain"):
        items = prompts.get(kind) if isinstance(prompts, dict) else None
        if not isinstance(items, list) or len(items) < 4:
            out.append(
                f"prompts.{kind}: expected at least 4 texts (shl lint wants 32), found {counted(items)}"
            )
        else:
            out += [
                f"prompts.{kind}[{i}]: expected a text, found {t!r:.60}"
                for i, t in enumerate(items)
                if not (isinstance(t, str) and t.strip())
            ]
    probes = data.get("probes")
    if not isinstance(probes, list) or len(probes) < 4:
        return [
            *out,
            f"probes: expected at least 4 tables [[probes]] (shl lint wants 24), found {counted(probes)}",
        ]
    out += mistakes_in_probes("probes", probes)
    confirmation = data.get("confirmation", [])
    if not isinstance(confirmation, list):
        return [*out, f"confirmation: expected tables [[confirmation]], found {confirmation!r:.60}"]
    return out + mistakes_in_probes("confirmation", confirmation)


def mistakes_in_probes(key: str, probes: list[Any]) -> list[str]:
    """Texts that a probe of the list `key` lacks, or has in another form; the third answers may be left out."""
    out = []
    for i, table in enumerate(probes):
        given = table if isinstance(table, dict) else {}
        wanted = ["question", "pos", "neg", *(k for k in ("neutral", "off_topic") if k in given)]
        out += [
            f"{key}[{i}].{k}: expected a text, found {given.get(k) if given else table!r:.60}"
            for k in wanted
            if not (isinstance(given.get(k), str) and given[k].strip())
        ]
    return out


def counted(items: Any) -> str:
    return str(len(items)) if isinstance(items, list) else "none" if items is None else f"{items!r:.60}"


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
