"""Which device and which number type a model is put on: names that a user gives, resolved or refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from steer_heal_love.ground.errors import UserError

DTYPES = ("auto", "float32", "bfloat16", "float16")
"""what `--dtype` takes"""


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


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor of the host on `device`. A GPU is not waited for: what it has still to do comes first, and the host goes on."""
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def sent_together(tensors: Sequence[Tensor], device: torch.device | str) -> Tensor:
    """`sent`, for tensors of one kind that become one, row after row."""
    if torch.device(device).type != "cuda":
        return sent(torch.cat(list(tensors)), device)
    first, rows = tensors[0], sum(map(len, tensors))
    here = torch.empty((rows, *first.shape[1:]), dtype=first.dtype, pin_memory=True)
    return torch.cat(list(tensors), out=here).to(device, non_blocking=True)


def on_its_way(tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[torch.cuda.Event]]:
    """Pinned copies of a GPU's tensors on the host, which hold the values once all these events have happened; the GPU is
    handed the copying now, after what was launched before and ahead of what comes."""
    here = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
    for there, mine in zip(tensors, here, strict=True):
        mine.copy_(there.detach(), non_blocking=True)
    return here, [torch.cuda.current_stream(d).record_event() for d in {t.device for t in tensors}]


def brought(tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
    """What gives these tensors on the host; asking waits for what was launched before this call, and for nothing after.
    Nothing is copied where they are on the host."""
    if not any(t.is_cuda for t in tensors):
        found = [t.detach() for t in tensors]
        return lambda: [t.cpu() for t in found]
    here, copied = on_its_way(tensors)

    def asked() -> list[Tensor]:
        for event in copied:
            event.synchronize()
        # Pinned memory is scarce, and is given back.
        return [t.clone() for t in here]

    return asked


def native_bfloat16() -> bool:
    """Whether this processor multiplies bf16 itself, and not by emulation."""
    capability = torch.backends.cpu.get_cpu_capability()
    return capability.startswith("AVX512") and torch.cpu._is_avx512_bf16_supported()


def auto_dtype(device: str) -> torch.dtype:
    """bf16 wherever the hardware multiplies it; fp32 on processors that would only emulate it."""
    return torch.bfloat16 if device != "cpu" or native_bfloat16() else torch.float32


def known_dtype(name: str, device: str) -> torch.dtype:
    """The number type that a name stands for on a device. Raises `UserError` for a name that is not in `DTYPES`."""
    if name not in DTYPES:
        raise UserError(f"dtype {name!r}: expected one of {', '.join(DTYPES)}.")
    return auto_dtype(device) if name == "auto" else getattr(torch, name)  # type: ignore[no-any-return]
