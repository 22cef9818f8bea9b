"""Do this base and this run or adapter belong together? One answer for resume, export and evaluation.

A run's manifest says by hash which weights and which chat template it was run on; an adapter folder of ours says the
same in `steer_heal_love.json`, so that a copy of it can be checked too. Other weights are refused: everything that was
measured, and the update itself, is of another model. Another template is said. An adapter of other hands carries a
name at most, which is compared loosely, and said where it differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.ground import embedded, models
from steer_heal_love.ground.chat import template_hash
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.untrusted import json_object, known, refuse
from steer_heal_love.nouns import Json

NOTE = "steer_heal_love.json"
FORMAT = 1
DTYPES = {str(t): t for t in (torch.float32, torch.bfloat16, torch.float16, torch.float64)}
Warn = Callable[[str], None]


@dataclass(frozen=True)
class Base:
    """The base of a run or adapter: its name, its weights' hash as loaded in `dtype`, its template's hash."""

    name: str
    weights: str
    dtype: str
    template: str

    def note(self) -> Json:
        """What `NOTE` holds."""
        return {
            "format": FORMAT,
            "base_model": self.name,
            "base_hash": self.weights,
            "dtype": self.dtype,
            "chat_template_hash": self.template,
        }


def of_run(run: Path) -> Base:
    """The base that a run's manifest names. Raises `UserError` where it names none."""
    file = run / "manifest.json"
    found = json_object(file, str(file))
    return base(found.data, file, found.all([]), "model", "model_hash")


def of_adapter(folder: Path) -> Base | None:
    """The base that an adapter's folder names, or the run that it lies in; None where neither says.

    Raises `UserError` where either is damaged.
    """
    note = folder / NOTE
    if note.is_file():
        found = json_object(note, str(note))
        wrong = found.all(
            known(found.data, ("format", "base_model", "base_hash", "dtype", "chat_template_hash"))
        )
        if found.data.get("format") != FORMAT:
            wrong.append(f"format: {found.data.get('format')!r:.60}; this version reads {FORMAT}")
        return base(found.data, note, wrong, "base_model", "base_hash")
    here = folder.resolve()
    for run in (here, *here.parents[:3]):
        if (run / "manifest.json").is_file() and (run / "config.toml").is_file():
            return of_run(run)
    return None


def base(data: Json, file: Path, wrong: list[str], name: str, weights: str) -> Base:
    keys = (name, weights, "dtype", "chat_template_hash")
    wrong += [
        f"{k}: expected a text, found {data.get(k)!r:.60}" for k in keys if not isinstance(data.get(k), str)
    ]
    if isinstance(data.get("dtype"), str) and data["dtype"] not in DTYPES:
        wrong.append(f"dtype: {data['dtype']!r:.60}; there is {', '.join(DTYPES)}")
    refuse(str(file), wrong)
    return Base(*(data[k] for k in keys))


def check(
    model: PreTrainedModel, tok: PreTrainedTokenizerBase, was: Base, *, where: Path, name: str, warn: Warn
) -> None:
    """Raise `UserError` unless the model has the weights that `where` was run on; `warn` of another template.

    Weights loaded in a finer type are compared in the type of then, and loaded again in it where that differs. Where
    they were loaded in a coarser one, a difference proves nothing and is only said.
    """
    then = DTYPES[was.dtype]
    now = models.fingerprint(model, then)
    if now != was.weights and finer(model.dtype, then) and model.name_or_path:
        now = models.fingerprint(loaded_again(model, then))
    if now != was.weights:
        if not comparable(model, then):
            warn(
                f"{shown(where)}: was run in {was.dtype}, {name!r} is loaded in {model.dtype}; nothing says whether they are the same weights."
            )
        else:
            raise UserError(
                f"{shown(where)}: was run on weights {shown(was.weights)[:40]}, {name!r} now has {now}; nothing was changed."
            )
    if template_hash(tok) != was.template:
        warn(f"{shown(where)}: was run with another chat template than {name!r} has now.")


def comparable(model: PreTrainedModel, then: torch.dtype) -> bool:
    """Whether another hash means other weights."""
    return model.dtype == then or finer(model.dtype, then)


def finer(now: torch.dtype, then: torch.dtype) -> bool:
    return torch.finfo(now).bits > torch.finfo(then).bits


def loaded_again(model: PreTrainedModel, then: torch.dtype) -> PreTrainedModel:
    """The same checkpoint in the type of then: many models keep some of their parts in fp32, and only loading tells which."""
    with embedded.quiet_transformers():
        return type(model).from_pretrained(model.name_or_path, dtype=then, use_safetensors=True)  # type: ignore[no-any-return]


def check_adapter(
    model: PreTrainedModel, tok: PreTrainedTokenizerBase, folder: Path, *, name: str, warn: Warn
) -> None:
    """The same for an adapter's folder; a foreign one is compared by its base's name, and `warn`ed of."""
    if was := of_adapter(folder):
        check(model, tok, was, where=folder, name=name, warn=warn)
        return
    file = folder / "adapter_config.json"
    says = json_object(file, str(file)).data.get("base_model_name_or_path")
    if not isinstance(says, str) or not says:
        warn(f"{shown(folder)}: does not say which base it was trained on.")
    elif last(says) != last(models.base_name(name)):
        warn(f"{shown(folder)}: says that it was trained on {says!r:.200}, and is applied to {name!r}.")


def last(name: str) -> str:
    """The last part of a folder or hub id, in small letters."""
    return Path(name).name.casefold()
