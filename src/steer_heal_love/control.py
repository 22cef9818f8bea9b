"""What a healed student carries of the vector by itself, and the control that it is set beside.

The control is a student healed as round 0's was, but on the base's own text, which nothing steered: what it moves along
the vector, healing moves by itself. It is made once a run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from jaxtyping import Float
from torch import Tensor

from steer_heal_love import steps
from steer_heal_love.evals import transfer
from steer_heal_love.generate import generate
from steer_heal_love.ground import purposes
from steer_heal_love.ground.folder import RunFolder, load_completions
from steer_heal_love.ground.progress import Advance
from steer_heal_love.ground.states import States
from steer_heal_love.ground.step import COMPLETIONS, JSON, Codec, Step
from steer_heal_love.nouns import Adapter, Completion, Transfer
from steer_heal_love.session import Run
from steer_heal_love.vector import Vector

DRAWS = 8
"""passes over the prompts that an unsteered answer is still wanted for"""
NAME = "control"
TEXT = Step(NAME, "completions.jsonl", COMPLETIONS)
HEAL = Step(NAME, "healing.json", steps.HEAL.codec)
TRANSFER: Step[Transfer] = Step("transfer", "transfer.json", JSON)
SHIFT = Step(NAME, "shift.safetensors", Codec(Vector.load, Vector.save))


def control(r: Run) -> Vector:
    """The own shift of the control student, which a sitting reads or makes once."""
    if r.unsteered is None:
        r.unsteered = shift_of_control(r)
    return r.unsteered


def shift_of_control(r: Run) -> Vector:
    """That shift from what lies in the run's folder, and what is missing there made."""
    here, first = r.folder.path / "base" / "control", r.folder.round(0)
    vector = Vector.load(first / steps.VECTOR.file)
    # Its warnings are its own, in a log beside it. Nothing steers it: at dose 0 its teacher is itself.
    bare = replace(r, history=[], rounds=[], folder=RunFolder(here))

    def text() -> list[Completion]:
        steered = load_completions(first / steps.GENERATE.file)
        return unsteered(r, [c for c in steered if c.used])

    used = TEXT.once(r.folder, here, text)
    adapter, _ = HEAL.once(r.folder, here, lambda: steps.train(bare, 0, used, vector, dose=0.0))

    def moved() -> Vector:
        shift, _ = own_shift(r, vector, [adapter])
        return Vector(shift, {"method": "own shift, unsteered control", "texts": len(used)})

    return SHIFT.once(r.folder, here, moved)


def unsteered(r: Run, used: list[Completion]) -> list[Completion]:
    """The base's own text in place of `used`: for each, another answer to its prompt that the filter keeps, no text
    twice, from the calibration or else drawn. What DRAWS passes don't find is left out."""
    found: dict[int, Completion] = {}
    wanted = lambda: [i for i in range(len(used)) if i not in found]

    def drawn(n: int) -> list[Completion]:
        prompts, seed = [used[i].prompt for i in wanted()], r.seed(purposes.UNSTEERED, n)
        label = "generate unsteered"
        made = generate(
            r.model, r.tok, prompts, [0.0], config=r.config.generate, seed=seed, track=r.track, label=label
        )
        return steps.judge(r, made)

    for n in range(DRAWS + 1):
        for c in drawn(n) if n else r.base.calibration:
            at = next((i for i in wanted() if used[i].prompt == c.prompt), None)
            if at is not None and c.kept and c.text not in {f.text for f in found.values()}:
                found[at] = replace(c, used=True)
        if not wanted():
            break
    return [found[i] for i in sorted(found)]


def own_shift(
    r: Run, vector: Vector, rounds: list[Adapter], advance: Advance = lambda _n: None
) -> tuple[dict[int, Float[Tensor, " d"]], States]:
    """How far these rounds move the base by themselves, at the vector's layers; and the base's states there."""
    at, hook = sorted(vector.directions), vector.place.hook
    known = r.base_tags.get((*at, hook))
    student = lambda: steps.exported(r, rounds)
    found = transfer.own_shift(
        steps.subject(r), steps.contexts(r), at, student, advance, hook=hook, base=known
    )
    r.base_tags[(*at, hook)] = found[1]
    return found


def transferred(r: Run, number: int, vector: Vector, plain: Vector | None) -> Transfer:
    """What the healed student carries of the vector by itself, beside the control's shift, and what that cost."""
    cfg, seed = r.config, r.seed(purposes.CHANCE, number)
    s = steps.subject(r, cache=r.cache, known_as=steps.named(number))
    full = cfg.eval.transfer == "full"
    first, healed = r.stages[0], r.stages[-1]
    student, previous = (lambda: steps.exported(r, r.history)), (lambda: steps.exported(r, r.history[:-1]))
    with r.track("transfer", transfer.count(s, steps.contexts(r), healed, full=full)) as advance:
        shift, states = own_shift(r, vector, r.history, advance)
        r.folder.still_there()
        Vector(shift, {"method": "own shift", "round": number}).save(
            r.folder.round(number) / "shift.safetensors"
        )
        teacher = vector.moves(states)
        out = cast(Transfer, transfer.alignment(shift, teacher, states, seed=seed))
        first_shift = Vector.load(r.folder.round(0) / "shift.safetensors")
        out["cosine_with_first_shift"] = transfer.cosine(shift, first_shift.directions)
        if plain is not None:
            out["control"] = {**transfer.along(plain.directions, teacher), **plain.meta}
        if full:
            then = previous if number else None
            out["ledger"] = transfer.ledger(s, student, then, healed, advance, before=steps.named(number - 1))
        if full and "trait" in first.items:
            out["causes"] = transfer.causes(s, shift, student, first, healed, seed=seed, advance=advance)
    return out
