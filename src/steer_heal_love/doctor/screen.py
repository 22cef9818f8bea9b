"""The findings on one screen."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from steer_heal_love.doctor import Finding, Patient, fails
from steer_heal_love.ground import records

STYLES = {"well": "green", "note": "yellow", "fails": "red", "skipped": "dim"}


def screen(patient: Patient, findings: list[Finding]) -> Group:
    """A table of check, what was seen, verdict, what to do; and one sentence. Nothing in it is read as markup."""
    model = patient.model
    title = f"{patient.name}: {type(model).__name__} on {records.device_name(model.device)}, {model.dtype}"
    table = Table(expand=True)
    for name in ("check", "verdict"):
        table.add_column(name, no_wrap=True)
    table.add_column("what was seen, and what to do", ratio=1)
    for f in findings:
        said = Text(f.seen)
        if f.do:
            said.append(f"\n→ {f.do}", style=STYLES[f.verdict])
        table.add_row(Text(f.check), Text(f.verdict, style=STYLES[f.verdict]), said)
    return Group(Text(title), table, Text(summary(findings)))


def summary(findings: list[Finding]) -> str:
    bad = [f.check for f in findings if f.verdict == "fails"]
    if fails(findings):
        return (
            f"{len(bad)} of {len(findings)} checks fail: {', '.join(bad)}. Don't trust a run of this model."
        )
    noted = sum(f.verdict == "note" for f in findings)
    return f"All well, with {noted} notes." if noted else "All well."
