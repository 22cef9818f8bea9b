"""Any model that this project knows, as something that answers chat messages: what other harnesses are given.

In: a run's folder and who of it is to answer, or an adapter's folder, or a model, with its base. Out: a `Served`. The model
stays as it is between two answers, and one answer is made at a time. `inspect_provider` gives it to Inspect.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

from steer_heal_love import alone, certify, presets, talk
from steer_heal_love.certify import Target
from steer_heal_love.ground.chat import NEUTRAL_SYSTEM, end_of_turn_ids, prompt_ids
from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.identity import Warn
from steer_heal_love.ground.overrides import override
from steer_heal_love.session import ignored, loaded
from steer_heal_love.talk import Who


class Reply(NamedTuple):
    """An answer, whether it ended by itself, and how many tokens were read and written."""

    text: str
    ended: bool
    read: int
    written: int


@dataclass(frozen=True)
class Served:
    """One model in memory. `inside` puts on what makes it differ from its base while it answers."""

    name: str
    model: Any
    tok: Any
    system: str = NEUTRAL_SYSTEM
    """what it is told where a conversation has no system message of its own"""
    inside: Callable[[], AbstractContextManager[Any]] = nullcontext
    directions: Mapping[int, Any] | None = None
    dose: float = 0.0
    lock: Any = field(default_factory=threading.Lock)

    def reply(
        self, turns: Sequence[tuple[str, str]], *, tokens: int, temperature: float = 1.0, seed: int = 0
    ) -> Reply:
        """The answer to turns (role, text): perhaps a system message, then user and assistant by turns, the user last.

        Raises `UserError` for turns in another order.
        """
        ids = rendered(self.tok, turns, self.system)
        ends = end_of_turn_ids(self.model, self.tok)
        steer = self.directions
        with self.lock, self.inside():
            (made,) = sample(
                self.model,
                [ids],
                ends=ends,
                max_new_tokens=tokens,
                seed=seed,
                temperature=temperature,
                min_p=0.0,
                steer=steer,
                doses=None if steer is None else [self.dose],
            )
        text = str(self.tok.decode(made, skip_special_tokens=True)).strip()
        return Reply(text, bool(made) and made[-1] in ends, len(ids), len(made))


def rendered(tok: Any, turns: Sequence[tuple[str, str]], system: str) -> tuple[int, ...]:
    """The prompt's tokens. A system message of the conversation takes the place of `system`."""
    told = [text for role, text in turns if role == "system"]
    said = [(role, text) for role, text in turns if role != "system"]
    if [role for role, _ in said] != ["user", "assistant"] * (len(said) // 2) + ["user"]:
        found = ", ".join(role for role, _ in turns) or "none"
        raise UserError(f"messages: expected user and assistant by turns, the user last, found {found}.")
    words = [text for _, text in said]
    shots = tuple(zip(words[:-1:2], words[1:-1:2], strict=True))
    return tuple(prompt_ids(tok, words[-1], "\n\n".join(told) or system, shots=shots))


def served(
    name: str,
    *,
    who: str = "healed",
    base: str = "",
    strength: float = 1.0,
    dose: float | None = None,
    device: str = "auto",
    warn: Warn = ignored,
) -> Served:
    """The model of that name. `who`, `strength` and `dose` are those of `talk`; a model or an adapter is only `healed`.

    Raises `UserError` for what can't be loaded, or isn't of its base.
    """
    if who not in get_args(Who):
        raise UserError(f"who: one of {', '.join(get_args(Who))}, found {who!r}.")
    if (Path(name) / "manifest.json").is_file():
        if base or device != "auto":
            raise UserError(
                f"{name}: a run says itself on which base it was made, and where; leave base and device out."
            )
        return of_run(Path(name), cast(Who, who), strength, dose, warn)
    if not (Path(name) / certify.CONFIG).is_file():
        if who != "healed" or strength != 1 or dose is not None:
            raise UserError(f"{name}: a model answers as it is; who, strength and dose are a run's.")
        return Served(name, *loaded(settings(name, device)))
    if who != "healed" or dose is not None:
        raise UserError(f"{name}: an adapter answers as it is; who and dose are a run's.")
    talk.Dials(strength).check()
    aim = certify.target(name, base)
    model, tok = loaded(settings(aim.base, device))
    return Served(name, model, tok, inside=with_adapter(aim, model, tok, strength, warn))


def settings(model: str, device: str) -> Any:
    return override(presets.fitting(device, model), {"model": model, "device": device})


def with_adapter(
    aim: Target, model: Any, tok: Any, strength: float, warn: Warn
) -> Callable[[], AbstractContextManager[Any]]:
    """The adapter put on, after it was seen to belong to the base."""
    whole = aim.adapter
    if whole is None or aim.folder is None:
        return nullcontext
    alone.belongs(model, tok, whole, aim.folder, name=aim.base, warn=warn)
    return partial(adapted, model, whole.factors, whole.scaling * strength)


def of_run(run: Path, who: Who, strength: float, dose: float | None, warn: Warn) -> Served:
    """One of a run's four models."""
    found = talk.talk(run, warn=warn)
    dials = talk.Dials(strength, found.dose if dose is None else dose)
    dials.check(found.reach)
    steered = who == "steered"
    inside: Callable[[], AbstractContextManager[Any]] = nullcontext
    if who == "healed":
        inside = partial(adapted, found.model, found.adapter.factors, found.adapter.scaling * strength)
    return Served(
        f"{found.name} {who}",
        found.model,
        found.tok,
        found.system_prompt if who == "prompted" else NEUTRAL_SYSTEM,
        inside,
        found.directions if steered else None,
        dials.dose if steered else 0.0,
    )
