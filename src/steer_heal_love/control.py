"""The control: a student healed as round 0's was, but on the base's own text, which nothing steered.

What it moves along the vector, healing moves by itself. Made once a run; round by round the transfer is set beside it.
"""

from __future__ import annotations

from dataclasses import replace

from steer_heal_love import steps
from steer_heal_love.generate import generate
from steer_heal_love.ground.folder import RunFolder, load_completions
from steer_heal_love.ground.step import COMPLETIONS, Codec, Step
from steer_heal_love.nouns import Completion
from steer_heal_love.session import Run
from steer_heal_love.vector import Vector

DRAWS = 8
"""passes over the prompts that an unsteered answer is still wanted for"""
NAME = "control"
TEXT = Step(NAME, "completions.jsonl", COMPLETIONS)
HEAL = Step(NAME, "healing.json", steps.HEAL.codec)
SHIFT = Step(NAME, "shift.safetensors", Codec(Vector.load, Vector.save))


def control(r: Run) -> Vector:
    """The own shift of the control student."""
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
        shift, _ = steps.own_shift(r, vector, [adapter])
        return Vector(shift, {"method": "own shift, unsteered control", "texts": len(used)})

    return SHIFT.once(r.folder, here, moved)


def unsteered(r: Run, used: list[Completion]) -> list[Completion]:
    """The base's own text in place of `used`: for each, another answer to its prompt that the filter keeps, no text
    twice, from the calibration or else drawn. What DRAWS passes don't find is left out."""
    found: dict[int, Completion] = {}
    wanted = lambda: [i for i in range(len(used)) if i not in found]

    def drawn(n: int) -> list[Completion]:
        prompts, seed = [used[i].prompt for i in wanted()], r.seed(5, n)
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
