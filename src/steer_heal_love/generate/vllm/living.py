"""vLLM at work beside a model in memory: started at the first order, given new weights when those have changed.

One engine at a time is kept. It starts anew for another model, for other options, and for a text longer than it has room for.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import ReferenceType, ref

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.generate.engine import Order
from steer_heal_love.generate.vllm import quiet
from steer_heal_love.generate.vllm.options import options
from steer_heal_love.generate.vllm.steered import SLOTS, weighted
from steer_heal_love.ground import fits, records
from steer_heal_love.ground.decode import row_seed
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.models import fingerprint
from steer_heal_love.ground.operations import Steering
from steer_heal_love.ground.saved import save_whole

ROOM = 4096
"""tokens of prompt and answer that an engine has room for, where the model reads as many; more when an order needs it"""
WORKSPACE = 4 * 10**9
"""bytes for activations and captured graphs"""
WORKER = "steer_heal_love.generate.vllm.worker.SteeredWorker"


@dataclass
class Living:
    """An engine that runs, for whom it was started, and the fingerprint of the weights that it holds."""

    llm: Any
    model: ReferenceType[PreTrainedModel]
    told: tuple[Any, ...]
    room: int
    weights: str
    scratch: tempfile.TemporaryDirectory[str] = field(repr=False)

    def stop(self) -> None:
        self.llm.llm_engine.engine_core.shutdown()
        self.scratch.cleanup()


_living: list[Living] = []


def stop() -> None:
    """End the engine that is kept, and free what it holds; nothing happens where none is."""
    while _living:
        _living.pop().stop()


def write(model: PreTrainedModel, tok: PreTrainedTokenizerBase, order: Order) -> list[tuple[int, ...]]:
    """The answers, in the order of the prompts."""
    for steering in order.steerings:
        fits.vector(model, steering.directions)
    engine = fresh(model, tok, order)
    out: list[tuple[int, ...]] = [()] * len(order.prompts)
    with order.track(order.label, len(order.prompts) * order.max_new_tokens) as advance:
        for first in range(0, max(len(order.steerings), 1), SLOTS):
            rows = [
                i
                for i in range(len(order.prompts))
                if not order.steerings or 0 <= order.which[i] - first < SLOTS
            ]
            steer(engine, order.steerings[first : first + SLOTS])
            for i, answer in zip(rows, answered(engine.llm, order, rows, first), strict=True):
                out[i] = answer
            advance(len(rows) * order.max_new_tokens)
    return out


def answered(llm: Any, order: Order, rows: list[int], first: int) -> list[tuple[int, ...]]:
    """The answers of these rows, whose vectors lie in the worker's places from `first` on."""
    from vllm import SamplingParams

    cfg, ask = order.config, []
    for i in rows:
        weights = weighted(order.which[i] - first, order.doses[i]) if order.steerings else None
        ask.append(
            SamplingParams(
                temperature=cfg.temperature,
                min_p=cfg.min_p if cfg.temperature else 0.0,
                seed=row_seed(order.seed, i) % 2**63,
                max_tokens=order.max_new_tokens,
                stop_token_ids=sorted(e for e in order.ends if e >= 0),
                ignore_eos=True,
                detokenize=False,
                extra_args=weights,
            )
        )
    prompts = [{"prompt_token_ids": list(order.prompts[i])} for i in rows]
    return [tuple(o.outputs[0].token_ids) for o in llm.generate(prompts, ask, use_tqdm=False)]


def steer(engine: Living, steerings: tuple[Steering, ...]) -> None:
    """Put the directions of these vectors into the worker's places; the other places are emptied."""
    named = {
        f"{place}.{layer}": v.detach().float().cpu().contiguous()
        for place, s in enumerate(steerings)
        for layer, v in s.directions.items()
    }
    file = Path(engine.scratch.name) / "directions.safetensors"
    save_file(named, file)
    engine.llm.collective_rpc("steer_by", args=(str(file),))


def fresh(model: PreTrainedModel, tok: PreTrainedTokenizerBase, order: Order) -> Living:
    """The engine, with the weights that the model now has and room for the order's longest text."""
    told = (order.config.engine_options, order.config.batch)
    need = max(map(len, order.prompts)) + order.max_new_tokens
    now = fingerprint(model)
    engine = _living[0] if _living else None
    if engine is None or engine.model() is not model or engine.told != told or engine.room < need:
        stop()
        engine = started(model, tok, order, need, now)
        _living.append(engine)
    elif engine.weights != now:
        with tempfile.TemporaryDirectory() as folder:
            save_whole(model, tok, Path(folder))
            engine.llm.collective_rpc("reload_weights", kwargs={"weights_path": folder})
        engine.weights = now
    return engine


def started(
    model: PreTrainedModel, tok: PreTrainedTokenizerBase, order: Order, need: int, now: str
) -> Living:
    """A new engine. Raises `UserError` where the model doesn't read as long a text."""
    quiet.settle()
    if model.device.type == "cpu":
        quiet.settle_cpu()
    from vllm import LLM

    room = roomy(model, options(order.config).get("max_model_len"), need)
    scratch = tempfile.TemporaryDirectory(prefix="shl-vllm-")
    save_whole(model, tok, Path(scratch.name) / "model")
    state = torch.random.get_rng_state()
    try:
        llm = LLM(model=str(Path(scratch.name) / "model"), **arguments(model, order, room))
    finally:
        torch.random.set_rng_state(state)
    return Living(llm, ref(model), (order.config.engine_options, order.config.batch), room, now, scratch)


def roomy(model: PreTrainedModel, asked: int | None, need: int) -> int:
    """Tokens of prompt and answer that the engine gets room for."""
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None) or ROOM
    room = asked or min(most, max(ROOM, need))
    if room < need:
        raise UserError(
            f"generate.engine vllm: the longest prompt and its answer take {need} tokens, there is room for {room}; "
            "shorten generate.max_new_tokens, or raise max_model_len in generate.engine_options as far as the model reads."
        )
    return room


def arguments(model: PreTrainedModel, order: Order, room: int) -> dict[str, Any]:
    """What vLLM is started with: nothing of its own defaults that changes which tokens come out."""
    on_cpu, cache = model.device.type == "cpu", cache_bytes(model, order, room)
    given = {
        "dtype": str(model.dtype).removeprefix("torch."),
        "max_model_len": room,
        "max_num_seqs": order.config.batch,
        "kv_cache_memory_bytes": cache,
        "enforce_eager": on_cpu,
    }
    if not on_cpu:
        given["gpu_memory_utilization"] = gpu_share(model, cache)
    ours = {
        "worker_cls": WORKER,
        "enable_prefix_caching": False,
        "generation_config": "vllm",
        "skip_tokenizer_init": True,
        "disable_log_stats": True,
        "seed": 0,
        "additional_config": {"steer_heal_love": SLOTS},
    }
    return given | options(order.config) | ours


def gpu_share(model: PreTrainedModel, cache: int) -> float:
    """The share of the GPU's memory that vLLM asks to be free: its copy of the weights, its cache, and what a step needs;
    no more than is free beside the model."""
    records.release_memory()
    torch.cuda.empty_cache()  # what torch keeps for later is not free for vLLM
    free, total = torch.cuda.mem_get_info(model.device)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return min(weights + cache + WORKSPACE, 0.95 * free) / total


def cache_bytes(model: PreTrainedModel, order: Order, room: int) -> int:
    """Room for the keys and values of a full batch of the order's longest rows, and of one row as long as any may be."""
    c = model.config.get_text_config()
    heads = getattr(c, "num_key_value_heads", None) or c.num_attention_heads
    width = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    longest = max(map(len, order.prompts)) + order.max_new_tokens
    tokens = max(order.config.batch * (longest + 64), 2 * room)
    return int(2 * c.num_hidden_layers * heads * width * model.dtype.itemsize * tokens)
