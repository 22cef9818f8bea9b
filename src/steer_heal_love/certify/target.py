"""What is to be certified, and against which base: an adapter, or a whole model. Nothing is loaded here but factors.

In: a folder of a PEFT adapter, a run folder (its adapter), a model's folder or hub id; and a base by name. Out: a
`Target`. Whatever is no plain LoRA is refused with what keeps it from being one (`bake.plain_lora`). A base is never
taken from a file of other hands: it would decide what is downloaded and loaded here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from steer_heal_love import bake
from steer_heal_love.ground import embedded, identity
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.folder import RunFolder
from steer_heal_love.ground.models import base_name
from steer_heal_love.ground.shown import shown
from steer_heal_love.ground.untrusted import inside, json_object
from steer_heal_love.nouns import Adapter

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class Target:
    """What is certified: its name as given, the base's name, and the adapter; None for a whole model."""

    name: str
    base: str
    folder: Path | None = None
    adapter: Adapter | None = None

    @property
    def kind(self) -> str:
        return "adapter" if self.adapter else "model"


def target(name: str, base: str = "") -> Target:
    """Raises `UserError` for what is no plain LoRA, for a folder that is both, and where no base is given or known."""
    folder = Path(name).expanduser()
    of_a_run = (folder / "manifest.json").is_file() and (folder / "adapter").is_dir()
    if of_a_run:
        RunFolder.open(folder).check(derived=True)
        folder = inside(folder, folder / "adapter")
    if not (folder / CONFIG).is_file():
        if of_a_run:
            raise UserError(
                f"{shown(folder)} has no {CONFIG}: the run's adapter is damaged. Export the run again with shl export, "
                "and certify that."
            )
        if (folder / WEIGHTS).is_file():
            raise UserError(f"{shown(folder)} holds an adapter's {WEIGHTS} and no {CONFIG}.")
        if folder.is_dir() and not (folder / "config.json").is_file():
            raise UserError(
                f"{shown(folder)} is no model (no config.json), no adapter (no {CONFIG}) and no run (no manifest.json)."
            )
        if not base:
            raise UserError(
                f"shl certify {shown(name)}: a whole model is measured against its base; give --base BASE."
            )
        return Target(name, base)
    if (folder / "config.json").exists():
        raise UserError(
            f"{shown(folder)} holds a model and an adapter ({CONFIG}): move one of them out, so that it is clear which to certify."
        )
    whole = bake.load_peft(folder)
    return Target(name, base or known_base(folder), folder, whole)


def known_base(folder: Path) -> str:
    """The embedded model that an adapter's folder names as its base. Raises `UserError` where it names another."""
    if was := identity.of_adapter(folder):
        says = was.name
    else:
        found = json_object(folder / CONFIG, str(folder / CONFIG)).data.get("base_model_name_or_path")
        says = found if isinstance(found, str) else ""
    for name in embedded.MODELS:
        if says in (name, base_name(name)):
            return name
    said = f"it says that its base is {says!r:.200}" if says else "it does not say which base it is of"
    raise UserError(
        f"{shown(folder)}: {shown(said)}; give --base BASE. A base is not taken from the adapter's own files."
    )
