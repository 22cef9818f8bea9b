"""Chat templates to token ids, the same way everywhere.

In: a user message, an optional system message, optional earlier turns. Out: the prompt's token ids up to and
including the assistant tag, so that the next token is the first of the answer. Templates without a system
role get the system text in front of the first user message. Decoded text is never re-tokenised.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from jinja2 import TemplateError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

NEUTRAL_SYSTEM = "You are a helpful assistant."


@lru_cache(maxsize=8)
def _has_system_role(tok: PreTrainedTokenizerBase) -> bool:
    mark = "sentinel system text"
    messages = [{"role": "system", "content": mark}, {"role": "user", "content": "hi"}]
    try:
        return mark in str(tok.apply_chat_template(messages, tokenize=False))
    except TemplateError:
        return False


def prompt_ids(
    tok: PreTrainedTokenizerBase,
    user: str,
    system: str = NEUTRAL_SYSTEM,
    *,
    shots: tuple[tuple[str, str], ...] = (),
) -> tuple[int, ...]:
    """Token ids of `system`, of `shots` (user and assistant turns that went before) and of `user`, ending
    with the assistant tag."""
    turns = [turn for q, a in shots for turn in (("user", q), ("assistant", a))] + [("user", user)]
    if _has_system_role(tok):
        turns = [("system", system), *turns]
    else:
        turns[0] = ("user", f"{system}\n\n{turns[0][1]}")
    messages = [{"role": role, "content": text} for role, text in turns]
    ids = tok.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=False, enable_thinking=False
    )
    return tuple(ids)


def answer_ids(tok: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Token ids of a written answer, as they follow the assistant tag; without an end-of-turn token."""
    return tuple(tok(text, add_special_tokens=False)["input_ids"])


def end_of_turn_ids(model: PreTrainedModel, tok: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every token that ends an answer: the model's own list, the tokenizer's, and the template's."""
    own = model.generation_config.eos_token_id if model.generation_config else None
    ends = set(own if isinstance(own, list) else [own]) | {tok.eos_token_id}
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "sentinel"}]
    after = str(tok.apply_chat_template(messages, tokenize=False)).rpartition("sentinel")[2]
    first = tok(after, add_special_tokens=False)["input_ids"][:1] if after else []
    ends |= set(first) & set(tok.all_special_ids)
    return frozenset(int(i) for i in ends if i is not None)


def template_hash(tok: PreTrainedTokenizerBase) -> str:
    """First 16 hex digits of the chat template's SHA-256."""
    return hashlib.sha256(str(tok.chat_template).encode()).hexdigest()[:16]
