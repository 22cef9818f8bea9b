"""steer-heal-love: move a trait into a chat model's weights, without labels, and keep the model coherent.

persona   who the model should become: poles, training prompts, held-out probes
vector    poles → steering vector on the current student
generate  steered completions
filter    what is kept, and why the rest fell; walking the dose
heal      a LoRA trained on what was kept, and made to stay coherent
bake      all rounds as one exact delta; PEFT folders
evals     the same paired instruments on base, prompt, steered, healed
gates     claims, observations, verdicts
report    records in, files out
ground    models, hooks, weights, scoring, records: what every room stands on

compare   every other way of giving a model the trait, at equal drift
cells     a sweep: persona × method × seed × model, each measured once
executors who does the work of a comparison or a sweep: processes here, Ray, SLURM
doctor    every law that a run stands on, tried on a model

Read `loop.py` first: one round on one page.
"""

from typing import TYPE_CHECKING, Any

from steer_heal_love.config import RunConfig
from steer_heal_love.ground.errors import UserError
from steer_heal_love.persona import load as persona

if TYPE_CHECKING:
    from steer_heal_love.ground.models import load
    from steer_heal_love.loop import run
    from steer_heal_love.vector import Vector

__version__ = "0.1.0"
__all__ = ["RunConfig", "UserError", "Vector", "load", "persona", "run"]

LATER = {"Vector": "vector", "load": "ground.models", "run": "loop"}
"""what stands on torch, by the module it is in: imported when it is first asked for, since that takes seconds"""


def __getattr__(name: str) -> Any:
    if name not in LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{LATER[name]}"), name)
