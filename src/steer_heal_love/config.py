"""Every setting, once: one frozen dataclass a room, one `RunConfig` holding them, two presets by device.

The defaults are the `cpu` preset (SmolLM2 on a laptop); `PRESETS["gpu"]` names only what differs.
"""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.memory import SIZE
from steer_heal_love.ground.models import auto_device


@dataclass(frozen=True)
class VectorConfig:
    """How the steering vector is read."""

    method: str = "mean_diff"
    """steering method (`shl list methods`)"""
    contrast: Literal["neg", "neutral"] = "neg"
    """what the pos pole is contrasted with"""
    contexts: int = 64
    """how many extraction contexts"""
    layers: tuple[float, float] = (0.3, 0.7)
    """band of layers, as shares of the depth"""


@dataclass(frozen=True)
class GenerateConfig:
    """How completions are sampled."""

    prompts: int = 12
    """training prompts a pass of the dose walk, half that draw the trait out, half plain"""
    max_new_tokens: int = 56
    temperature: float = 1.0
    min_p: float = 0.1
    """tokens below this share of the likeliest token's probability are never drawn"""
    batch: int = 96
    """rows in flight"""


@dataclass(frozen=True)
class WalkConfig:
    """How the dose is walked to where steering starts to break the text."""

    start: float = 0.2
    """dose tried first in round 0; later rounds start from the last found"""
    span: float = 1.6
    """the first pass tries doses from start/span to start·span"""
    doses: int = 4
    """doses a pass"""
    survival: float = 0.8
    """coherent share left at the chosen dose, as a share of what the student reaches unsteered"""
    passes: int = 2
    """passes: the first brackets the dose, the others sample just below it; as many again where too little survives"""
    floor: float = 0.03
    """no dose below this is tried"""
    ceiling: float = 4.0
    """no dose above this is tried"""


@dataclass(frozen=True)
class FilterConfig:
    """What a completion must pass."""

    checks: tuple[str, ...] = ()
    """checks to apply; empty means all (`shl list checks`)"""
    quantile: float = 0.95
    """calibrated checks cut at this quantile of the base model's own samples"""
    keep: int = 36
    """how many survivors are trained on, the most on-trait first"""
    calibration: int = 64
    """the base's own samples that the bounds are drawn from"""
    least: int = 16
    """fewer survivors than this stop the run"""


@dataclass(frozen=True)
class HealConfig:
    """How the LoRA is trained: NLL + lam·relu(agg D − tau) + anchor·KL."""

    rank: int = 32
    alpha: float = 64.0
    layers: tuple[float, float] = (0.2, 0.8)
    epochs: int = 2
    lr: float = 3e-4
    batch: int = 6
    """completions a step"""
    micro_batch: int = 2
    """completions a forward pass; a step's gradient is added up over its passes"""
    warmup: float = 0.1
    weight_decay: float = 0.0
    """decoupled (AdamW), on the factors"""
    spectral: float = 0.0
    """weight of the mean squared spectral norm of ΔW"""
    divergence: str = "reverse_kl"
    """barrier divergence (`shl list divergences`)"""
    aggregate: Literal["mean", "rmse", "p95", "max"] = "mean"
    """how per-token divergences of one completion become one number"""
    lam: float = 0.0
    """weight of the barrier; 0 switches it off"""
    lam_growth: float = 1.0
    """the barrier's weight is lam·lam_growth^round"""
    tau: float = 0.1
    """nats of divergence that cost nothing"""
    reference: Literal["base", "previous"] = "base"
    anchor: float = 1.0
    """weight of the anchor, KL(base‖student) on the base's own neutral answers"""
    anchor_prompts: int = 72
    anchor_tokens: int = 48
    anchor_batch: int = 4
    """anchor answers a step"""
    anchor_validation: float = 0.5
    """share of the anchor answers never trained on in any round, on which the trust region is measured"""
    validation: float = 0.15
    """share of training prompts held out for the curve"""
    soft: float = 0.25
    """share of the NLL that is replaced by KL(steered teacher‖student) over the whole vocabulary"""
    budget: float = 0.045
    """trust region: each round's update is shrunk until held-out anchor KL is inside that round's part of
    this many nats, which the last round may spend whole; 0 leaves updates as trained"""


@dataclass(frozen=True)
class EvalConfig:
    """What is measured, on how much."""

    instruments: tuple[str, ...] = ()
    """instruments to run; empty means every default one (`shl list instruments`)"""
    probes: int = 48
    probe_half: Literal["all", "search", "report"] = "all"
    """settings are searched on every second probe, and reported on the others"""
    vignettes: int = 35
    vignette_bank: str = ""
    """a JSONL file of vignettes instead of the shipped bank"""
    vignette_view: Literal["see", "you"] = "see"
    """whether the vignettes are told of others or of the reader; a bank with one text a row has one view"""
    think_tokens: int = 0
    """tokens that the model may think before a forced choice: 0, 64, 128 or 256"""
    paraphrases: int = 1
    capability_blocks: int = 4
    """blocks of four questions a kind (arithmetic, factual, format) of the capability panel"""
    judge_model: str = ""
    """model that instrument `judge` asks (as in --model); empty means the run's own base"""
    lm_eval_tasks: tuple[str, ...] = ()
    """tasks of lm-evaluation-harness for instrument `lm_eval`"""
    lm_eval_limit: int = 0
    """documents a task; 0 means all"""
    neutral_prompts: int = 40
    transfer: Literal["off", "cosine", "full"] = "cosine"
    """did the vector get in: the student's own shift against it; full adds what the shift does by itself, and the
    KL ledger, about 15 s a round on two cores"""
    sample_prompts: int = 24
    """held-out probe questions answered freely, and as many neutral prompts"""
    base_draws: int = 3
    """the base's own samples a prompt, once a run; of every other model one"""
    sample_tokens: int = 48
    resamples: int = 2000
    """bootstrap resamples"""


@dataclass(frozen=True)
class RunConfig:
    """One run of the loop."""

    persona: str = "love"
    """a persona's name (`shl list personas`), or the path of a persona TOML"""
    model: str = "smollm2"
    """smollm2 (embedded), a folder, or a hub id"""
    rounds: int = 3
    seed: int = 0
    out: str = "runs"
    device: str = "auto"
    """auto, cpu, cuda, mps"""
    dtype: str = "auto"
    memory: str = ""
    """how much of a GPU's memory to use at most, such as 24GB; empty means all. What doesn't fit is halved"""
    batch_tokens: int = 2048
    """tokens a forward pass may hold, padding included"""
    coherence_floor: float = 0.5
    """own_excess (nats/token) above which the loop stops"""
    trust_remote_code: bool = False
    """run code that ships with the model; off unless you ask"""
    vector: VectorConfig = field(default_factory=VectorConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    walk: WalkConfig = field(default_factory=WalkConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    heal: HealConfig = field(default_factory=HealConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    def check(self) -> None:
        """Raise one `UserError` that lists every setting out of range."""
        rules = [
            (min(self.eval.probes, self.filter.calibration, self.eval.neutral_prompts) >= 1,
             "eval.probes, eval.neutral_prompts and filter.calibration: at least 1"),
            (self.eval.transfer in ("off", "cosine", "full"),
             f"eval.transfer: off, cosine or full, found {self.eval.transfer!r}"),
            (self.eval.capability_blocks >= 1,
             f"eval.capability_blocks: at least 1, found {self.eval.capability_blocks}"),
            (0 <= self.heal.validation < 1 and 0 <= self.heal.anchor_validation < 1,
             "heal.validation and heal.anchor_validation: shares, from 0 to below 1"),
            (self.eval.vignette_view in ("see", "you"),
             f"eval.vignette_view: see or you, found {self.eval.vignette_view!r}"),
            (self.eval.think_tokens >= 0, f"eval.think_tokens: at least 0, found {self.eval.think_tokens}"),
            (min(self.eval.vignettes, self.eval.paraphrases) >= 1,
             "eval.vignettes and eval.paraphrases: at least 1"),
            (not self.memory or SIZE.fullmatch(self.memory.strip()) is not None,
             f"memory: a size such as 24GB, found {self.memory!r}"),
            (self.rounds >= 1, f"rounds: at least 1, found {self.rounds}"),
            (self.vector.contexts >= 2, f"vector.contexts: at least 2, found {self.vector.contexts}"),
            (0 <= self.vector.layers[0] < self.vector.layers[1] <= 1,
             f"vector.layers: two shares of the depth, rising, found {self.vector.layers}"),
            (0 <= self.heal.layers[0] < self.heal.layers[1] <= 1,
             f"heal.layers: two shares of the depth, rising, found {self.heal.layers}"),
            (self.walk.start > 0 and self.walk.span > 1 and self.walk.floor > 0,
             "walk: start and floor above 0 and span above 1"),
            (0 < self.walk.survival < 1, f"walk.survival: above 0 and below 1, found {self.walk.survival}"),
            (self.walk.doses >= 2, f"walk.doses: at least 2, found {self.walk.doses}"),
            (min(self.heal.rank, self.heal.epochs, self.heal.batch, self.heal.micro_batch) >= 1,
             "heal: rank, epochs, batch and micro_batch at least 1"),
            (self.heal.aggregate in ("mean", "rmse", "p95", "max"),
             f"heal.aggregate: mean, rmse, p95 or max, found {self.heal.aggregate!r}"),
            (self.heal.reference in ("base", "previous"),
             f"heal.reference: base or previous, found {self.heal.reference!r}"),
            (self.vector.contrast in ("neg", "neutral"),
             f"vector.contrast: neg or neutral, found {self.vector.contrast!r}"),
            (0 < self.filter.quantile <= 1, f"filter.quantile: a share, found {self.filter.quantile}"),
            (0 <= self.generate.min_p < 1, f"generate.min_p: from 0 to below 1, found {self.generate.min_p}"),
        ]  # fmt: skip
        wrong = [message for fine, message in rules if not fine]
        if wrong:
            raise UserError("settings out of range:\n" + "\n".join(f"  {w}" for w in wrong))


PRESETS: dict[str, dict[str, Any]] = {
    "cpu": {},
    "gpu": {
        "batch_tokens": 32768,
        "vector": {"contexts": 256},
        "generate": {"prompts": 64, "max_new_tokens": 512, "batch": 192},
        "filter": {"keep": 64, "calibration": 128},
        "heal": {
            "epochs": 6,
            "batch": 8,
            "micro_batch": 8,
            "anchor_batch": 8,
            "anchor_prompts": 160,
            "anchor_tokens": 128,
        },
        "eval": {
            "vignettes": 126,
            "paraphrases": 4,
            "capability_blocks": 10,
            "transfer": "full",
            "neutral_prompts": 96,
            "sample_prompts": 48,
            "sample_tokens": 128,
        },
    },
}


def override(config: Any, changes: dict[str, Any], where: str = "") -> Any:
    """`config` with nested `changes`; raises one UserError that names every unknown or mistyped key."""
    problems: list[str] = []
    result = _override(config, changes, where, problems)
    if problems:
        raise UserError("\n".join(problems))
    return result


def _override(config: Any, changes: dict[str, Any], where: str, problems: list[str]) -> Any:
    known = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    values: dict[str, Any] = {}
    for key, new in changes.items():
        at = f"{where}{key}"
        if key not in known:
            problems.append(f"unknown setting {at!r}; there is: {', '.join(known)}.")
        elif dataclasses.is_dataclass(known[key]):
            if isinstance(new, dict):
                values[key] = _override(known[key], new, f"{at}.", problems)
            else:
                problems.append(f"{at}: expected a table, found {new!r}.")
        else:
            old = known[key]
            if isinstance(old, tuple) and isinstance(new, list):
                new = tuple(new)
            if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
                new = float(new)
            if type(new) is not type(old):
                problems.append(f"{at}: expected {type(old).__name__}, found {new!r}.")
            elif isinstance(new, tuple) and not fits(new, old):
                wanted = (
                    "names"
                    if not old or isinstance(old[0], str)
                    else f"{len(old)} of {type(old[0]).__name__}"
                )
                problems.append(f"{at}: expected {wanted}, found {list(new)!r}.")
            else:
                values[key] = new
    return dataclasses.replace(config, **values)


def fits(new: tuple[Any, ...], old: tuple[Any, ...]) -> bool:
    """Any number of names for a tuple of names, else as many numbers of the same types."""
    if not old or isinstance(old[0], str):
        return all(isinstance(x, str) for x in new)
    return [type(float(x) if isinstance(x, int) else x) for x in new] == [type(x) for x in old]


def read(path: Path) -> RunConfig:
    """Settings of a TOML file on top of the preset of its device. Raises `UserError` with every mistake."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise UserError(f"settings file {path}: {e.strerror}.") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise UserError(f"settings file {path}: not TOML: {e}") from e
    return override(for_device(data.get("device", "auto")), data)


def for_device(device: str) -> RunConfig:
    """The preset that fits a device: `gpu` on CUDA, `cpu` elsewhere."""
    return preset("gpu" if (auto_device() if device == "auto" else device).startswith("cuda") else "cpu")


def preset(name: str) -> RunConfig:
    """The named preset's full settings."""
    return override(RunConfig(), PRESETS[name])
