"""Liger-Kernel's fused kernels by family, without a GPU: `python tools/fused_kernels.py [NAME …]`.

Triton's interpreter runs the kernels on the processor, over the tiny models of tests/families. For each family that the
library knows it prints how far states and gradients are from those without kernels, which of the library's patches `fused`
would keep, and whether the model may then be read in every manner that it has without them. It needs `liger-kernel` and
`triton` beside the tool's packages. Kernels of experts ask for a GPU, which the interpreter doesn't have. Exit 3 where a
kept patch takes a manner of reading away or moves a number.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}

import numpy
import torch
import triton.language as tl
from liger_kernel.ops import geglu, layer_norm, rms_norm
from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN
from transformers import PreTrainedModel
from triton.runtime import interpreter

from families import zoo
from families.checks import far
from steer_heal_love.ground import fused, reading
from steer_heal_love.ground.parts import body

CLOSE, TIMES = 2e-4, 10
"""largest relative distance of states and gradients, in fp32, unless so many times what `NOISE` makes of the gradient is more:
a recurrent model makes much of rounding"""
NOISE = 1e-7
"""relative, of the embeddings: about a rounding error"""
TOKENS = 12


reasons: list[str] = []
"""why kernels were left out, the last one last"""


class Heard(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        reasons.append(record.getMessage())


def interpreted() -> None:
    """Let the interpreter run what it can't: functions of CUDA's own library, and numbers that kernels take for tensors."""
    fused.log.addHandler(Heard())
    fused.log.setLevel(logging.INFO)
    fused.log.propagate = False
    convert = interpreter._implicit_cvt

    def converted(given: Any) -> Any:
        if not isinstance(given, float):
            return convert(given)
        return tl.tensor(
            interpreter.TensorHandle(numpy.array([given], numpy.float32), tl.float32), tl.float32
        )

    interpreter._implicit_cvt = converted
    rms_norm.rsqrt = layer_norm.rsqrt = lambda x: tl.rsqrt(x)
    geglu.tanh = lambda x: 2 * tl.sigmoid(2 * x) - 1
    fused.usable = lambda _given: fused.wanted()


def gradient(model: PreTrainedModel, noise: float = 0.0) -> torch.Tensor:
    """Of a random sum of final states, with respect to the embeddings of two rows, which have some relative noise."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(
        3, model.config.get_text_config(decoder=True).vocab_size - 8, (2, TOKENS), generator=draw
    )
    given = model.get_input_embeddings()(ids).detach()
    moved = noise * torch.randn(given.shape, generator=torch.Generator().manual_seed(1))
    given = (given * (1 + moved)).requires_grad_(True)
    found = body(model)(inputs_embeds=given, use_cache=False).last_hidden_state
    (found * torch.randn(found.shape, generator=draw)).sum().backward()
    assert given.grad is not None
    return given.grad


def examined(model: PreTrainedModel) -> tuple[str, str]:
    """What became of a model, and what is to be said of it."""
    way, states, slope = reading.tried(model), fused.states(model), gradient(model)
    bound = max(CLOSE, TIMES * far(gradient(model, NOISE), slope))
    patches = fused.library(model.config.model_type)
    kept = next((i for i, patch in enumerate(patches) if fused.switched(model, patch)), None)
    if kept is None:
        return "left out" if reading.way(model) == way else "FAILS", reasons[-1].splitlines()[0][:100]
    with fused.in_training():
        gaps = far(fused.states(model), states), far(gradient(model), slope)
    same = reading.way(model) == way
    what = ("all kernels", "all but the rotary one")[kept]
    return (
        "well" if same and max(gaps) <= bound else "FAILS",
        f"{what}; states {gaps[0]:.0e}, gradient {gaps[1]:.0e}; {'the same' if same else 'other'} manners of reading",
    )


def told(name: str) -> str:
    """What became of a family, after printing its line; nothing where the library doesn't know it."""
    model, _ = zoo.build(name)
    if model.config.model_type not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        return ""
    try:
        became, why = examined(model)
    except Exception as error:  # of the library, the interpreter or the family: the others go on
        became, why = "not tried", f"{type(error).__name__}: {str(error).splitlines()[0][:90]}"
    print(f"{name:<24} {became:<10} {why}", flush=True)
    return became


def main() -> None:
    interpreted()
    found = [told(name) for name in sys.argv[1:] or zoo.ZOO]
    print(", ".join(f"{found.count(word)} {word}" for word in ("well", "left out", "not tried", "FAILS")))
    sys.exit(3 if "FAILS" in found else 0)


if __name__ == "__main__":
    main()
