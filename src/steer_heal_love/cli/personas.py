"""`shl persona import` and `shl persona draft`: a first draft of a persona's file, for a person to edit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tyro

from steer_heal_love import presets
from steer_heal_love.cli import screen
from steer_heal_love.ground import overrides
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.shown import shown
from steer_heal_love.persona import draft, importers
from steer_heal_love.persona.importers import Sheet
from steer_heal_love.persona.poles import as_pole

LONGEST = 1_000
"""characters of a sentence that a persona is drafted from"""


def persona_import(
    file: tyro.conf.Positional[Path],
    format: str = "auto",
    pos: str = "",
    neg: str = "",
    name: str = "",
    model: str = "",
    template: str = "",
    device: str = "auto",
    seed: int = 0,
    *,
    out: Path,
) -> None:
    """Turn a file of persona vectors, OpenCharacterTraining, CAA or repeng into a draft of a persona's file.

    Args:
        file: JSON or JSON lines
        format: persona_vectors, constitution, caa or repeng; auto tells it from the keys
        pos: the pole to move to, a phrase that completes "You are …", instead of the file's
        neg: the opposite pole, instead of the file's
        name: the persona's name, instead of the file's
        model: let this model write what the file lacks: the opposite pole and answers
        template: plain, chatml or a Jinja file instead of the model's own chat template
        seed: seed of the split into training and held-out questions, and of what the model writes
        out: the TOML file to write; one that exists is not touched
    """
    chosen, sheet = importers.read(file, format)
    sheet.pos = as_pole(given("--pos", pos)) or sheet.pos
    sheet.neg = as_pole(given("--neg", neg)) or sheet.neg
    sheet.name = given("--name", name)[:100] or sheet.name
    write(
        sheet,
        f"made by shl persona import from {file.name}, form {chosen}",
        model,
        template,
        device,
        seed,
        out,
    )


def persona_draft(
    sentence: tyro.conf.Positional[str],
    opposite: str = "",
    name: str = "",
    model: str = "smollm2",
    template: str = "",
    device: str = "auto",
    seed: int = 0,
    *,
    out: Path,
) -> None:
    """Draft a persona's file from one sentence that says whom the model should become.

    Args:
        sentence: such as "a patient teacher who explains each step slowly and with care"
        opposite: the other pole; written by the model when it is not given
        name: the persona's name, instead of the output file's
        model: the model that writes the opposite pole and the answers of the probes
        template: plain, chatml or a Jinja file instead of the model's own chat template
        out: the TOML file to write; one that exists is not touched
    """
    pole = as_pole(given("a sentence", sentence))
    if not pole:
        raise UserError("shl persona draft: say in one sentence whom the model should become.")
    sheet = Sheet(given("--name", name)[:100] or out.stem, f"{pole}, as against the opposite", pole)
    sheet.neg = as_pole(given("--opposite", opposite))
    write(sheet, "made by shl persona draft from one sentence", model, template, device, seed, out)


def given(what: str, text: str) -> str:
    """A text of the command line without what no file can hold. Raises `UserError` for one that is too long."""
    if len(text) > LONGEST:
        raise UserError(f"{what}: {len(text)} characters, at most {LONGEST}.")
    return shown(text.strip())


def write(sheet: Sheet, origin: str, model: str, template: str, device: str, seed: int, out: Path) -> None:
    """Lay the sheet out, let a model fill it where one is named, write the file, say what is missing and what lint finds."""
    if out.exists():
        raise UserError(f"{out}: exists already, and may have been edited; give another --out.")
    if out.suffix != ".toml":
        raise UserError(f"--out {out}: a persona's file ends in .toml.")
    sheet = draft.laid_out(sheet, seed=seed)
    if model:
        with screen.importing():
            from steer_heal_love import drafting, report

        cfg = overrides.override(
            presets.fitting(device, model),
            {"model": model, "template": template, "device": device, "seed": seed},
        )
        with report.progress(screen.out) as track:
            sheet = drafting.filled(sheet, cfg, track=track)
    data = draft.table(sheet)
    lacking = draft.missing(data)
    lint = [] if lacking else draft.findings(data)
    with screen.importing():
        from steer_heal_love.ground import records

    records.write_text(out, draft.file_text(data, origin, sheet, lacking, lint))
    tell(out, lacking, lint, sheet)


def tell(out: Path, lacking: Sequence[str], lint: Sequence[str], sheet: Sheet) -> None:
    """What was written, and what is left to do."""
    screen.tell(f"{out}: a draft; read and edit every line.")
    for title, lines in (("missing", lacking), ("left out", sheet.left_out), ("drafted", sheet.drafted)):
        for line in lines:
            screen.tell(f"  {title}: {line}")
    if not lacking:
        screen.tell(
            f"  shl lint: {len(lint)} findings, listed in the file" if lint else "  shl lint: no findings"
        )
