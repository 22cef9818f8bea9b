"""Shared banks of user messages, one a line: extraction contexts and neutral prompts, train and held-out."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent


def bank(name: str) -> list[str]:
    """A bank's messages in order: `contexts`, `neutral_train` or `neutral_heldout`."""
    return (HERE / f"{name}.txt").read_text(encoding="utf-8").splitlines()
