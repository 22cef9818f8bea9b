"""One seed's bench: what its methods share is made once, and lies in the seed's run folder.

In: the seed's run with its base measured. Out, on demand: round 0's vector and kept completions, text of the
base told to be either pole, adapters. A method's own adapters lie in its own folder, so that its log and its
seconds are its own. Every training starts from the same factors and draws with the same seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from steer_heal_love import loop, steps
from steer_heal_love.config import Grid
from steer_heal_love.filter.walk import choose_dose
from steer_heal_love.generate import generate
from steer_heal_love.ground import folder as files
from steer_heal_love.ground import purposes, records
from steer_heal_love.ground.chat import prompt_ids
from steer_heal_love.ground.errors import Starved
from steer_heal_love.ground.folder import RunFolder
from steer_heal_love.ground.scoring import hidden_states
from steer_heal_love.ground.weights import placed
from steer_heal_love.heal.examples import Example
from steer_heal_love.heal.train import heal
from steer_heal_love.nouns import Adapter, Completion, Healing, Tokens
from steer_heal_love.persona import training_prompts
from steer_heal_love.session import Run
from steer_heal_love.vector import Vector

PLAIN = {"anchor": 0.0, "lam": 0.0, "spectral": 0.0, "budget": 0.0, "soft": 0.0}
"""heal settings that leave imitation alone: no anchor, barrier, spectral norm, trust region or teacher"""


@dataclass(frozen=True)
class Bench:
    """`run` is the seed's run, no round of it folded in; `folder` is the method's own."""

    run: Run
    folder: RunFolder
    grid: Grid

    def fresh(self) -> Run:
        """The seed's run before its first round, to go through rounds with."""
        return replace(self.run, history=[], rounds=[], stages=list(self.run.base.stages))

    def vector(self) -> Vector:
        return loop.steered(self.fresh(), 0)[0]

    def walked(self) -> float:
        """The dose that round 0's walk found. Raises `Starved` when it found none."""
        dose = choose_dose(loop.steered(self.fresh(), 0)[1], self.run.config.walk, self.run.base.coherent)
        if dose is None:
            raise Starved("no dose at which enough steered completions are coherent.")
        return float(dose)

    def kept(self) -> list[Completion]:
        """The steered completions that round 0 trains on. Raises `Starved` when they are too few."""
        used = [c for c in loop.steered(self.fresh(), 0)[1] if c.used]
        least = self.run.config.filter.least
        if len(used) < least:
            raise Starved(f"{len(used)} steered completions survived the filter, {least} are needed.")
        return used

    def prompted(self, pole: Literal["pos", "neg"]) -> list[Completion]:
        """As much text as round 0 may keep, by the base told to be that pole: same prompts, same draws."""
        r, cfg = self.run, self.run.config
        seed = r.seed(purposes.PROMPTED)

        def make() -> list[Completion]:
            prompts = training_prompts(r.persona, cfg.filter.keep, seed=seed)
            return generate(
                r.model,
                r.tok,
                prompts,
                [0.0],
                config=cfg.generate,
                system=r.persona.system(pole),
                seed=seed,
                label=f"generate, told {pole}",
                track=r.track,
            )

        file = r.folder.path / "told" / f"{pole}.jsonl"
        return r.folder.once("generate", file, files.load_completions, files.save_completions, make)

    def states(self, tokens: list[Tokens]) -> list[Any]:
        return hidden_states(self.run.model, tokens, batch_tokens=self.run.config.batch_tokens)

    def imitated(self, name: str, text: Callable[[], list[Completion]]) -> Adapter:
        """An adapter trained by NLL alone on given answers."""

        def examples() -> list[Example]:
            made = text()
            states = self.states([c.tokens for c in made])
            return [Example(c.tokens, h, c.prompt) for c, h in zip(made, states, strict=True)]

        return self.learned(name, examples)

    def learned(self, name: str, examples: Callable[[], list[Example]], **settings: Any) -> Adapter:
        """An adapter trained on the base with `PLAIN` and `settings`, made once."""
        r, cfg = self.run, replace(self.run.config.heal, **(PLAIN | settings))

        def make() -> tuple[Adapter, Healing]:
            train = partial(heal, r.model, examples(), [], cfg, seed=r.seed(purposes.HEAL, 0))
            return train(batch_tokens=r.config.batch_tokens, track=r.track)

        adapter, _ = steps.HEAL.once(self.folder, self.folder.path / name, make)
        return self.placed(adapter)

    def placed(self, adapter: Adapter) -> Adapter:
        """Factors on the model's device: one read back from a file is on the host."""
        return placed(self.run.model, adapter)


def opened(run: Run, path: Path, grid: Grid) -> Bench:
    """A bench for one method, whose own folder is made."""
    with records.writing(path):
        path.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(path)
    folder.check()
    return Bench(run, folder, grid)


def unprompted(tok: PreTrainedTokenizerBase, told: list[Completion]) -> list[Completion]:
    """The same answers after the neutral system prompt, which is how a student learns them."""
    return [replace(c, tokens=Tokens(prompt_ids(tok, c.prompt), c.tokens.answer)) for c in told]
