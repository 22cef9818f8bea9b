"""A certificate on one page, and on one screen: what was asked, the verdict, and what it rests on.

In: the record of `certify`, as `certificate.json` holds it. Out: `certificate.html`, one self-contained file in which
everything that a model or a file said passes the template's autoescape; and a rich renderable.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from steer_heal_love.ground import declared, made, records, written
from steer_heal_love.ground.banks import KINDS
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.untrusted import shaped
from steer_heal_love.nouns import FOUNDATIONS, Json
from steer_heal_love.report import CERTIFICATE, canvas
from steer_heal_love.report.comparison import score_of
from steer_heal_love.report.html import templates
from steer_heal_love.report.words import interval

HTML = "certificate.html"
STYLE = {"pass": "green", "fail": "red", "undecided": "yellow"}
SECTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "The trait": (
        "Shifts from the base on the persona's held-out probes, in nats per token, and in the model's own answers.",
        (
            "trait_shift",
            "trait_pos",
            "trait_neg",
            "above_null",
            "trait_over_neutral",
            "trait_over_off_topic",
            "trait_generated_shift",
            "behaviour_shift",
        ),
    ),
    "How far it drifts where nothing should change": (
        "neutral_kl is KL(base‖model) on the base's own answers to neutral prompts; own_kl.neutral is KL(model‖base) on the "
        "model's own answers to neutral prompts. Both in nats per token, from whole next-token distributions.",
        ("neutral_kl", *(f"neutral_kl.{k}" for k in KINDS), "own_kl.neutral", "own_kl"),
    ),
    "How its own text reads": (
        "Is it still the base's kind of text? Shifts are from the base's own text on the same prompts.",
        (
            "own_excess",
            "own_excess.neutral",
            "own_entropy_shift",
            "repetition_shift",
            "distinct_2_shift",
            "few_tokens_shift",
            "relevance_shift",
            "relevance_shift.probes",
            "relevance_shift.neutral",
            "text_auc",
        ),
    ),
    "What it can still do, and what it values": (
        "Capability is a share of questions; foundations are shifts of the answers' likelihood after vignettes, centred, in "
        "nats per token.",
        ("capability", "capability_shift", *(f"mfv.{f}" for f in FOUNDATIONS), "mfv_constant_share"),
    ),
}
MORE = {
    "relevance_shift.probes": "relevance_shift on probe questions alone, where a persona shows.",
    "relevance_shift.neutral": "relevance_shift on neutral prompts alone.",
    "few_tokens_shift": "Share of the model's own text that its four commonest tokens hold, less the same share of the base. A model that says one word for ever has a share near 1.",
    "own_kl.neutral": "own_kl on neutral prompts alone.",
    "above_null": "trait_shift less the best null's at the same neutral_kl. The nulls are a bias of words that knows no context, and a temperature.",
    "behaviour_shift": "How surely a text classifier takes the model's own answers for the pos pole's: log-odds in nats, shift from base.",
    "capability_shift": "Shift of capability from the base.",
    "mfv_constant_share": "Share of the foundations' squared shift that is the same after every vignette. Near 1, the answers moved alike after all vignettes.",
}
SAMPLES = 6
"""own texts shown of each kind of prompt"""


def write(folder: Path) -> None:
    """`certificate.html` beside the folder's `certificate.json`."""
    records.write_text(folder / HTML, render(read(folder)))


def read(folder: Path) -> Json:
    """What the folder's certificate says. Raises `UserError` where there is none, or it is none that `certify` wrote."""
    load = lambda file: shaped(records.read_json(file), written.CERTIFICATE)
    return made.read(load, folder / CERTIFICATE, "The same `shl certify` measures it again.")  # type: ignore[no-any-return]


def render(c: Json) -> str:
    """The whole page."""
    page = templates().get_template("certificate.html.j2")
    return page.render(
        c=c,
        traits=[section(t) for t in c["traits"]],
        others={n: score_of(s) for n, s in c["others"].items()},
        colours={"light": canvas.COLOURS},
        signed=[s.name for s in declared.in_order() if declared.signed(s.name)],
    )


def section(t: Json) -> Json:
    """What the page shows of one trait."""
    tables = [
        (title, about, [(n, score_of(t["scores"][n]), said(n), signed(n)) for n in names if n in t["scores"]])
        for title, (about, names) in SECTIONS.items()
    ]
    own = t["samples"]
    half = len(own) // 2
    return t | {
        "tables": [(title, about, rows) for title, about, rows in tables if rows],
        "shown": own[:SAMPLES] + own[half : half + SAMPLES] if len(own) > 2 * SAMPLES else own,
    }


def signed(name: str) -> bool:
    return declared.signed(name) or name.endswith("_shift") or name.startswith("mfv.")


def said(name: str) -> str:
    """What a score is, in a sentence; nothing for a foundation, whose name says it."""
    return MORE.get(name) or (declared.declared[name].means if name in declared.declared else "")


def screen(folder: Path) -> RenderableType:
    """One screen: the verdict of every trait with its evidence, the scores that carry it, what else moved."""
    c = read(folder)
    parts: list[RenderableType] = [
        Text(shown(f"{c['target']} ({c['kind']}) against {c['base']}: {c['verdict']}"), style="bold")
    ]
    for t in c["traits"]:
        gate = t["gate"]
        verdict = Text(f"\n{shown(t['persona'])}: {t['kind']} ", style=STYLE[gate["verdict"]])
        parts += [
            verdict.append(f"({gate['outcome'].replace('_', ' ')})"),
            Text(shown(gate["means"])),
            Text(shown(gate["observed"]), style="dim"),
            table(t),
        ]
    if c["others"]:
        moved = ", ".join(f"{shown(n)} {interval(score_of(s), 2)}" for n, s in c["others"].items())
        parts.append(Text(f"\nother personas' trait_shift, read together: {moved}"))
    parts += [Text(f"note: {shown(n)}", style="yellow") for n in c["notes"]]
    parts.append(Text(f"page     {shown(folder / HTML)}", overflow="fold"))
    return Group(*parts)


def table(t: Json) -> Table:
    """The scores that a verdict rests on."""
    out = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    out.add_column("score")
    out.add_column("mean [95% interval]")
    out.add_column("n", justify="right")
    for _, names in SECTIONS.values():
        for name in names:
            if name in t["scores"] and not name.startswith(("neutral_kl.", "mfv")):
                s = score_of(t["scores"][name])
                out.add_row(name, interval(s, 3, signed(name)), str(s.n))
    return out
