"""A sweep's file: its axes, the settings that all cells share, and those of one persona or model.

    [axes]
    persona = ["love", "mine.toml"]     # names or files; what is left out has the default of `shl run`
    method = ["healed_loop", "sft"]     # left out: every method
    seed = [0, 1, 2]
    model = ["smollm2"]

    [settings]                          # any setting of a run
    rounds = 2
    [overrides.persona.love]            # the same for one value of the axis persona or model
    heal.anchor = 3.0
    [grid]                              # strengths and budgets, as of `shl compare`

Beside them `preset`, `executor`, `workers` and a table `cluster`. The file comes from outside: every mistake in it is
told at once, unknown keys with the nearest known one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steer_heal_love import presets
from steer_heal_love.config import Cluster, Grid, RunConfig
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.overrides import override
from steer_heal_love.ground.untrusted import known, nearest, refuse, toml, whole_number
from steer_heal_love.nouns import Json

AXES = ("persona", "method", "seed", "model")
KEYS = ("axes", "preset", "settings", "overrides", "grid", "executor", "workers", "cluster")
OVERRIDDEN = ("persona", "model")
"""axes of which one value may have settings of its own: methods of one seed share a base, so that they can't"""
PRESETS = ("auto", *presets.PRESETS)
NOT_SETTINGS = ("persona", "model", "seed", "out")
"""settings of a run that a sweep's axes and folder decide"""
MOST = 100_000
"""cells of a sweep"""


@dataclass(frozen=True)
class Spec:
    """What a sweep's file says."""

    personas: tuple[str, ...] = (RunConfig.persona,)
    methods: tuple[str, ...] = ()
    """empty means every method"""
    seeds: tuple[int, ...] = (RunConfig.seed,)
    models: tuple[str, ...] = (RunConfig.model,)
    preset: str = "auto"
    settings: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    grid: Grid = field(default_factory=Grid)
    executor: str = "local"
    workers: int = 1
    cluster: Cluster = field(default_factory=Cluster)

    def own(self, axis: str, value: str) -> Mapping[str, Any]:
        """The settings of one value of an axis."""
        return self.overrides.get(axis, {}).get(value, {})

    def run(self, persona: str, model: str, *, trust_remote_code: bool) -> RunConfig:
        """The settings of a persona in a model, before any seed. Raises `UserError` with every mistake."""
        device = self.settings.get("device", RunConfig.device)
        cfg = (
            presets.preset(self.preset)
            if self.preset != "auto"
            else presets.fitting(device if isinstance(device, str) else RunConfig.device, model)
        )
        own = {"persona": persona, "model": model, "trust_remote_code": trust_remote_code}
        for changes in (own, self.settings, self.own("persona", persona), self.own("model", model)):
            cfg = override(cfg, dict(changes))
        cfg.check()
        return cfg


def read(path: Path, *, trust_remote_code: bool = False) -> Spec:
    """The sweep that a TOML file describes. Raises `UserError` with every mistake in it."""
    name = f"sweep file {path}"
    found = toml(path, name)
    data = found.data
    refuse(name, found.all(known(data, KEYS) + wrong_tables(data)))
    axes = data.get("axes", {})
    refuse(name, wrong_axes(axes) + wrong_settings(data, axes, trust=trust_remote_code) + wrong_rest(data))
    try:
        cluster = override(Cluster(), data.get("cluster", {}), "cluster.")
        cluster.check()
    except UserError as e:
        refuse(name, str(e).splitlines())
        raise
    named: dict[str, Any] = {f"{axis}s": tuple(values) for axis, values in axes.items()}
    named |= {k: data[k] for k in ("preset", "executor", "workers") if k in data}
    spec = Spec(
        settings=presets.current(data.get("settings", {})),
        overrides=data.get("overrides", {}),
        cluster=cluster,
        grid=Grid(**{k: tuple(map(float, v)) for k, v in data.get("grid", {}).items()}),
        **named,
    )
    refuse(name, spec.grid.mistakes() + too_many(spec))
    return spec


def too_many(spec: Spec) -> list[str]:
    n = len(spec.personas) * len(spec.models) * len(spec.seeds) * max(len(spec.methods), 1)
    return [f"axes: {n} cells, at most {MOST}"] if n > MOST else []


def wrong_tables(data: Json) -> list[str]:
    """Keys whose value is of another kind than theirs."""
    tables = ("axes", "settings", "overrides", "grid", "cluster")
    out = [
        f"{k}: expected a table, found {data[k]!r:.60}"
        for k in tables
        if k in data and not isinstance(data[k], dict)
    ]
    return out + [
        f"{k}: expected a text, found {data[k]!r:.60}"
        for k in ("preset", "executor")
        if k in data and not isinstance(data[k], str)
    ]


def wrong_axes(axes: Json) -> list[str]:
    out = [
        f"unknown axis {k[:100]!r}: there is {', '.join(AXES)}{nearest(k, AXES)}"
        for k in axes
        if k not in AXES
    ]
    for axis, values in axes.items():
        fine = whole_number if axis == "seed" else lambda v: isinstance(v, str) and bool(v)
        kind = "whole numbers" if axis == "seed" else "names"
        if axis not in AXES:
            continue
        if not isinstance(values, list) or not values or not all(map(fine, values)):
            out.append(f"axes.{axis}: expected a list of {kind}, found {values!r:.60}")
        elif len(set(values)) < len(values):
            out.append(f"axes.{axis}: a value is there twice in {values!r:.60}")
    return out


def wrong_settings(data: Json, axes: Json, *, trust: bool) -> list[str]:
    """What the settings and the overrides say that isn't theirs to say; settings themselves are looked at later."""
    overrides, out = data.get("overrides", {}), []
    tables = {"settings": data.get("settings", {})}
    out += [
        f"overrides: unknown axis {a[:100]!r}: there is {', '.join(OVERRIDDEN)}{nearest(a, OVERRIDDEN)}"
        for a in overrides
        if a not in OVERRIDDEN
    ]
    for axis in (a for a in OVERRIDDEN if a in overrides):
        values = axes.get(axis, [getattr(RunConfig, axis)])
        by_value = overrides[axis]
        if not isinstance(by_value, dict):
            out.append(f"overrides.{axis}: expected a table, found {by_value!r:.60}")
            continue
        listed = [v for v in values if isinstance(v, str)] if isinstance(values, list) else []
        out += [
            f"overrides.{axis}: {v[:100]!r} is none of axes.{axis}{nearest(v, listed)}"
            for v in by_value
            if v not in listed
        ]
        tables |= {f"overrides.{axis}.{v}": t for v, t in by_value.items()}
    for at, table in tables.items():
        if not isinstance(table, dict):
            out.append(f"{at}: expected a table, found {table!r:.60}")
            continue
        out += [f"{at}.{k}: the axes and --out decide it" for k in NOT_SETTINGS if k in table]
        if table.get("trust_remote_code") and not trust:
            out.append(f"{at}.trust_remote_code: {presets.CODE}")
    return out


def wrong_rest(data: Json) -> list[str]:
    grid, names = data.get("grid", {}), [f.name for f in dataclasses.fields(Grid)]
    number = lambda v: isinstance(v, int | float) and not isinstance(v, bool)
    out = known(grid, names, "grid: ")
    out += [
        f"grid.{k}: expected a list of numbers, found {v!r:.60}"
        for k, v in grid.items()
        if k in names and not (isinstance(v, list) and all(map(number, v)))
    ]
    if (preset := data.get("preset", "auto")) not in PRESETS:
        out.append(f"preset: {preset[:60]!r}; there is {', '.join(PRESETS)}{nearest(preset, PRESETS)}")
    workers = data.get("workers", 1)
    if not whole_number(workers) or workers < 1:
        out.append(f"workers: a whole number, at least 1, found {workers!r:.60}")
    return out
