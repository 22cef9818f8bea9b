"""One and several copies of a model, and one copy on several GPUs: seconds, their ratio, and whether the results are the same.

    python benchmarks/replicas.py --out replicas.jsonl

In: a shape (`benchmarks/shapes.py`) with random weights. Out: a JSON line a section as it ends, on the screen and in a file.
All processes of a team run this file; each section is timed by one of them alone while the others wait, and by all. The
sections are what a default round does on a GPU: answers of one pass of the dose walk, the filter's readings of as many,
an evaluation of the healed model, a heal. `tokens` compares greedy answers at mixed doses in fp32, by one copy, by all,
and by a copy whose layers lie on several GPUs. `split` takes a model that no GPU holds through every room of a round.
`--budget` seconds after the start no section begins, and a minute later everything ends.

On two CPU processes: python benchmarks/replicas.py --device cpu --shape tiny --scale 0.02 --out replicas.jsonl
"""

from __future__ import annotations

import argparse
import atexit
import copy
import gc
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import floors
import rooms
import shapes
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, Qwen3Config

from steer_heal_love import evals, follower, replicas, steps
from steer_heal_love.config import RunConfig
from steer_heal_love.evals import neutral
from steer_heal_love.ground import models, reading, records, spread, team
from steer_heal_love.ground.chat import NEUTRAL_SYSTEM, end_of_turn_ids, prompt_ids
from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.folder import RunFolder
from steer_heal_love.persona import training_prompts
from steer_heal_love.replicas.local import Machine
from steer_heal_love.session import Base, Run

INSTRUMENTS = ("neutral", "probes", "samples", "vignettes", "own_kl")
"""what the evaluation measures: the default instruments that need nothing of the base but its own answers"""
ROWS, TOKENS = 64, 32
"""greedy answers that are compared, and their length"""
SMALL = Qwen3Config(
    hidden_size=256,
    num_hidden_layers=12,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=32,
    intermediate_size=512,
    vocab_size=0,
    max_position_embeddings=4096,
    initializer_range=0.15,
    tie_word_embeddings=True,
)
"""the model whose tokens are compared where the embedded one is not installed; its weights are wide, so that ties are rare"""
HUGE = Qwen3Config(
    hidden_size=8192,
    num_hidden_layers=54,
    num_attention_heads=64,
    num_key_value_heads=8,
    head_dim=128,
    intermediate_size=28672,
    vocab_size=151936,
    max_position_embeddings=40960,
    tie_word_embeddings=True,
)
"""about 95 GB in bf16"""
EMBEDDED = "smollm2"
GRACE_SECONDS = 60


class Clock:
    """How much time is left, and the end of everything where a section doesn't end."""

    def __init__(self, budget_seconds: float) -> None:
        self.end = time.monotonic() + budget_seconds
        end = threading.Timer(budget_seconds + GRACE_SECONDS, os._exit, (3,))
        end.daemon = True
        end.start()

    def left(self) -> float:
        return self.end - time.monotonic()


class Lines:
    """JSON lines, on the screen and in a file, by the process that leads."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, **line: Any) -> None:
        if team.leads():
            text = json.dumps(records.plain(line))
            print(text, flush=True)
            with self.path.open("a", encoding="utf-8") as f:
                f.write(text + "\n")


def agreed(value: float) -> float:
    """The leader's number, in every process."""
    return team.summed({"it": value if team.leads() else 0.0}, ["it"])["it"]


def timed(work: Callable[[], Any], device: torch.device, *, alone: bool) -> tuple[float, Any]:
    """Seconds, and what the work gives: of the leader while the others wait, or of all; each begins when all are ready."""
    team.wait()
    found: tuple[float, Any] = (0.0, None)
    if not alone:
        found = floors.timed(work, device)
    elif team.leads():
        with team.alone():
            found = floors.timed(work, device)
    team.wait()
    return found


def section(
    name: str, warm: Callable[[], Any], work: Callable[[], Any], a: Any, tell: Lines, b: rooms.Bench
) -> None:
    """One copy and all copies in turn, `repeats` times; a line each, and one with the ratio."""
    if agreed(a.clock.left()) < 0:
        return tell(section=name, skipped="the time is up")
    size, device = team.size(), b.model.device
    ways = {1: True, size: False}
    seconds: dict[int, list[float]] = {n: [] for n in ways}
    results: dict[int, Any] = {}
    for alone in ways.values():
        timed(warm, device, alone=alone)
    for _ in range(a.repeats):
        for n, alone in ways.items():
            took, results[n] = timed(work, device, alone=alone)
            seconds[n].append(took)
            tell(section=name, copies=n, seconds=took)
    middle = {n: statistics.median(s) for n, s in seconds.items()}
    tell(
        section=name,
        copies=size,
        ratio=middle[1] / middle[size],
        seconds={str(n): s for n, s in seconds.items()},
        peak_memory_gb=records.peak_memory_gb(device),
        **(compared(results[1], results[size]) if team.leads() else {}),
    )


def compared(one: Any, all_: Any) -> dict[str, Any]:
    """How much of two results is the same: answers by their tokens, items by their largest distance."""
    if isinstance(one, dict):
        gaps = [abs(x - y) for k in one for x, y in zip(one[k], all_[k], strict=True) if x == x and y == y]
        return {"items": len(gaps), "same_items": sum(g == 0 for g in gaps), "largest_gap": max(gaps)}
    if isinstance(one, list):
        return {"rows": len(one), "same_rows": sum(x == y for x, y in zip(one, all_, strict=True))}
    return {}


def generation(b: rooms.Bench) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """One pass of the dose walk, every answer of full length."""
    g, w = b.config.generate, b.config.walk
    doses = [w.start / w.span, w.start, w.start * w.span, 0.5 * w.start][: w.doses]
    pairs = [(p, d) for p in training_prompts(b.persona, g.prompts, seed=0) for d in doses]
    rendered = [prompt_ids(b.tok, p, NEUTRAL_SYSTEM) for p, _ in pairs]

    def draw(length: int) -> list[tuple[int, ...]]:
        return sample(
            b.model,
            rendered,
            ends=frozenset(),
            max_new_tokens=length,
            seed=0,
            steer=b.vector.directions,
            doses=[d for _, d in pairs],
            temperature=g.temperature,
            min_p=g.min_p,
            batch=g.batch,
        )

    return partial(draw, min(g.max_new_tokens, 8)), partial(draw, g.max_new_tokens)


def evaluation(b: rooms.Bench) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The healed model: all rounds as one LoRA beside the weights. Every answer is of full length."""
    cfg = replace(b.config.eval, instruments=INSTRUMENTS)
    asked = [text for _, text in neutral.prompts(cfg)]
    given = b.answered(asked, cfg.sample_tokens, 5)
    with team.alone():
        states = rooms.hidden_states(b.model, given, batch_tokens=b.config.batch_tokens)
    reference = list(zip(asked, given, states, strict=True))
    run = Run(b.config, b.persona, b.model, b.tok, RunFolder(b.folder), base=Base())

    def measure(cfg: Any) -> evals.Items:
        subject = rooms.Endless(
            b.model,
            b.tok,
            b.persona,
            cfg,
            reference,
            batch=replace(b.config, eval=cfg).samples_at_once,
            batch_tokens=b.config.batch_tokens,
            draws=cfg.healed_draws,
        )
        with steps.exported(run, b.history):
            found = evals.measure(subject)
        return evals.collect_items(subject, found)

    few = replace(cfg, vignettes=4, probes=4, sample_prompts=2, sample_tokens=4, paraphrases=1)
    return partial(measure, few), partial(measure, cfg)


def room(b: rooms.Bench, name: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A room of `benchmarks/rooms.py`; what it counts is no result to compare."""
    found = rooms.ROOMS[name](b)
    return found.warm, lambda: rooms.void(found.run())


def small(a: Any, device: str) -> tuple[PreTrainedModel, Any, str]:
    """The model whose tokens are compared, in fp32: the embedded one where it is installed."""
    if a.tokenizer == EMBEDDED:
        return *models.load(EMBEDDED, device=device, dtype="float32"), EMBEDDED
    tok = AutoTokenizer.from_pretrained(a.tokenizer)
    models.check_template(tok, a.tokenizer)
    config = copy.deepcopy(SMALL)
    config.vocab_size = len(tok)
    torch.manual_seed(0)
    attention = "eager" if device == "cpu" else None
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention)
    models.attend(model, device)
    return models.placed(model, device), tok, "random"


def greedy(b: rooms.Bench, rows: int) -> list[tuple[int, ...]]:
    """Greedy answers to training prompts, the doses in turn, dose 0 among them."""
    prompts = training_prompts(b.persona, rows, seed=2)
    doses = [(0.0, *b.doses)[i % 4] for i in range(len(prompts))]
    return sample(
        b.model,
        [prompt_ids(b.tok, p) for p in prompts],
        ends=end_of_turn_ids(b.model, b.tok),
        max_new_tokens=TOKENS,
        seed=0,
        steer=b.vector.directions,
        doses=doses,
        temperature=0,
        batch=rows,
    )


def tokens(a: Any, tell: Lines, folder: Path) -> None:
    """Greedy answers in fp32 by one copy and by all; the directions are large, as a real vector's are at its dose."""
    if agreed(a.clock.left()) < 0:
        return tell(section="tokens", skipped="the time is up")
    model, tok, name = small(a, a.device)
    b = rooms.Bench(model, tok, rooms.settings(a.device, "smollm2", rooms.Sizes(), 1), rooms.Sizes(), folder)
    _, one = timed(lambda: greedy(b, a.rows), model.device, alone=True)
    _, all_ = timed(lambda: greedy(b, a.rows), model.device, alone=False)
    if team.leads():
        tell(
            section="tokens",
            model=name,
            dtype=str(model.dtype),
            copies=team.size(),
            **compared(one, all_),
            different_answers=len(set(one)),
        )


def shared(a: Any, tell: Lines) -> None:
    """Every section of several copies; all processes are here."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if "tokens" in a.sections:
            tokens(a, tell, folder)
            freed()
        if not set(a.sections) - {"tokens", "split"}:
            return
        model, tok = shapes.build(a.shape, device=a.device, tokenizer=a.tokenizer)
        b = bench(model, tok, a, folder)
        tell(
            section="model",
            shape=a.shape,
            dtype=str(model.dtype),
            seconds_left=a.clock.left(),
            **rooms.machine(model.device),
        )
        made = {
            "generation": partial(generation, b),
            "evaluation": partial(evaluation, b),
            "filter": partial(room, b, "filter"),
            "heal": partial(room, b, "heal"),
        }
        for name, make in made.items():
            if name in a.sections:
                section(name, *make(), a, tell, b)
                records.release_memory()


def bench(model: PreTrainedModel, tok: Any, a: Any, folder: Path) -> rooms.Bench:
    """What the rooms need, at the preset's own sizes times `scale`."""
    device = model.device.type
    sizes = rooms.Sizes(completions=256, rounds=1, epochs=a.epochs)
    sizes = replace(sizes.scaled(a.scale), epochs=a.epochs)
    cfg = rooms.settings(device, a.shape, sizes, a.scale)
    few: Callable[[int], int] = lambda n: max(4, round(n * min(a.scale, 1)))
    g, e = cfg.generate, cfg.eval
    g = replace(g, prompts=few(a.prompts), max_new_tokens=few(g.max_new_tokens), batch=few(g.batch))
    e = replace(
        e,
        probes=few(e.probes),
        vignettes=few(e.vignettes),
        neutral_prompts=few(e.neutral_prompts),
        sample_prompts=few(e.sample_prompts),
        sample_tokens=few(e.sample_tokens),
    )
    return rooms.Bench(model, tok, replace(cfg, model=a.shape, generate=g, eval=e), sizes, folder)


def freed() -> None:
    gc.collect()
    records.release_memory()


def over(a: Any) -> list[torch.device]:
    """The devices of a split copy; twice the same where there is no GPU, which tries the moving and not the distance."""
    return spread.devices(a.device, a.copies) if a.device != "cpu" else [torch.device("cpu")] * a.copies


def drawn(config: Qwen3Config, devices: list[torch.device], dtype: torch.dtype) -> PreTrainedModel:
    """A model of random weights that never was on one device."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    blocks = models.layers(model)
    where = {
        id(m): devices[i]
        for b, i in zip(blocks, spread.shares([1] * len(blocks), len(devices)), strict=True)
        for m in b.modules()
    }
    for module in model.modules():
        at = where.get(id(module), devices[0])
        for name, p in list(module._parameters.items()):
            if p is not None:
                new = torch.empty(p.shape, dtype=dtype, device=at)
                module._parameters[name] = torch.nn.Parameter(
                    new.normal_(0, 0.02) if p.dim() > 1 else new.fill_(1), requires_grad=False
                )
    model.tie_weights()
    inner = models.body(model)
    with torch.device(devices[0]):
        inner.rotary_emb = type(inner.rotary_emb)(config)
    models.attend(model, devices[0].type)
    return models.placed(model, devices[0].type, devices)


def split(a: Any, tell: Lines) -> None:
    """Greedy answers of the small model, whole and split; then every room on a model that no GPU holds."""
    devices = over(a)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, tok, name = small(a, a.device)
        b = rooms.Bench(
            model, tok, rooms.settings(a.device, "smollm2", rooms.Sizes(), 1), rooms.Sizes(), folder
        )
        whole = greedy(b, a.rows)
        spread.spread(model, devices)
        tell(
            section="split tokens",
            model=name,
            devices=[str(d) for d in devices],
            **compared(whole, greedy(b, a.rows)),
        )
        del model, b
        freed()
        huge(a, tell, devices, tok, folder)


def huge(a: Any, tell: Lines, devices: list[torch.device], tok: Any, folder: Path) -> None:
    """Every room of a round, on few and short texts."""
    if a.clock.left() < 0:
        return tell(section="split", skipped="the time is up")
    config = copy.deepcopy(HUGE if devices[0].type == "cuda" else shapes.CONFIGS["tiny"])
    config.vocab_size = config.vocab_size or len(tok)
    seconds, model = floors.timed(
        lambda: drawn(config, devices, models.auto_dtype(devices[0].type)), devices[0]
    )
    gigabytes = sum(p.numel() * p.element_size() for p in model.parameters()) / 1e9
    tell(
        section="split",
        model_gb=gigabytes,
        layers=len(models.layers(model)),
        built_seconds=seconds,
        read_as=reading.way(model),
        on={str(d): sum(p.device == d for p in model.parameters()) for d in devices},
    )
    sizes = rooms.Sizes(
        pairs=32, completions=24, tokens=48, trained=16, epochs=1, rounds=0, vignettes=8, think=16
    )
    b = rooms.Bench(
        model, tok, replace(rooms.settings(a.device, a.shape, sizes, 0.1), model=a.shape), sizes, folder
    )
    for name in rooms.ROOMS:
        if a.clock.left() < 0:
            return tell(section="split", room=name, skipped="the time is up")
        seconds, did = floors.timed(rooms.ROOMS[name](b).run, devices[0])
        memory = [records.peak_memory_gb(d) for d in devices]
        tell(section="split", room=name, seconds=seconds, did=did, peak_memory_gb=memory)


@contextmanager
def led(a: Any) -> Iterator[None]:
    """This process and its followers, which run this file too."""
    found = replicas.plan(RunConfig(device=a.device, replicas=a.copies))
    machine = Machine(found, [sys.executable, __file__, *a.argv, "--tokenizer", a.tokenizer])
    with replicas.met(
        found, machine, lambda ended: f"process {ended.rank} ended with code {ended.code}: {ended.said}"
    ):
        yield


def parsed(argv: list[str]) -> argparse.Namespace:
    args = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    args.add_argument("--out", type=Path, required=True, help="JSON lines, added to")
    args.add_argument("--copies", type=int, default=2)
    args.add_argument("--sections", default="tokens,generation,evaluation,filter,heal,split")
    args.add_argument("--shape", choices=shapes.NAMES, default="qwen3-4b")
    args.add_argument("--scale", type=float, default=1.0, help="on counts and lengths, for a dry run")
    args.add_argument("--rows", type=int, default=ROWS, help="greedy answers that are compared")
    args.add_argument("--epochs", type=int, default=4, help="of the heal")
    args.add_argument(
        "--prompts", type=int, default=64, help="of one pass of the dose walk, at four doses each"
    )
    args.add_argument("--repeats", type=int, default=2)
    args.add_argument("--budget", type=float, default=360.0, help="seconds after which no section begins")
    args.add_argument("--device", default="auto")
    args.add_argument("--tokenizer", default=EMBEDDED, help="folder of a tokenizer with a chat template")
    a, rest = args.parse_known_args(argv)
    a.follows = follower.parsed(rest) if rest else None
    a.argv = argv
    a.sections = a.sections.split(",")
    a.device = models.known_device(a.device)
    if not Path(models.source(a.tokenizer)).is_dir():
        a.tokenizer = made_up()
    return a


def made_up() -> str:
    """A folder with the tests' tokenizer of bytes, where nothing else is there: prompts get longer by it."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from tiny_model import build_tokenizer

    folder = tempfile.mkdtemp(prefix="shl-tokenizer-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    build_tokenizer().save_pretrained(folder)
    return folder


def main(argv: list[str] | None = None) -> None:
    a = parsed(sys.argv[1:] if argv is None else argv)
    a.clock, tell = Clock(a.budget), Lines(a.out)
    if a.follows:
        with follower.joined(a.follows):
            shared(a, tell)
        return
    try:
        with led(a) if set(a.sections) - {"split"} else nullcontext():
            shared(a, tell)
    except Exception as e:  # what fails is a result, and the split copy still has its own
        tell(section="copies", error=f"{type(e).__name__}: {e}", traceback=traceback.format_exc())
    freed()
    if "split" in a.sections:
        split(a, tell)


if __name__ == "__main__":
    main()
