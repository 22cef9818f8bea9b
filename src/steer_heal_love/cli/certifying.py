"""`shl certify`: what an adapter or a model did to its base; `shl matrix`: and to which personas' traits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import tyro

from steer_heal_love import presets
from steer_heal_love.cli import screen
from steer_heal_love.config import EvalConfig
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.overrides import override
from steer_heal_love.persona import names as shipped


def certify(
    target: tyro.conf.Positional[str],
    base: str = "",
    persona: tuple[str, ...] = ("love",),
    others: bool = True,
    probe_half: Literal["all", "search", "report", "confirmation"] = EvalConfig.probe_half,
    neutral_bank: Literal["heldout", "sealed"] = EvalConfig.neutral_bank,
    template: str = "",
    device: str = "auto",
    seed: int = 0,
    *,
    out: Path,
) -> None:
    """Say what an adapter or a model did to its base: the trait, what else moved, and whether it is healthy.

    Exit status 0 when every trait is certified, 3 when one is not. Writes certificate.html and certificate.json.

    Args:
        target: a PEFT folder, a run folder, or a model's folder or hub id
        base: the model that it was made from; you may leave it out for an adapter of the embedded models
        persona: the traits that it is said to have, by name or TOML file
        others: also measure every other shipped persona
        probe_half: which probes; confirmation uses the persona's reserved probes, for a claim that is already made
        neutral_bank: which neutral prompts drift is measured on
        template: plain, chatml or a Jinja file instead of the base's own chat template
        out: the folder to write
    """
    with screen.importing():
        from steer_heal_love import certify as office
        from steer_heal_love import report
        from steer_heal_love.ground import records

    aim = office.target(target, base)
    asked = {"probe_half": probe_half, "neutral_bank": neutral_bank}
    start = presets.fitting(device, aim.base)
    cfg = override(
        start, {"model": aim.base, "template": template, "device": device, "seed": seed, "eval": asked}
    )
    among = None if others else ()
    with report.progress(screen.out) as track:
        found = office.certify(aim, persona, cfg, among=among, track=track, warn=screen.warn)
    records.write_json(out / report.CERTIFICATE, found.record())
    report.write_certificate(out)
    screen.out.print(report.terminal_certificate(out))
    if not found.passes:
        sys.exit(3)


def matrix(
    targets: tyro.conf.Positional[tuple[str, ...]],
    base: str = "",
    persona: tuple[str, ...] = (),
    probe_half: Literal["all", "search", "report", "confirmation"] = EvalConfig.probe_half,
    template: str = "",
    device: str = "auto",
    *,
    out: Path,
) -> None:
    """Measure runs or adapters on every persona's probes: did each move its own trait, or all of them?

    Args:
        targets: run folders or PEFT folders of one base
        base: the model that they were made from; you may leave it out for adapters of the embedded models
        persona: whose probes are asked, by name or TOML file; every shipped persona when none is named
        probe_half: which probes; confirmation takes those that the persona keeps for a claim already made
        template: plain, chatml or a Jinja file instead of the base's own chat template
        out: the JSON file to write
    """
    with screen.importing():
        from steer_heal_love import certify as office
        from steer_heal_love import report
        from steer_heal_love.certify import matrix as across
        from steer_heal_love.ground import records

    if not targets:
        raise UserError("shl matrix: give at least one run folder or adapter.")
    aims = [(office.target(t, base), across.made_for(t)) for t in targets]
    start = presets.fitting(device, aims[0][0].base)
    cfg = override(start, {"template": template, "device": device, "eval": {"probe_half": probe_half}})
    with report.progress(screen.out) as track:
        rows = across.matrix(aims, persona or shipped(), cfg, track=track, warn=screen.warn)
    records.write_json(out, across.record(rows, aims[0][0].base, probe_half))
    screen.out.print(report.terminal_matrix(rows))
    screen.tell(out)
