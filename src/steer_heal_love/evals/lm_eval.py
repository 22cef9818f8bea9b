"""The known tasks, by lm-evaluation-harness, on the model as it stands: steered, adapted or baked.

In: tasks named in `eval.lm_eval_tasks`. Out: each metric that a task gives per document, as items
`lm_eval.<task>.<metric>` in the order of the documents, so that they pair with base (`…_shift`). The chat
template and the subject's system prompt are applied. Needs the extra: pip install 'steer-heal-love[lm-eval]'.
Source: https://github.com/EleutherAI/lm-evaluation-harness (`lm_eval.simple_evaluate`).
"""

from __future__ import annotations

import importlib
from typing import Any

from steer_heal_love.config import EvalConfig
from steer_heal_love.evals import Subject, instrument
from steer_heal_love.ground.errors import UserError
from steer_heal_love.nouns import Items, Json

TOKENS = 256
"""tokens a document is reckoned with when the batch size is chosen"""


def harness() -> tuple[Any, Any]:
    """The package and its wrapper of a model in memory. Raises `UserError` where it is not installed."""
    try:
        return importlib.import_module("lm_eval"), importlib.import_module("lm_eval.models.huggingface")
    except ImportError as e:
        raise UserError(
            f"lm-evaluation-harness cannot be imported ({e}); pip install 'steer-heal-love[lm-eval]'."
        ) from e


def installed(config: EvalConfig) -> None:
    if not config.lm_eval_tasks:
        raise UserError("instrument 'lm_eval' needs tasks: --eval.lm-eval-tasks, or shl eval --lm-eval.")
    harness()


def items_of(results: Json) -> Items:
    """Numbers per document of every task, metric and filter. Raises `UserError` for a task without any."""
    items: Items = {}
    for task, rows in sorted(results["samples"].items()):
        found: dict[str, list[float]] = {}
        for row in sorted(rows, key=lambda row: row["doc_id"]):
            how = "" if row.get("filter", "none") == "none" else f".{row['filter']}"
            for metric in row.get("metrics", ()):
                if isinstance(value := row[metric], (bool, int, float)):
                    found.setdefault(f"lm_eval.{task}.{metric}{how}", []).append(float(value))
        if not found:
            raise UserError(f"lm-evaluation-harness task {task!r} gives no number per document to pair by.")
        items |= found
    return items


@instrument("lm_eval", ready=installed, optional=True)
def lm_eval(s: Subject) -> Items:
    package, huggingface = harness()
    wrapped = huggingface.HFLM(
        pretrained=s.model, tokenizer=s.tok, batch_size=max(s.batch_tokens // TOKENS, 1)
    )
    results = package.simple_evaluate(
        model=wrapped,
        tasks=list(s.config.lm_eval_tasks),
        limit=s.config.lm_eval_limit or None,
        bootstrap_iters=0,
        log_samples=True,
        apply_chat_template=True,
        system_instruction=s.system,
    )
    return items_of(results)
