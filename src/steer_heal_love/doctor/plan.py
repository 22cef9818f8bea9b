"""Memory and minutes that a run with these settings takes on this machine: a small timing, and the settings' sizes.

    seconds = decoded tokens / decoding rate + read tokens / reading rate + trained tokens / training rate

A range, since caches, lengths, the dose walk's repetitions and the machine's other work differ from run to run. It was
compared with a whole run on a CPU only; on a GPU it is as rough as its timing is short.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from steer_heal_love.config import RunConfig
from steer_heal_love.doctor import Finding, Patient, check
from steer_heal_love.doctor.update import drawn, gradients
from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.hooks import adapted
from steer_heal_love.ground.scoring import answer_hidden, log_likelihood, pack, token_nll

FEW, MORE = 2, 6
"""decoded tokens whose difference in time is that of decoding alone"""
READ = 16
"""rows that are read at a time"""
RANGE = 0.8, 1.5
"""what is told of the estimate: a demo that was counted whole took 1.05 times its estimate in processor seconds, and one
machine's speed moves by a fifth between hours"""
OPTIMISER_BYTES = 16
"""an adapter's number in fp32: itself, its gradient, two moments"""


@dataclass(frozen=True)
class Work:
    """Tokens that a run decodes, reads and trains on."""

    decoded: int
    read: int
    trained: int


def work(c: RunConfig, prompt: int) -> Work:
    """What the settings ask for, with prompts of `prompt` tokens."""
    g, h, e = c.generate, c.heal, c.eval
    made = c.rounds * c.walk.passes * g.prompts * c.walk.doses + c.filter.calibration
    draws = e.base_draws + 1 + c.rounds * (1 + e.healed_draws)
    samples = 2 * e.sample_prompts * draws
    stages = 2 + 2 * c.rounds
    steps = c.rounds * h.epochs * -(-c.filter.keep // h.batch)
    long, short = prompt + g.max_new_tokens, prompt + e.sample_tokens
    anchors = h.anchor_prompts * (prompt + h.anchor_tokens)
    return Work(
        decoded=made * g.max_new_tokens
        + samples * e.sample_tokens
        + h.anchor_prompts * h.anchor_tokens
        + e.neutral_prompts * e.sample_tokens,
        read=3 * made * long
        + 3 * samples * short
        + stages * (e.neutral_prompts + 2 * e.probes + e.vignettes) * short
        + c.rounds * (anchors * 3 + 4 * c.vector.contexts * prompt),
        trained=c.rounds * h.epochs * c.filter.keep * long
        + steps * h.anchor_batch * (prompt + h.anchor_tokens),
    )


def timed(do: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    do()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def rates(p: Patient) -> tuple[float, float, float]:
    """Tokens a second: decoded in the settings' batch, read, trained on."""
    device, rows = p.model.device, p.config.generate.batch
    s = p.sequences[1]
    decode = lambda n: timed(
        lambda: sample(p.model, [s.prompt] * rows, ends=frozenset({-1}), max_new_tokens=n, seed=0), device
    )
    decoding = rows * (MORE - FEW) / max(decode(MORE) - decode(FEW), 1e-6)
    many = [s._replace(prompt=(i, *s.prompt[1:])) for i in range(1, READ + 1)]
    size = sum(len(m.prompt) + len(m.answer) for m in many)
    reading = size / timed(lambda: token_nll(p.model, many), device)
    update = drawn(p)
    leaves = [f.requires_grad_(True) for pair in update.factors.values() for f in pair]
    batch = pack(many[:2], device)
    with adapted(p.model, update.factors, update.scaling):
        training = (size * 2 / READ) / timed(
            lambda: gradients(
                log_likelihood(p.model, answer_hidden(p.model, batch), batch.targets).sum(), leaves
            ),
            device,
        )
    return decoding, reading, training


def memory_gb(p: Patient) -> tuple[float, float]:
    """What a run may need at most, and what is there, in GB of 10^9 bytes."""
    config, c = p.model.config.get_text_config(), p.config
    size = sum(w.numel() * w.element_size() for w in p.model.parameters())
    update = sum(a.numel() + b.numel() for a, b in drawn(p).factors.values()) * c.heal.rank / 2
    wide = 16 * config.hidden_size * config.num_hidden_layers * p.model.dtype.itemsize
    need = 1.6 * size + update * OPTIMISER_BYTES + c.batch_tokens * wide + 4 * 4 * 128 * config.vocab_size
    if p.model.device.type == "cuda":
        there = torch.cuda.get_device_properties(p.model.device).total_memory
    else:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return need / 1e9, there / 1e9


@check("a run here", 14)
def plan(p: Patient) -> Finding:
    asked = work(p.config, len(p.prompts[1]))
    decoding, reading, training = rates(p)
    minutes = (asked.decoded / decoding + asked.read / reading + asked.trained / training) / 60
    need, there = memory_gb(p)
    low, high = (f"{minutes * share:.{0 if minutes >= 10 else 1}f}" for share in RANGE)
    seen = (
        f"{low} to {high} minutes for {p.config.rounds} rounds, from a timing of some seconds ({decoding:.0f} tokens/s "
        f"decoded, {reading:.0f} read, {training:.0f} trained on) that other work slows; about {need:.2g} GB of {there:.3g}"
    )
    if need > there:
        return Finding(
            "a run here", seen, "note", "lower --batch_tokens and --generate.batch, or take a larger device"
        )
    return Finding("a run here", seen, "well")
