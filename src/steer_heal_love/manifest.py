"""What a run folder says of how its run was begun: the files that it was given, and its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steer_heal_love import evals
from steer_heal_love.config import RunConfig
from steer_heal_love.ground import banks, models, records
from steer_heal_love.ground.chat import template_hash
from steer_heal_love.ground.untrusted import json_object
from steer_heal_love.nouns import Json
from steer_heal_love.persona import path as persona_path

GIVEN = ("config.toml", "persona.toml", "chat_template.jinja")
"""what a run was started with; the manifest holds their hashes"""


def of(cfg: RunConfig, model: Any, tok: Any) -> Json:
    """The manifest of a run that begins: versions, settings' names, and hashes of the weights, the template and the data."""
    data = {name: records.hash_text("\n".join(banks.bank(name))) for name in banks.names()}
    data |= evals.bank_hashes(cfg.eval)
    data["persona"] = records.hash_text(persona_path(cfg.persona).read_text(encoding="utf-8"))
    return {
        "schema": records.SCHEMA,
        "versions": records.versions(),
        **records.commit(),
        "model": homeless(cfg.model),
        "model_hash": models.fingerprint(model),
        "dtype": str(model.dtype),
        "chat_template_hash": template_hash(tok),
        "data": data,
        "device": records.device_name(model.device),
        "seed": cfg.seed,
    }


def homeless(name: str) -> str:
    """A folder's name without the home folder's, which says who ran it; any other name as it is."""
    home = str(Path.home())
    return f"~{name[len(home) :]}" if name == home or name.startswith(home.rstrip("/") + "/") else name


def seed(path: Path) -> Any:
    """The seed that a run's manifest names."""
    file = path / "manifest.json"
    return json_object(file, str(file)).data.get("seed")


def barely_begun(path: Path) -> bool:
    """Whether a run was killed after its settings were written and before its manifest was, so that no step is done."""
    return (
        not (path / "manifest.json").exists()
        and (path / "config.toml").is_file()
        and not any(
            (path / name).exists() for name in ("events.jsonl", "base", "rounds", "adapter", "summary.json")
        )
    )
