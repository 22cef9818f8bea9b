"""Run each room of a late round on a model of a given shape: seconds, rate, share of the floor, peak memory.

    python benchmarks/rooms.py --shape qwen3-4b --out results.json

In: a shape (`benchmarks/shapes.py`), the sizes of a default late round. Every room goes through the product's own
functions, with the settings of the preset that fits, on given inputs of its own, so that one that fails takes no other
along. It is warmed up on a small piece, then timed `--repeats` times. One line a room is printed, and the JSON
written, as it finishes. A floor (`benchmarks/floors.py`) is the least that the room's work costs on this machine.

Earlier rounds are folded where a late round can't do without: inside `heal`'s time, once. A folded model costs a token
what a pristine one does, so `extract` and `generate` run pristine; `evaluate` has all rounds as one LoRA beside the
weights, as users get them. Peak memory is of the device (CUDA) in the timed runs, or of the process since it began.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import tempfile
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import floors
import shapes
import torch
from floors import Counted, Work

from steer_heal_love import bake, evals, presets, steps
from steer_heal_love import filter as sieve
from steer_heal_love.config import EvalConfig, HealConfig, RunConfig
from steer_heal_love.evals import forced_choice, vignettes
from steer_heal_love.ground import memory, models, records
from steer_heal_love.ground.banks import bank
from steer_heal_love.ground.chat import answer_ids, prompt_ids
from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.folder import RunFolder
from steer_heal_love.ground.scoring import hidden_states
from steer_heal_love.ground.weights import folded
from steer_heal_love.heal.examples import Example
from steer_heal_love.heal.lora import fresh
from steer_heal_love.nouns import Adapter, Completion, Healing, Persona, Tokens
from steer_heal_love.persona import load as load_persona
from steer_heal_love.persona import training_prompts
from steer_heal_love.session import Base, Run
from steer_heal_love.vector import Vector

T = TypeVar("T")


@dataclass(frozen=True)
class Sizes:
    """What a default late round has to do."""

    pairs: int = 256
    """contexts that the vector is read over, under each pole"""
    completions: int = 150
    tokens: int = 512
    """tokens a completion"""
    trained: int = 56
    """completions trained on an epoch; the preset's share for validation comes on top"""
    epochs: int = 6
    rounds: int = 5
    """rounds healed before"""
    vignettes: int = 132
    think: int = 128
    """tokens thought before a forced choice"""

    def scaled(self, by: float) -> Sizes:
        """Counts and lengths times `by`; as many rounds as before."""
        shrunk = {name: max(3, round(n * by)) for name, n in asdict(self).items()}
        return Sizes(**(shrunk | {"epochs": max(1, round(self.epochs * by)), "rounds": self.rounds}))


@dataclass(frozen=True)
class Room:
    """A room ready to run. `run` gives what it did, counted on its results, the `unit` of its rate among it;
    `warm` runs a small piece, and gives what is to be noted of that."""

    unit: str
    work: Work
    run: Callable[[], dict[str, int]]
    warm: Callable[[], dict[str, float] | None]


class Endless(evals.Subject):
    """A subject that thinks for as long as it may."""

    @property
    def ends(self) -> frozenset[int]:
        return frozenset()


@dataclass
class Bench:
    """A model, settings and sizes, and the inputs that rooms share, made when first asked for."""

    model: Any
    tok: Any
    config: RunConfig
    sizes: Sizes
    folder: Path

    @cached_property
    def persona(self) -> Persona:
        return load_persona(self.config.persona)

    @cached_property
    def counted(self) -> Counted:
        return Counted.of(self.model)

    @property
    def doses(self) -> list[float]:
        """Three doses, as wide apart as the walk's first pass."""
        w = self.config.walk
        return [w.start / w.span, w.start, w.start * w.span]

    @cached_property
    def vector(self) -> Vector:
        """Directions of no meaning on the layers that a vector is read from."""
        draw = torch.Generator().manual_seed(1)
        width = self.model.config.get_text_config().hidden_size
        at = models.band(self.model, self.config.vector.layers)
        return Vector({i: torch.randn(width, generator=draw) for i in at})

    @cached_property
    def history(self) -> list[Adapter]:
        return [self.adapter(k) for k in range(self.sizes.rounds)]

    def adapter(self, seed: int) -> Adapter:
        """A round's adapter, its update about a hundredth of the weights."""
        h = self.config.heal
        start = fresh(self.model, rank=h.rank, alpha=h.alpha, share=h.layers, seed=seed)
        torch.manual_seed(seed)
        return Adapter(
            {n: (a, 1e-3 * torch.randn_like(b)) for n, (a, b) in start.factors.items()}, start.scaling
        )

    def answered(self, prompts: list[str], length: int, seed: int) -> list[Tokens]:
        """Each prompt with an answer of random tokens."""
        draw = torch.Generator().manual_seed(seed)
        ids = torch.randint(0, len(self.tok), (len(prompts), length), generator=draw).tolist()
        return [Tokens(prompt_ids(self.tok, p), tuple(a)) for p, a in zip(prompts, ids, strict=True)]

    def completions(self, prompts: list[str], seed: int) -> list[Completion]:
        """A completion a prompt, of full length, the doses in turn."""
        made = self.answered(prompts, self.sizes.tokens, seed)
        return [
            Completion(p, t, str(self.tok.decode(t.answer, skip_special_tokens=True)), d, False)
            for p, t, d in zip(prompts, made, itertools.cycle(self.doses), strict=False)
        ]

    @cached_property
    def anchor(self) -> list[Example]:
        """Neutral answers with the model's own hidden states over them, on the host."""
        h = self.config.heal
        prompts = cycled(bank("neutral_train"), h.anchor_prompts)
        tokens = self.answered(prompts, h.anchor_tokens, 2)
        states = hidden_states(self.model, tokens, batch_tokens=self.config.batch_tokens)
        return [Example(t, s, p) for p, t, s in zip(prompts, tokens, states, strict=True)]


def cycled(items: Iterable[T], n: int) -> list[T]:
    return list(itertools.islice(itertools.cycle(items), n))


def settings(device: str, shape: str, sizes: Sizes, scale: float) -> RunConfig:
    """The preset that fits, in a run whose last round is the one measured; the anchor shrinks with the scale."""
    cfg = presets.fitting(device, shape)
    h = cfg.heal
    anchor = {"anchor_prompts": h.anchor_prompts, "anchor_tokens": h.anchor_tokens}
    shrunk: dict[str, Any] = {k: max(3, round(v * min(scale, 1))) for k, v in anchor.items()}
    return replace(cfg, rounds=sizes.rounds + 1, heal=replace(h, epochs=sizes.epochs, **shrunk))


def extract(b: Bench) -> Room:
    """The steering vector at the assistant tag."""
    cfg, contexts = b.config.vector, cycled(bank("contexts"), b.sizes.pairs)
    depth = models.band(b.model, cfg.layers)[-1] + 1

    def extracted(some: list[str]) -> dict[str, int]:
        vector = Vector.train(
            b.model,
            b.tok,
            b.persona,
            contexts=some,
            method=cfg.method,
            contrast=cfg.contrast,
            layers=cfg.layers,
            batch_tokens=b.config.batch_tokens,
        )
        return {"pairs": vector.meta["contexts"], "layers": len(vector.directions)}

    poles = [[len(prompt_ids(b.tok, c, b.persona.system(pole))) for c in contexts] for pole in ("pos", "neg")]
    work = b.counted.prefill(poles[0], depth=depth) + b.counted.prefill(poles[1], depth=depth)
    return Room("pairs", work, lambda: extracted(contexts), lambda: void(extracted(contexts[:8])))


def generate(b: Bench, *, rows: int | None = None, tokens: int | None = None) -> Room:
    """Steered completions of exactly `tokens` tokens, a dose a row."""
    cfg, n, length = b.config.generate, rows or b.sizes.completions, tokens or b.sizes.tokens
    prompts = training_prompts(b.persona, math.ceil(n / len(b.doses)), seed=0)
    pairs = [(p, d) for p in prompts for d in b.doses][:n]
    rendered = [prompt_ids(b.tok, p) for p, _ in pairs]

    def draw(length: int) -> dict[str, int]:
        answers = sample(
            b.model,
            rendered,
            ends=frozenset(),
            max_new_tokens=length,
            seed=0,
            steer=b.vector.directions,
            doses=[d for _, d in pairs],
            temperature=cfg.temperature,
            min_p=cfg.min_p,
            batch=max(cfg.batch, rows or 0),
        )
        return {"completions": len(answers), "tokens": sum(map(len, answers))}

    starts = [len(p) for p in rendered]
    work = b.counted.prefill(starts, predicted=n) + b.counted.decode(starts, length - 1)
    return Room("tokens", work, lambda: draw(length), lambda: void(draw(min(length, 8))))


def sift(b: Bench) -> Room:
    """Every check's value of every completion, from three readings by the base."""
    cfg = b.config.filter
    made = b.completions(training_prompts(b.persona, b.sizes.completions, seed=1), 3)

    def judge(some: list[Completion]) -> dict[str, int]:
        most = b.config.batch_tokens
        measured = sieve.measured(b.model, b.tok, some, b.persona, cfg.checks, batch_tokens=most)
        judged = sieve.judge(measured, sieve.calibrate(measured, cfg.quantile))
        return {"completions": len(judged), "tokens": 3 * sum(len(c.tokens.answer) for c in judged)}

    systems: list[dict[str, Any]] = [{}, *({"system": b.persona.system(pole)} for pole in ("pos", "neg"))]
    work = Work()
    for told in systems:
        lengths = [len(prompt_ids(b.tok, c.prompt, **told)) + len(c.tokens.answer) for c in made]
        work += b.counted.prefill(lengths, predicted=sum(len(c.tokens.answer) for c in made))
    return Room("completions", work, lambda: judge(made), lambda: void(judge(made[:8])))


def heal(b: Bench, *, rounds: int | None = None, epochs: int | None = None) -> Room:
    """The step that a run calls: reference and teacher states, history folded once, training, trust region."""
    before = b.history[: b.sizes.rounds if rounds is None else rounds]
    h = replace(b.config.heal, epochs=epochs or b.sizes.epochs)
    cfg = replace(b.config, rounds=len(before) + 1, heal=h)
    held = next(k for k in itertools.count() if round(h.validation * (b.sizes.trained + k)) == k)
    used = b.completions(cycled(distinct(bank("contexts")), b.sizes.trained + held), 4)

    def train(cfg: RunConfig, history: list[Adapter], used: list[Completion]) -> dict[str, int]:
        base = Base(anchor=b.anchor)
        r = Run(cfg, b.persona, b.model, b.tok, RunFolder(b.folder), base=base, history=history)
        before = Healing(scale=0.5) if history else None
        adapter, record = steps.train(r, len(history), used, b.vector, dose=used[0].dose, before=before)
        epochs = len(record.validation)
        n = epochs * (len(used) - round(cfg.heal.validation * len(used)))
        return {
            "samples": n,
            "tokens": n * b.sizes.tokens,
            "steps": len(record.steps),
            "epochs": epochs,
            "rank": adapter.rank,
        }

    def warm() -> dict[str, float]:
        train(replace(cfg, rounds=1, heal=replace(h, epochs=1)), [], used[: h.batch + 1])
        return {"fold_seconds": floors.timed(lambda: fold(b, before), b.model.device)[0]}

    return Room("samples", heal_work(b, h, used, held), lambda: train(cfg, before, used), warm)


def distinct(items: list[str]) -> list[str]:
    return list(dict.fromkeys(items))


def fold(b: Bench, rounds: list[Adapter]) -> None:
    with folded(b.model, rounds):
        pass


def heal_work(b: Bench, h: HealConfig, used: list[Completion], held: int) -> Work:
    """Training steps, the readings of what is trained on (by the reference; for soft targets by the student, plain and
    steered either way), and one fold. Validation and the trust region are
    measurements that a heal could do without, and aren't counted."""
    c, adapter = b.counted, b.adapter(0)
    lora = sum(a.numel() + f.numel() for a, f in adapter.factors.values())
    weights = sum(b.model.get_submodule(n).weight.numel() for n in adapter.factors)
    adapted = len(models.layers(b.model)) - models.band(b.model, h.layers)[0]
    lengths = [len(u.tokens.prompt) + len(u.tokens.answer) for u in used]
    anchors = [len(e.tokens.prompt) + len(e.tokens.answer) for e in b.anchor]
    n = len(used) - held
    per_epoch = math.ceil(n / h.batch)
    rows = [round(statistics.mean(lengths))] * math.ceil(n / per_epoch)
    rows += [round(statistics.mean(anchors))] * (h.anchor_batch if h.anchor else 0)
    predicted = b.sizes.tokens * n // per_epoch + h.anchor_tokens * (h.anchor_batch if h.anchor else 0)
    step = c.train(rows, predicted=predicted, adapted=adapted, lora=lora)
    readings = c.prefill(lengths) * (4 if h.soft else 1)
    folding = Work(2 * c.size * weights)
    return step * (per_epoch * h.epochs) + readings + folding


def bake_(b: Bench) -> Room:
    """The round's adapter, and all rounds as one, as PEFT folders."""
    rounds = [*b.history, b.adapter(len(b.history))]

    def write(rounds: list[Adapter]) -> dict[str, int]:
        whole = bake.stack(rounds)
        for name, adapter in (("round", rounds[-1]), ("stack", whole)):
            bake.save_peft(adapter, b.folder / name, base_model=b.config.model)
        return {"rounds": len(rounds), "rank": whole.rank}

    size = sum(x.numel() * x.element_size() for r in rounds for pair in r.factors.values() for x in pair)
    return Room("rounds", Work(2.0 * size), lambda: write(rounds), lambda: void(write(rounds[-1:])))


def evaluate(b: Bench) -> Room:
    """Forced choice in both orders of the options, after thinking, by the model that all rounds make."""
    n, think = b.sizes.vignettes, b.sizes.think
    file = b.folder / "vignettes.jsonl"
    rows = cycled(records.read_jsonl(vignettes.HERE / file.name), n)
    records.write_jsonl(file, [row | {"id": f"{row['id']}-{i}"} for i, row in enumerate(rows)])
    cfg = replace(
        b.config.eval,
        instruments=("forced_choice",),
        vignettes=n,
        vignette_bank=str(file),
        think_tokens=think,
    )
    run = Run(b.config, b.persona, b.model, b.tok, RunFolder(b.folder), base=Base())

    def ask(cfg: EvalConfig) -> dict[str, int]:
        subject = Endless(b.model, b.tok, b.persona, cfg, [], batch_tokens=b.config.batch_tokens)
        with steps.exported(run, b.history):
            found = evals.measure(subject)
        items = evals.collect_items(subject, found)
        return {
            "vignettes": len(items["p_ans_any"]),
            "answers": len(items["p_ans_any"]) * len(forced_choice.ORDERS),
            "tokens": len(items["p_ans_any"]) * cfg.think_tokens,
        }

    few = replace(cfg, vignettes=min(n, 8), think_tokens=min(think, 8))
    return Room("vignettes", evaluate_work(b, cfg), lambda: ask(cfg), lambda: void(ask(few)))


def evaluate_work(b: Bench, cfg: EvalConfig) -> Work:
    """Prompts read, thoughts decoded, both options' texts read, and the object's closing decoded."""
    fc, c = forced_choice, b.counted
    text = fc.QUESTION.replace("{think}", fc.THINK)
    asked = [len(prompt_ids(b.tok, text.replace("{text}", v.text))) for v in vignettes.scenes(cfg)]
    forced = [len(answer_ids(b.tok, fc.prefill(order, thought=True))) for order in fc.ORDERS]
    thought = [n + cfg.think_tokens for n in asked]
    branches = [(n, f) for n in thought for f in forced]
    return (
        c.prefill(asked)
        + c.decode(asked, cfg.think_tokens)
        + c.prefill(
            [f for _, f in branches], before=[n for n, _ in branches], predicted=sum(f for _, f in branches)
        )
        + c.decode([n + f for n, f in branches], fc.CLOSING)
    )


ROOMS: dict[str, Callable[[Bench], Room]] = {
    "extract": extract,
    "generate": generate,
    "filter": sift,
    "heal": heal,
    "bake": bake_,
    "evaluate": evaluate,
}


def void(_done: dict[str, int]) -> None:
    """Nothing to be noted."""


def measured(make: Callable[[], Room], b: Bench, c: floors.Ceilings, repeats: int, enough: float) -> dict:
    """A room's figures, or its error; no repeat begins once they have taken `enough` seconds."""
    device = b.model.device
    records.release_memory()
    try:
        room = make()
        warm_seconds, notes = floors.timed(room.warm, device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        seconds: list[float] = []
        while len(seconds) < repeats and sum(seconds) < enough:
            took, done = floors.timed(room.run, device)
            seconds.append(took)
        middle, floor = statistics.median(seconds), room.work.floor_seconds(c)
        return {
            "seconds": middle,
            "seconds_min": min(seconds),
            "seconds_max": max(seconds),
            "seconds_each": seconds,
            "warm_up_seconds": warm_seconds,
            **(notes or {}),
            "did": done,
            "rate": done[room.unit] / middle,
            "unit": f"{room.unit}/s",
            "floor_seconds": floor,
            "share_of_floor": floor / middle,
            **asdict(room.work),
            "peak_memory_gb": records.peak_memory_gb(device),
        }
    except Exception as e:  # a room that fails is a result, and the others still have theirs
        return {"error": f"{type(e).__name__}: {e}", "traceback": traceback.format_exc()}


def growth(b: Bench, scale: float) -> list[tuple[str, dict[str, int], Callable[[], Room]]]:
    """How cost grows: generating by rows and by length, healing by rounds before (an epoch)."""
    short = max(3, round(128 * scale))
    points = [(max(3, round(n * scale)), short) for n in (16, 64, 150, 256)]
    points.append((b.sizes.completions, b.sizes.tokens))
    out: list[tuple[str, dict[str, int], Callable[[], Room]]] = []
    for rows, tokens in points:
        by = {"rows": rows, "tokens": tokens}
        out.append(("generate", by, partial(generate, b, **by)))
    for rounds in (0, b.sizes.rounds):
        grown = {"rounds": rounds, "epochs": 1}
        out.append(("heal", grown, partial(heal, b, **grown)))
    return out


def machine(device: torch.device) -> dict[str, Any]:
    """What it ran on, and in which versions."""
    return {
        "machine": records.device_name(device),
        "cuda": torch.version.cuda,
        "versions": records.versions(),
        **records.commit(),
    }


def show(name: str, r: dict[str, Any]) -> str:
    """A line of the table."""
    if "error" in r:
        return f"{name:<24} failed: {r['error'].splitlines()[0][:90]}"
    return (
        f"{name:<24} {r['seconds']:9.2f} {r['seconds_min']:9.2f} {r['seconds_max']:9.2f} {r['rate']:11.2f} "
        f"{r['unit']:<14} {r['floor_seconds']:9.3f} {r['share_of_floor']:7.1%} {r['peak_memory_gb']:8.2f} "
        f"{r['warm_up_seconds']:9.2f}"
    )


HEADER = (
    f"{'room':<24} {'seconds':>9} {'least':>9} {'most':>9} {'rate':>11} {'':<14} {'floor':>9} {'share':>7} "
    f"{'peak GB':>8} {'warm-up':>9}"
)


def total(rooms: dict[str, Any]) -> dict[str, Any]:
    """A whole late round, warm: the sum of the rooms' medians, and whether every room is in it."""
    done = [r for r in rooms.values() if "error" not in r]
    return {"seconds": sum(r["seconds"] for r in done), "whole": len(done) == len(ROOMS)}


def benchmark(a: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Build the model and run what is asked for; `a.out` holds what is known after each room."""
    name = models.auto_device() if a.device == "auto" else a.device
    sizes = Sizes(**(asdict(Sizes()) | ({"tokens": a.tokens} if a.tokens else {}))).scaled(a.scale)
    cfg = settings(name, a.shape, sizes, a.scale)
    device = torch.device(name)
    ceilings = floors.measured(device, models.auto_dtype(name))
    records.release_memory()
    asked = RunConfig(memory=a.memory)
    asked.check()
    memory.limit(asked.memory_gb, name)
    build, (model, tok) = floors.timed(
        lambda: shapes.build(a.shape, device=name, tokenizer=a.tokenizer), device
    )
    b = Bench(model, tok, replace(cfg, model=a.shape), sizes, folder)
    results: dict[str, Any] = {
        **machine(model.device),
        "shape": a.shape,
        "dtype": str(model.dtype),
        "counted": b.counted,
        "sizes": sizes,
        "scale": a.scale,
        "memory": a.memory,
        "repeats": a.repeats,
        "config": b.config,
        "ceilings": ceilings,
        "build_seconds": build,
        "model_memory_gb": sum(p.numel() * p.element_size() for p in model.parameters()) / 1e9,
        "rooms": {},
        "grow": [],
    }
    print(
        f"{a.shape} on {results['machine']}, {ceilings.bytes_per_second / 1e9:,.0f} GB/s, "
        f"{ceilings.flops_per_second / 1e12:,.1f} TFLOP/s, built in {build:.1f} s\n{HEADER}",
        flush=True,
    )
    for room in a.rooms:
        found = measured(partial(ROOMS[room], b), b, ceilings, a.repeats, a.enough)
        results["rooms"][room] = found
        results["round"] = total(results["rooms"])
        records.write_json(a.out, results)
        print(show(room, found), flush=True)
    for room, by, make in growth(b, a.scale) if a.grow else []:
        found = measured(make, b, ceilings, 1, a.enough)
        results["grow"].append({"room": room, **by, **found})
        records.write_json(a.out, results)
        print(show(" ".join([room, *(f"{k}={v}" for k, v in by.items())]), found), flush=True)
    whole = "a whole late round, warm" if results["round"]["whole"] else "the rooms that ran"
    print(f"{whole}: {results['round']['seconds']:.2f} s", flush=True)
    return results


def names(text: str) -> list[str]:
    found = text.split(",")
    if unknown := set(found) - set(ROOMS):
        raise argparse.ArgumentTypeError(f"no room {sorted(unknown)}; there is {','.join(ROOMS)}")
    return found


def main(argv: list[str] | None = None) -> dict[str, Any]:
    args = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    args.add_argument("--shape", choices=shapes.NAMES, required=True)
    args.add_argument("--out", type=Path, required=True, help="JSON, written after each room")
    args.add_argument("--rooms", type=names, default=list(ROOMS), help=f"of {','.join(ROOMS)}")
    args.add_argument("--repeats", type=int, default=3)
    args.add_argument("--scale", type=float, default=1.0, help="on counts and lengths, for a dry run")
    args.add_argument("--tokens", type=int, default=0, help="tokens a completion, before scaling")
    args.add_argument("--device", default="auto")
    args.add_argument("--memory", default="", help="of the GPU, such as 24GB; empty means all")
    args.add_argument("--tokenizer", default="smollm2", help="folder of a tokenizer with a chat template")
    args.add_argument("--grow", action="store_true", help="also how cost grows, after the rooms")
    args.add_argument(
        "--enough", type=float, default=math.inf, help="seconds of a room after which no repeat begins"
    )
    a = args.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        return benchmark(a, Path(folder))


if __name__ == "__main__":
    main()
