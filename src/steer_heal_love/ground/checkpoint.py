"""Every way a model folder can be wrong, told before or while it is read: each ends in one `UserError`.

In: the folder or hub id, what the library says of loading, the loaded pair. Out: nothing, or a refusal that names
the file and says what to do; what is harmless but worth knowing comes back as sentences.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from jaxtyping import Int
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.peft_utils import find_adapter_config_file

from steer_heal_love.ground import embedded
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.untrusted.mistakes import nearest
from steer_heal_love.nouns import Json

JSON = ("config.json", "generation_config.json", "tokenizer_config.json", "adapter_config.json")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
BUFFERS = re.compile(r"(rotary_emb\.inv_freq|\.masked_bias|\.attn\.bias)$")
"""what old checkpoints store and models now compute"""
PREDICTORS = ("eh_proj", "enorm", "hnorm")
"""parts of layers that predict several tokens ahead, stored after the decoder's layers and not used here"""
FORESIGHT = 0.01
"""share of the largest logit by which a later token may change earlier ones through rounding"""
FEW_KEYS = 512
"""chosen keys up to which the choice is tried with a text that is longer"""
CONTEXT = 256
"""tokens that prompt and answer of the shortest run take together"""
FAILURES = (
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    ImportError,
    TypeError,
    AttributeError,
    SafetensorError,
    StrictDataclassError,
)
"""what the library raises on a folder that is wrong"""


class Reading:
    """Around the library's own reading of a model: what it raises becomes a `UserError` that names the model.

    The tokenizers library raises a bare `Exception` for a file that it cannot parse; that very class is taken too.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if (
            kind is not None
            and not issubclass(kind, UserError)
            and (kind is Exception or issubclass(kind, FAILURES))
        ):
            raise UserError(said(self.name, error)) from error


def said(name: str, error: BaseException | None) -> str:
    """A library's failure to load as one message: its first line, and what to do."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    words = " ".join(lines[:2]).partition(" Model type should be one of")[0][:400]
    kind = "" if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: "
    if "trust_remote_code" in str(error):
        return (
            f"{name!r}: the model ships code of its own, which is not run unless you ask: read it, and give "
            "--trust-remote-code True to `shl run` if you trust it."
        )
    return (
        f"no model loads under {name!r}: {kind}{words or 'no reason given'}\n"
        "Give 'smollm2' (the embedded model), a folder with config.json and safetensors, or a hub id."
    )


def refuse_folder(name: str) -> None:
    """Raise `UserError` for a name that holds an adapter, or a folder whose files cannot be a model's."""
    folder = Path(name).expanduser()
    if folder.is_file():
        raise UserError(f"{name!r} is a file; give the folder that holds config.json and the safetensors.")
    if folder.is_dir():
        refuse_devices(folder)
        for file in JSON:
            refuse_json(folder / file)
    elif folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UserError(f"{name!r}: there is no such folder.")
    elif meant := nearest(name, embedded.MODELS, least=0.75):  # a hub would be asked for minutes
        raise UserError(f"no model {name!r}{meant}")
    with Reading(name):
        adapter = find_adapter_config_file(name)
    if adapter:
        refuse_adapter(name, Path(adapter))
    if folder.is_dir():
        refuse_files(folder)


def refuse_devices(folder: Path) -> None:
    """What is neither a file nor a folder, a device or a pipe by way of a link, would be read without end."""
    for path in folder.iterdir():
        try:
            mode = path.stat().st_mode
        except OSError as e:
            raise UserError(f"{path}: cannot be read: {e.strerror}.") from e
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise UserError(f"{path}: a pipe, a device or a socket, where a file was expected.")


def refuse_json(file: Path) -> None:
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except OSError as e:
        raise UserError(f"{file}: cannot be read: {e.strerror}.") from e
    except (ValueError, RecursionError) as e:
        raise UserError(f"{file}: not JSON in UTF-8: {e}") from e
    if not isinstance(found, dict):
        raise UserError(f"{file}: expected a JSON object, found {type(found).__name__}.")


def refuse_adapter(name: str, config: Path) -> None:
    """An adapter in place of a model would be trained through, half of it, and left out of what is exported."""
    refuse_json(config)
    base = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if (config.parent / "config.json").exists():
        raise UserError(
            f"{name!r} holds a model and an adapter (adapter_config.json). To measure the adapter give --model BASE "
            "--adapter FOLDER to `shl eval`; to use the model alone, move the adapter's files out of the folder."
        )
    raise UserError(
        f"{name!r}: that is an adapter: give --model BASE --adapter FOLDER to `shl eval` (its base is {base!r}), "
        "or merge it into its base first (PEFT's merge_and_unload, then save_pretrained) and give that folder."
    )


def refuse_files(folder: Path) -> None:
    names = sorted(p.name for p in folder.iterdir())
    if "config.json" not in names:
        raise UserError(
            f"{folder}: no config.json there, so no model; found: {', '.join(names[:8]) or 'nothing'}."
        )
    if any(n.endswith(".safetensors") for n in names):
        return
    if pickled := sorted(p.name for pattern in PICKLED for p in folder.glob(pattern)):
        raise UserError(
            f"{folder}: its weights are pickle files ({', '.join(pickled[:3])}), which can run code when they are read. "
            "Only safetensors are: load it where you trust it and save_pretrained it again."
        )
    raise UserError(f"{folder}: no .safetensors there; found: {', '.join(names[:8])}.")


def quantised(config: Any) -> str:
    """How a checkpoint's weights are quantised; empty where they are not."""
    found = getattr(config, "quantization_config", None)
    if found is None:
        return ""
    how = found.get("quant_method") if isinstance(found, dict) else getattr(found, "quant_method", None)
    return str(getattr(how, "value", how) or "unknown")


def refuse_quantised(name: str, config: Any) -> None:
    """Raise `UserError` for quantised weights to which an update can't be added as it will be exported."""
    how = quantised(config)
    if how in ("", "mxfp4"):
        return
    if how != "bitsandbytes":
        raise UserError(
            f"{name!r}: its weights are quantised ({how}): an update cannot be added to them exactly. Give the model "
            "that it was made from; a base in 4 bits is taken from bitsandbytes alone."
        )
    if missing := [p for p in ("bitsandbytes", "accelerate") if find_spec(p) is None]:
        raise UserError(
            f"{name!r}: its weights are in bitsandbytes' format, which needs {' and '.join(missing)}: "
            "pip install 'steer-heal-love[4bit]'."
        )


def refuse_lost(name: str, model: PreTrainedModel, info: Json) -> list[str]:
    """Raise `UserError` for weights that the checkpoint lacks or that the model has no place for. Returns notes."""
    lost, extra = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    if lost or info["mismatched_keys"]:
        sizes = [
            f"{key}: {list(a)} in the file, {list(b)} in the model" for key, a, b in info["mismatched_keys"]
        ]
        hint = f" It has weights under other names: {few(extra)}." if lost and extra else ""
        raise UserError(
            f"{name!r}: the checkpoint lacks weights of {type(model).__name__}, which would be drawn at random: "
            f"{few(lost + sizes)}.{hint} Save it again from the whole model, merged, without a wrapper."
        )
    extra = [key for key in extra if not BUFFERS.search(key)]
    if wrong := [key for key in extra if belongs(model, key)]:
        raise UserError(
            f"{name!r}: the checkpoint has weights that {type(model).__name__} has no place for, so the model would "
            f"not be the one that was saved: {few(wrong)}. Its config.json, or the checkpoint, is another model's."
        )
    return [f"weights of the checkpoint that a language model has no use for: {few(extra)}"] if extra else []


def belongs(model: PreTrainedModel, key: str) -> bool:
    """Whether an unexpected weight would change the decoder: it sits on one of its modules, or is a layer more."""
    if "lora_" in key:
        return True
    parent = key.rpartition(".")[0]
    modules = dict(model.named_modules())
    if parent in modules and parent:
        return True
    if any(part in key for part in PREDICTORS):
        return False
    stem = re.match(r"(.+\.layers)\.\d+\.", key)
    return stem is not None and stem[1] in modules


def few(names: Iterable[str], n: int = 4) -> str:
    names = list(names)
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")


def refuse_numbers(name: str, model: nn.Module) -> None:
    """Raise `UserError` for weights that are not numbers."""
    for key, weight in model.named_parameters():
        if weight.is_floating_point() and weight.numel():
            low, high = torch.aminmax(weight.detach())
            if not (torch.isfinite(low) and torch.isfinite(high)):
                raise UserError(
                    f"{name!r}: {key} holds NaN or infinity in {weight.dtype}; the checkpoint is broken, "
                    "or its numbers need a wider type (--dtype bfloat16 or float32)."
                )


def refuse_vocabulary(name: str, model: PreTrainedModel, tok: PreTrainedTokenizerBase) -> list[str]:
    """Raise `UserError` where the tokenizer makes tokens that the embedding has no row for. Returns notes."""
    rows = model.get_input_embeddings().weight.shape[0]
    beyond = {piece: i for piece, i in tok.get_vocab().items() if i >= rows}
    if not beyond:
        return []
    # Tokens for images are often added past the rows of a text model: no text of ours makes them.
    wanted = str(tok.chat_template)
    reached = [
        p
        for p in beyond
        if p not in tok.get_added_vocab() or p in wanted or p in tok.special_tokens_map.values()
    ]
    if reached:
        raise UserError(
            f"{name!r}: the tokenizer has {len(tok)} tokens, the embedding {rows} rows: no row for "
            f"{few(map(repr, reached))}. Resize the embeddings where the tokens were added, or take the right tokenizer."
        )
    return [f"tokens without a row in the embedding, which no prompt here makes: {few(map(repr, beyond))}"]


def refuse_context(name: str, model: PreTrainedModel) -> None:
    """Raise `UserError` for a model that cannot hold a prompt and an answer."""
    config = model.config.get_text_config()
    size = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if isinstance(size, int) and 0 < size < CONTEXT:
        raise UserError(
            f"{name!r}: its context is {size} tokens, a prompt with its answer takes {CONTEXT} and more."
        )


@torch.no_grad()
def refuse_foresight(name: str, model: PreTrainedModel) -> None:
    """Raise `UserError` for a model whose earlier tokens change with later ones: an encoder, or a choice of few keys.

    Attention to the likeliest keys alone has ties where few heads score them, and a tie falls otherwise in a longer row.
    """
    if foresees(model, torch.arange(1, 9), 7):
        raise UserError(
            f"{name!r}: {type(model).__name__} reads what comes after a token too: an encoder, not a model that chats."
        )
    config = model.config.get_text_config(decoder=True)
    keys = getattr(config, "index_topk", None)
    if not isinstance(keys, int) or not 0 < keys <= FEW_KEYS:
        return
    draw, size = torch.Generator().manual_seed(0), keys + CONTEXT // 4
    ids = torch.randint(1, config.vocab_size, (size,), generator=draw)
    if any(foresees(model, ids, size - back) for back in (1, 5, 13)):
        raise UserError(
            f"{name!r}: {type(model).__name__} attends to the {keys} likeliest tokens, and chooses others once more "
            "text follows: an answer would be scored by another model than wrote it. Take a checkpoint with a larger "
            "index_topk, or with more heads that score (index_n_heads)."
        )


def foresees(model: PreTrainedModel, ids: Int[Tensor, " s"], n: int) -> bool:
    """Whether the first `n` tokens' logits are others when the rest follows."""
    row = ids.to(model.device).unsqueeze(0)
    one, two = (model(input_ids=x, use_cache=False).logits[0, :n].float() for x in (row[:, :n], row))
    return not (one - two).abs().max() <= FORESIGHT * one.abs().max()
