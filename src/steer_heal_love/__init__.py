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

compare   every other way of giving a model the trait, at equal coherence

Read `loop.py` first: one round on one page.
"""

from steer_heal_love.config import RunConfig
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.models import load
from steer_heal_love.loop import run
from steer_heal_love.persona import load as persona
from steer_heal_love.vector import Vector

__version__ = "0.1.0"
__all__ = ["RunConfig", "UserError", "Vector", "load", "persona", "run"]
