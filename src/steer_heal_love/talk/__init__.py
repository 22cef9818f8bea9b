"""Talk to a run's models: the same message answered by the base, the prompted, the steered and the healed one.

In: a finished run's folder. Out: a `Talk`, which answers a message as any of the four. They differ in one thing each:

    base       the model that the run began with, under the neutral system prompt
    prompted   the same, told by a system prompt to be the pos pole (the wording that the run chose)
    steered    the same, with round 0's vector added at a dose
    healed     the run's adapter beside the base's weights, times a strength: 1 as trained, 0 the base, −1 its opposite

All draw with one seed, so that equal distributions give equal answers. `web` shows it in a browser, `cli` in a terminal.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from steer_heal_love import bake
from steer_heal_love.config import GenerateConfig
from steer_heal_love.generate import generate
from steer_heal_love.ground.chat import NEUTRAL_SYSTEM
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.identity import Warn
from steer_heal_love.ground.progress import Track, silent
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.untrusted import inside, json_object
from steer_heal_love.nouns import Adapter, Json, Persona
from steer_heal_love.session import ignored, opened, walked_dose
from steer_heal_love.vector import Vector

Who = Literal["base", "prompted", "steered", "healed"]
WHO: tuple[Who, ...] = get_args(Who)
LABELS: dict[Who, tuple[str, str]] = {
    "base": ("Base", "the model before anything was done to it"),
    "prompted": ("Prompted", "the base, told by a system prompt whom to be"),
    "steered": ("Steered", "the base, with the steering vector added while it writes"),
    "healed": ("Healed", "the run's result: new weights, no prompt and no vector"),
}
"""what each is called, and what it is in a few words"""
STRENGTHS = (-1.0, 2.0)
DOSES = (-4.0, 4.0)
LONGEST = 8_000
"""characters of a message"""


@dataclass(frozen=True)
class Dials:
    """What one may turn: `strength` of the adapter, `dose` of the vector, `seed` of the draw."""

    strength: float = 1.0
    dose: float = 0.0
    seed: int = 0

    def check(self, reach: float = DOSES[1]) -> None:
        """Raise `UserError` for what is out of range; `reach` is the largest dose."""
        wrong = [
            f"{name}: from {low:g} to {high:g}, found {value:g}"
            for name, value, (low, high) in (
                ("strength", self.strength, STRENGTHS),
                ("dose", self.dose, (-reach, reach)),
            )
            if not low <= value <= high
        ]
        if not 0 <= self.seed < 2**31:
            wrong.append(f"seed: a whole number from 0, below 2^31, found {self.seed}")
        if wrong:
            raise UserError("\n".join(wrong))


@dataclass(frozen=True)
class Talk:
    """Four models out of one, in memory. `dose` is round 0's; one answer is made at a time."""

    name: str
    model: Any
    tok: Any
    persona: Persona
    directions: Mapping[int, Any]
    dose: float
    adapter: Adapter
    system_prompt: str
    config: GenerateConfig
    lock: Any = field(default_factory=threading.Lock)

    def answer(self, who: Who, message: str, dials: Dials) -> str:
        """What one of the four answers. Raises `UserError` for an empty or endless message and for dials out of range."""
        dials.check(self.reach)
        if not message.strip():
            raise UserError("the message is empty.")
        if len(message) > LONGEST:
            raise UserError(f"the message has {len(message)} characters, at most {LONGEST}.")
        scaling = self.adapter.scaling * dials.strength
        inside: Callable[[], AbstractContextManager[Any]] = nullcontext
        if who == "healed":
            inside = lambda: adapted(self.model, self.adapter.factors, scaling)
        steered = who == "steered"
        with self.lock, inside():
            (made,) = generate(
                self.model,
                self.tok,
                [message],
                [dials.dose if steered else 0.0],
                config=self.config,
                directions=self.directions if steered else None,
                seed=dials.seed,
                system=self.system_prompt if who == "prompted" else NEUTRAL_SYSTEM,
            )
        return made.text.strip()

    @property
    def reach(self) -> float:
        """The largest dose that may be asked for: at least the run's own."""
        return max(DOSES[1], abs(self.dose))

    def about(self, dials: Dials, message: str = "") -> Json:
        """What a page needs to know to show itself: where its dials stand at first, and the message in its field."""
        reach = min(self.reach, max(1.0, 4 * self.dose, abs(dials.dose)))
        return {
            "run": self.name,
            "persona": self.persona.name,
            "axis": self.persona.axis,
            "message": message,
            "dials": {"strength": dials.strength, "dose": dials.dose, "seed": dials.seed},
            "strengths": STRENGTHS,
            "doses": (-reach, reach),
            "longest": LONGEST,
            "example": self.persona.probes[0].question if self.persona.probes else "",
            "who": [{"id": who, "label": label, "is": what} for who, (label, what) in LABELS.items()],
        }


def talk(run: Path, *, tokens: int = 96, track: Track = silent, warn: Warn = ignored) -> Talk:
    """The four models of the run in a folder. Raises `UserError` where no round of it was healed."""
    if not (run / "adapter").is_dir() and (run / "manifest.json").is_file():
        raise UserError(f"{shown(run)}: no adapter yet: no round of it was healed.")
    r = opened(run, track, warn=warn)
    r.folder.check(derived=True)
    vector = Vector.load(inside(run, r.folder.round(0) / "vector.safetensors"))
    adapter = bake.load_peft(inside(run, run / "adapter"))
    return Talk(
        run.resolve().name,
        r.model,
        r.tok,
        r.persona,
        vector.directions,
        walked(run),
        adapter,
        system_prompt(run, r.persona),
        replace(r.config.generate, max_new_tokens=tokens),
    )


def walked(run: Path) -> float:
    """The dose that round 0 found, as the run's summary has it."""
    found = walked_dose(run)
    return 0.5 if found is None else found


def system_prompt(run: Path, who: Persona) -> str:
    """The system prompt of the prompted model: the wording that the run chose, or else the first."""
    file = run / "base" / "wording.json"
    found = json_object(file, str(file)).data.get("system") if file.is_file() else None
    return found if isinstance(found, str) else who.system("pos")


__all__ = ["DOSES", "LABELS", "LONGEST", "STRENGTHS", "WHO", "Dials", "Talk", "Who", "talk"]
