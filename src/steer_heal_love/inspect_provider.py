"""Inspect's tasks on a model of ours: the provider `shl`, found by Inspect through an entry point.

    inspect eval TASK --model shl/runs/RUN                       the healed model of a run
    inspect eval TASK --model shl/runs/RUN -M who=steered        base, prompted, steered or healed; also strength, dose
    inspect eval TASK --model shl/ADAPTER -M base=smollm2        an adapter, after the checks of `shl certify`

Needs the extra: pip install 'steer-heal-love[inspect]'. Source: https://inspect.aisi.org.uk (model API extensions).
Tools are refused: no model here was taught to call any. So are options of generation that would change the answer and that
this tool doesn't have. Where a task gives no seed, the same conversation asked again is answered with another one.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import anyio.to_thread
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)

from steer_heal_love.ground.errors import UserError
from steer_heal_love.serve import served

LENGTH = 512
"""tokens of an answer where the task asks for no other number"""
LACKING = [
    "num_choices",
    "stop_seqs",
    "top_p",
    "top_k",
    "best_of",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "logprobs",
    "response_schema",
]
"""options of generation that would change an answer, and that nothing here heeds"""


@modelapi(name="shl")
class SteerHealLove(ModelAPI):  # type: ignore[misc]
    """One model, one answer at a time. Model arguments are those of `serve.served`."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        **model_args: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        known = {"who": str, "base": str, "strength": float, "dose": float, "device": str}
        if odd := sorted(set(model_args) - set(known)):
            raise UserError(f"shl: unknown model arguments {', '.join(odd)}; there is {', '.join(known)}.")
        self.times: Counter[str] = Counter()
        self.served = served(model_name, **{k: known[k](v) for k, v in model_args.items()})

    async def generate(
        self, input: list[Any], tools: list[Any], tool_choice: Any, config: GenerateConfig
    ) -> ModelOutput:
        """The answer to a conversation, drawn with the task's temperature (1 where it has none), seed and length."""
        if tools:
            raise UserError("shl: this task offers tools, and the model was not taught to call any.")
        if asked := [name for name in LACKING if getattr(config, name, None) not in (None, False, 1, [])]:
            raise UserError(f"shl: this task asks for {', '.join(asked)}, which this tool doesn't have.")
        turns = [(m.role, m.text) for m in input]
        again = self.times[repr(turns)]
        self.times[repr(turns)] += 1
        ask = partial(
            self.served.reply,
            turns,
            tokens=config.max_tokens or LENGTH,
            temperature=1.0 if config.temperature is None else config.temperature,
            seed=again if config.seed is None else config.seed,
        )
        made = await anyio.to_thread.run_sync(ask)
        message = ChatMessageAssistant(content=made.text, model=self.model_name, source="generate")
        return ModelOutput(
            model=self.model_name,
            choices=[
                ChatCompletionChoice(message=message, stop_reason="stop" if made.ended else "max_tokens")
            ],
            usage=ModelUsage(
                input_tokens=made.read, output_tokens=made.written, total_tokens=made.read + made.written
            ),
        )

    def max_connections(self) -> int:
        """One: the model is put on and off for each answer."""
        return 1
