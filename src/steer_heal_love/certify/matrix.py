"""Whose trait moved? Every target read with every persona's probes, beside one base.

In: targets of one base, the personas whose probes are asked. Out: a `Row` a target: its shifts on each persona's probes,
and how far its own persona's shift lies above the others'. A model that was healed toward one persona and moves all of
them alike has moved a register, not a trait: what psychology calls a lack of discriminant validity (Campbell & Fiske 1959).

    own_less_others = mean over its own persona's probes of the shift − mean over all other personas' probes of it

The cells share one error of 5%, and so do the rows' differences. Probes of different personas differ in how far anything
moves them, so compare within a column before comparing within a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from steer_heal_love import alone, evals
from steer_heal_love.certify import measuring
from steer_heal_love.certify.target import Target
from steer_heal_love.config import RunConfig
from steer_heal_love.ground import identity, records
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.stats import LEVEL, bootstrap, corrected, unpaired
from steer_heal_love.ground.untrusted import MEGABYTE, toml
from steer_heal_love.nouns import Json, Score, Scores, Stage
from steer_heal_love.persona import load as load_persona
from steer_heal_love.session import ignored, loaded

READ = ("trait_shift", "trait_pos", "trait_neg", "trait_over_neutral")
"""what a cell says, as far as the persona's probes have it"""


@dataclass(frozen=True)
class Row:
    """One target: a cell a persona; `persona` is the one that it was made for, empty where that isn't known."""

    target: str
    persona: str
    cells: dict[str, Scores]
    own_less_others: Score


def matrix(
    aims: Sequence[tuple[Target, str]],
    personas: Sequence[str],
    cfg: RunConfig,
    *,
    track: Track = silent,
    warn: identity.Warn = ignored,
) -> list[Row]:
    """Rows in the order of `aims`, each a target and its own persona's name.

    Raises `UserError` for targets of several bases, and for a persona without the wanted probes.
    """
    bases = {aim.base for aim, _ in aims}
    if len(bases) != 1:
        raise UserError(
            f"shl matrix: the targets have {len(bases)} bases ({shown(', '.join(sorted(bases)))}); one base a matrix."
        )
    cfg = replace(cfg, model=bases.pop(), eval=replace(cfg.eval, instruments=("probes",)))
    cfg.check()
    chosen = [load_persona(p) for p in dict.fromkeys(personas)]
    for who in chosen:
        evals.chosen_probes(who, cfg.eval)
    on = alone.bench(cfg, *loaded(cfg, track), track)
    targets = [measuring(aim, on, warn) for aim, _ in aims]
    found: list[dict[str, tuple[Stage, Stage]]] = [{} for _ in aims]
    for who in chosen:
        subject = on.subject(who, cfg.eval)
        base = on.reference(subject)
        for it, row in zip(targets, found, strict=True):
            row[who.name] = on.beside(subject, base, "healed", *it.changed, other=it.other), base
    return [
        target_row(aim.name, own, row, rows=len(aims), resamples=cfg.eval.resamples)
        for (aim, own), row in zip(aims, found, strict=True)
    ]


def target_row(
    target: str, own: str, found: dict[str, tuple[Stage, Stage]], *, rows: int, resamples: int
) -> Row:
    """One target's row of `rows`, from its stage and the base's on each persona's probes."""
    comparisons = rows * len(found)
    cells = {
        who: {
            name: bootstrap(
                evals.by_item(name, s.items, b.items), resamples=resamples, comparisons=comparisons
            )
            for name in READ
            if name in s.scores
        }
        for who, (s, b) in found.items()
    }
    shifts = {who: evals.by_item("trait_shift", s.items, b.items) for who, (s, b) in found.items()}
    mine = shifts.pop(own, [])
    others = [v for values in shifts.values() for v in values]
    return Row(target, own, cells, unpaired(mine, others, level=corrected(LEVEL, rows)))


def made_for(target: str) -> str:
    """The name of the persona that a run folder's model was made for; empty for what is no run folder."""
    file = Path(target).expanduser() / "persona.toml"
    found = toml(file, str(file), most=4 * MEGABYTE).data.get("name") if file.is_file() else ""
    return found if isinstance(found, str) else ""


def record(rows: Sequence[Row], base: str, probe_half: str) -> Json:
    """What the file holds."""
    return {"schema": records.SCHEMA, "kind": "matrix", "base": base, "probe_half": probe_half, "rows": rows}
