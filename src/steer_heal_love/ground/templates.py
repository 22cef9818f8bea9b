"""Which chat template a tokenizer uses, and whether it can be used: chosen by name or file, pinned, looked through.

In: a tokenizer and `--template`: empty (the model's own), `plain`, `chatml`, or a Jinja file. Out: the tokenizer with
that template, or a `UserError`; and sentences about what is odd but works. Templates come from outside: they are
rendered by transformers' sandboxed environment alone, and first of all in a process that can use little.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.template_trial import CPU_SECONDS, MEMORY, harmless

LARGEST = 1_000_000
"""bytes of a template's file"""
PLAIN = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] + '\n\n' }}{% else %}"
    "{{ ('Assistant' if m['role'] == 'assistant' else 'User') + ':\n' + m['content'] }}"
    "{{ (eos_token or '') if m['role'] == 'assistant' else '' }}{{ '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"
)
"""for base models: an answer begins on a line of its own, where no tokenizer wants a space before it"""
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NAMED = {"plain": PLAIN, "chatml": CHATML}
CODES = {
    "%d": "01",
    "%b": "Jan",
    "%B": "January",
    "%m": "01",
    "%Y": "2025",
    "%y": "25",
    "%A": "Wednesday",
    "%a": "Wed",
    "%H": "12",
    "%I": "12",
    "%M": "00",
    "%S": "00",
    "%p": "PM",
    "%-d": "1",
    "%-m": "1",
    "%e": " 1",
    "%j": "001",
    "%F": "2025-01-01",
    "%x": "01/01/25",
    "%X": "12:00:00",
    "%T": "12:00:00",
    "%Z": "UTC",
    "%z": "+0000",
}
"""1 January 2025, noon: what a template's clock shows"""
CLOCK = "strftime_now"
PIN = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f"|replace({code!r}, {shown!r})" for code, shown in CODES.items())
    + " }}{%- endmacro -%}"
)
"""in front of a template that shows the date: the same prompt on every day, also in what is exported"""
OPEN = re.compile(r"(<(think|thinking|thought|reasoning)>|\[THINK\])\s*$")
MARKS = ("Sentinel-system-text", "Sentinel-user-text", "Sentinel-answer-text")


def choose(tok: PreTrainedTokenizerBase, wanted: str, name: str) -> list[str]:
    """Give the tokenizer the template that `wanted` names, pinned; return what is odd about it.

    Raises `UserError` for a file that can't be read and a template that can't be used (`look`), or only at great cost.
    """
    if wanted:
        tok.chat_template = NAMED[wanted] if wanted in NAMED else from_file(Path(wanted).expanduser())
        if wanted in NAMED and begins_with_bos(tok):
            tok.chat_template = "{{ bos_token }}" + tok.chat_template
    if isinstance(tok.chat_template, dict):
        tok.chat_template = tok.chat_template.get("default", next(iter(tok.chat_template.values())))
    if not tok.chat_template:
        raise UserError(
            f"model {name!r} has no chat template, so nobody can say where the assistant's turn begins. Use its "
            "instruct/chat variant, or give a template: --template plain (for a base model), chatml or FILE.jinja."
        )
    notes = []
    if CLOCK in tok.chat_template:
        if not tok.chat_template.startswith(PIN):
            tok.chat_template = PIN + tok.chat_template
        notes.append(
            "the template shows the date; it is pinned to 1 January 2025, so that prompts don't change by day"
        )
    named = {k: v for k, v in tok.special_tokens_map.items() if isinstance(v, str)}
    if not harmless(str(tok.chat_template), named):
        raise UserError(
            f"model {name!r}: its chat template takes more than {CPU_SECONDS} s or {MEMORY >> 30} GiB on a plain question. {OTHER}"
        )
    return notes + look(tok, name)


def from_file(path: Path) -> str:
    """A template's text. Raises `UserError` for a file that isn't there, is too long or isn't text."""
    if not path.is_file():
        raise UserError(
            f"template {str(path)!r}: no such file; expected {', '.join(NAMED)} or a Jinja file's path."
        )
    if path.stat().st_size > LARGEST:
        raise UserError(f"template {path}: {path.stat().st_size} bytes; a template has at most {LARGEST}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as e:
        raise UserError(f"template {path}: cannot be read: {e.strerror}.") from e
    except UnicodeDecodeError as e:
        raise UserError(f"template {path}: not text in UTF-8: {e}") from e
    if not text.strip():
        raise UserError(f"template {path}: empty.")
    return text


def begins_with_bos(tok: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer itself puts its first token before a text."""
    return tok.bos_token_id is not None and tok("a")["input_ids"][:1] == [tok.bos_token_id]


def messages(turns: Sequence[tuple[str, str]], *, parts: bool) -> list[dict[str, object]]:
    """Turns (role, text) as the library takes them."""
    return [
        {"role": role, "content": [{"type": "text", "text": text}] if parts else text} for role, text in turns
    ]


def render(
    tok: PreTrainedTokenizerBase, turns: Sequence[tuple[str, str]], *, parts: bool = False, tag: bool = False
) -> str:
    """Turns (role, text) as one text, with the assistant tag at the end if `tag`; `parts`: contents as lists of parts.

    Raises what a template raises.
    """
    return str(
        tok.apply_chat_template(
            messages(turns, parts=parts), tokenize=False, add_generation_prompt=tag, enable_thinking=False
        )
    )


def rendered(tok: PreTrainedTokenizerBase, turns: Sequence[tuple[str, str]], **how: bool) -> str | None:
    """As `render`, None where the template refuses such turns."""
    try:
        return render(tok, turns, **how)
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError):
        return None


def wants_parts(tok: PreTrainedTokenizerBase) -> bool:
    """Whether the template shows a message only when its content is a list of parts, as some for images do."""
    turns = [("user", MARKS[1])]
    as_text, as_parts = (rendered(tok, turns, parts=p, tag=True) or "" for p in (False, True))
    return MARKS[1] not in as_text and MARKS[1] in as_parts


def has_system_role(tok: PreTrainedTokenizerBase) -> bool:
    """Whether a system message is shown, and the user's beside it."""
    turns = [("system", MARKS[0]), ("user", MARKS[1])]
    shown = rendered(tok, turns, parts=wants_parts(tok), tag=True) or ""
    return MARKS[0] in shown and MARKS[1] in shown


def look(tok: PreTrainedTokenizerBase, name: str) -> list[str]:
    """Raise `UserError` for a template that no prompt can be made with; return what is odd but works."""
    parts = wants_parts(tok)
    try:
        prompt = render(tok, [("user", MARKS[1])], parts=parts, tag=True)
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError) as e:
        raise UserError(f"model {name!r}: its chat template fails on a plain question: {e}. {OTHER}") from e
    if MARKS[1] not in prompt:
        raise UserError(f"model {name!r}: its chat template leaves out what the user says. {OTHER}")
    after = prompt.rpartition(MARKS[1])[2]
    if not after.strip():
        raise UserError(
            f"model {name!r}: its chat template puts nothing after the user's text, so nobody can say where the "
            f"assistant's turn begins. {OTHER}"
        )
    if found := OPEN.search(after):
        raise UserError(
            f"model {name!r}: its chat template ends in an open {found[1]}: every answer would begin as a thought and "
            f"be cut inside it. Give --template FILE.jinja: a copy of its template that closes the thought again."
        )
    return [*oddities(tok, parts)]


OTHER = "Give another: --template plain, chatml or FILE.jinja."


def oddities(tok: PreTrainedTokenizerBase, parts: bool) -> list[str]:
    """What works otherwise than a template usually does, a sentence each."""
    out = []
    if parts:
        out.append("the template takes contents as lists of parts; text is given to it so")
    if not has_system_role(tok):
        out.append(
            "the template has no system role: the system prompt goes in front of the user's first message"
        )
    answered = rendered(tok, [("user", MARKS[1]), ("assistant", MARKS[2])], parts=parts)
    if answered is None or MARKS[2] not in answered:
        out.append("the template does not show what the assistant has said: examples in a prompt are lost")
    if MARK in str(tok.chat_template) and len(tok(MARK, add_special_tokens=False)["input_ids"]) > 1:
        out.append(
            f"{MARK} is no token of this tokenizer: it is spelled in pieces, and no single token ends a turn"
        )
    return out


MARK = "<|im_end|>"
