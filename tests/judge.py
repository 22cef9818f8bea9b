"""What becomes of a hostile case: refused, read as something sound, or a fault (`traceback`, `raw`, `silent`, `written`)."""

from __future__ import annotations

import contextlib
import io
import math
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from markupsafe import escape

import hostile
import hostile_folders
import tiny_run
from steer_heal_love import bake, cli, presets, report
from steer_heal_love.bake import llama_cpp
from steer_heal_love.cli import runs, screen, verbs
from steer_heal_love.config import RunConfig, named
from steer_heal_love.evals.vignettes import load_bank
from steer_heal_love.ground import fits, loading, models
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.text import words
from steer_heal_love.nouns import FOUNDATIONS
from steer_heal_love.persona import load
from steer_heal_love.report.read import read
from steer_heal_love.vector import Vector, condition_file
from tiny_model import build_model, build_tokenizer

READ: dict[str, Callable[[Path], bool]] = {}
"""by kind: read a case as the tool does, show what it says, and say whether what was read is sound"""
IDS = torch.arange(3, 15)[None]


def reads(kind: str):
    def register(f: Callable[[Path], bool]) -> Callable[[Path], bool]:
        READ[kind] = f
        return f

    return register


@reads("persona")
def persona(path: Path) -> bool:
    p = load(str(path))
    texts = [
        p.pos,
        p.neg,
        *p.elicit,
        *p.plain,
        *(t for probe in p.probes for t in (probe.question, probe.pos, probe.neg)),
    ]
    screen.tell(p.name)
    return words(p.pos) != words(p.neg) and all(0 < len(t) <= 8_000 and words(t) for t in texts)


@reads("settings")
def settings(path: Path) -> bool:
    cfg = presets.read(path)
    cfg.check()
    screen.tell(cfg)
    start = named(RunConfig())
    return all(type(value) is type(start[name][0]) for name, (value, _) in named(cfg).items())


@reads("vignettes")
def vignettes(path: Path) -> bool:
    found = load_bank(path)
    for v in found:
        screen.tell(v.id)
    sound = all(
        v.text.strip() and len(v.text) <= 4_000 and v.foundation in (*FOUNDATIONS, None) for v in found
    )
    return sound and all(v.shares is None or abs(sum(v.shares) - 1) < 1e-6 for v in found)


def straight(directions: dict[int, torch.Tensor]) -> bool:
    one_width = len({tuple(v.shape) for v in directions.values()}) == 1
    return one_width and all(
        i >= 0 and v.ndim == 1 and torch.isfinite(v).all() for i, v in directions.items()
    )


@reads("vector")
def vector(path: Path) -> bool:
    v = Vector.load(path)
    cli.main(["vector", "inspect", str(path)])
    return straight(v.directions)


@reads("condition")
def condition(path: Path) -> bool:
    c, _ = condition_file.read(path)
    cli.main(["vector", "inspect", str(path)])
    sound = (
        all(len(t) == 8 and torch.isfinite(t).all() for t in (c.direction, c.mean)) and c.direction.norm() > 0
    )
    return bool(sound) and 0 <= c.layer < 10_000 and math.isfinite(c.threshold)


@reads("adapter")
def adapter(path: Path) -> bool:
    a = bake.load_peft(path)
    pairs = a.factors.values()
    return (
        all(torch.isfinite(b @ x).all() and len(x) == b.shape[1] == 2 for x, b in pairs) and a.scaling == 2.0
    )


@reads("control vector")
def control_vector(path: Path) -> bool:
    return straight(llama_cpp.load_control_vector(path))


@reads("model")
def model(path: Path) -> bool:
    with contextlib.redirect_stderr(io.StringIO()):  # what the libraries themselves say while they load
        net, tok = LOAD(str(path), device="cpu", dtype="float32")
    for note in loading.notes(net):
        screen.warn(note)
    screen.tell(tok.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False))
    return bool(torch.isfinite(net(IDS).logits).all())


LOAD = models.load
"""as the tool loads, whatever a test puts in its place"""


@reads("PEFT adapter")
def peft_adapter(path: Path) -> bool:
    """Refused, or the very logits that PEFT gives."""
    from peft import PeftModel

    tok = build_tokenizer()
    base = lambda: build_model(len(tok), tok.eos_token_id, depth=tiny_run.DEPTH)
    a, ours = bake.load_peft(path), base()
    fits.adapter(ours, a.factors)
    with torch.no_grad(), adapted(ours, a.factors, a.scaling):
        found = ours(IDS).logits
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        theirs = PeftModel.from_pretrained(base(), str(path))(IDS).logits
    return bool((found - theirs).abs().max() < 1e-3)


@reads("run")
def run(path: Path) -> bool:
    """Reported, exported, and found finished or not; the page holds no markup of the folder's."""
    away = path.parent / "out"
    screen.out.print(report.terminal(path), soft_wrap=True)
    report.write([path], away / "r.html")
    fine = tame(away / "r.html")
    read(path)
    with contextlib.suppress(UserError):
        verbs.export(path, out=away / "x")
    runs.finished(path)
    return fine


def tame(page: Path) -> bool:
    text = page.read_text(encoding="utf-8")
    return "<script" not in text and "drodrodro" not in text and escape("<script>") not in ("<script>",)


@reads("comparison")
def comparison(path: Path) -> bool:
    screen.out.print(report.terminal_comparison(path))
    report.write_comparison(path)
    return tame(path / "compare.html")


@reads("certificate")
def certificate(path: Path) -> bool:
    screen.out.print(report.terminal_certificate(path))
    report.write_certificate(path)
    return tame(path / "certificate.html")


@reads("fight")
def fight(path: Path) -> bool:
    screen.out.print(report.terminal_fight(path))
    return True


WRITES = {"run": "out", "comparison": "it", "certificate": "it"}
"""where a kind's reading writes what it shows"""
MAKERS = {
    **{k: (hostile, k) for k in hostile.KINDS},
    **{k: (hostile_folders, k) for k in hostile_folders.KINDS},
}


@dataclass(frozen=True)
class Verdict:
    kind: str
    seed: int
    what: str
    refused: bool
    fault: str = ""
    """empty, or traceback, raw, silent, written, and what it was"""


def made(kind: str, seed: int, folder: Path) -> hostile.Case:
    """The case of a kind and seed, written under `folder`."""
    import random

    room, _ = MAKERS[kind]
    path, must, what = room.KINDS[kind](random.Random(f"{kind}-{seed}"), folder)
    return hostile.Case(kind, seed, path, must, what)


def judged(kind: str, seed: int, folder: Path) -> Verdict:
    """One case, made and read."""
    case = made(kind, seed, folder)
    keep = lambda: [
        p for p in sorted(folder.rglob("*")) if WRITES.get(kind) not in p.relative_to(folder).parts
    ]
    before, refused, fault, said = keep(), False, "", io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            if not READ[kind](case.path):
                fault = "silent: read as something that it isn't"
        except UserError as e:
            screen.say(f"error: {e}", "red")
            refused = True
        except Exception as e:
            fault = f"traceback: {type(e).__name__}: {e!s:.200}"
    raw = {c for c in said.getvalue() if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"}
    raw |= set(said.getvalue()) & set("\u202e\u2066")
    if raw:
        fault = fault or f"raw: {raw} on the terminal"
    if case.must and not refused:
        fault = fault or "silent: taken without a word"
    if keep() != before:
        fault = fault or "written: something was"
    return Verdict(kind, seed, case.what, refused, fault)
