"""Every setting, once: one frozen dataclass a room, one `RunConfig` holding them; and the `Grid` of a comparison.

The defaults are the `cpu` preset; `presets.py` names what differs for larger models on CUDA.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from steer_heal_love.ground.banks import KINDS
from steer_heal_love.ground.errors import UserError

MOST = 10**9
"""no count of anything reaches this; only a seed may"""
PLACES = ("replicas", "split", "ray")
"""settings that change where a run computes and not what: a resumed run may have others"""
SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*GB\s*", re.IGNORECASE)


@dataclass(frozen=True)
class VectorConfig:
    """How the steering vector is read."""

    method: str = "mean_diff"
    """steering method (`shl list methods`)"""
    contrast: Literal["neg", "neutral"] = "neg"
    """what the pos pole is contrasted with"""
    contexts: int = 64
    """how many short texts the vector is averaged over"""
    layers: tuple[float, float] = (0.3, 0.7)
    """layers that get a direction, from and to, as shares of the model's depth"""
    hook: str = ""
    """linear module of every layer at whose output the vector is read and added, such as mlp.down_proj; empty for the
    residual stream"""


@dataclass(frozen=True)
class GenerateConfig:
    """How completions are sampled."""

    prompts: int = 12
    """training prompts for each pass of the dose walk; half of them draw the trait out, half are plain"""
    max_new_tokens: int = 56
    temperature: float = 0.92
    """sampling temperature of the training text, and of the base's samples that the filter's bounds come
    from; evaluation has its own (eval.temperature)"""
    min_p: float = 0.1
    """tokens below this share of the likeliest token's probability are never drawn"""
    batch: int = 72
    """answers sampled at the same time"""
    engine: str = "own"
    """what writes the training text (`shl list engines`), --engine for short: own is ours, and the reference; vllm needs
    its extra"""
    engine_options: tuple[str, ...] = ()
    """what else the engine is told, as NAME=VALUE, such as tensor_parallel_size=2 for vllm"""


@dataclass(frozen=True)
class WalkConfig:
    """How the dose is chosen: walked to where steering starts to break the text, or by its divergence."""

    kind: Literal["survival", "iso_kl", "raw"] = "survival"
    """survival walks the dose to where `survival` of the coherent answers is left; iso_kl takes the dose at which the 95th
    percentile of per-token KL(steered‖unsteered) over steered answers is `nats`; raw takes `start` as it is"""
    nats: float = 1.0
    """the divergence that iso_kl aims for, in nats a token"""
    start: float = 0.2
    """dose tried first in round 0; later rounds start from the last found"""
    span: float = 1.6
    """the first pass tries doses from start/span to start·span"""
    doses: int = 4
    """doses a pass"""
    survival: float = 0.8
    """share of the unsteered student's coherent answers that is still coherent at the chosen dose"""
    passes: int = 2
    """number of passes; the first brackets the dose, the others sample just below it, and up to as many
    more follow where too few answers survive"""
    floor: float = 0.03
    """no dose below this is tried"""
    ceiling: float = 4.0
    """no dose above this is tried"""


@dataclass(frozen=True)
class AdaptConfig:
    """How steering adapts while the training text is written; nothing of it by default."""

    operation: str = "add"
    """what the direction does to the hidden state: add, ablate, gate (by cosine), rotate"""
    half_life: float = 0.0
    """answer tokens in which the dose halves; 0 keeps it"""
    cap_nats: float = 0.0
    """most that the next token's distribution may diverge from the unsteered one; 0 sets no bound. Costs a second
    reading of every token"""
    rewinds: int = 0
    """how often an answer may go back and be written on with less dose, where its running NLL under the unsteered model
    leaves the band of the base's own answers. Costs a second reading too"""
    shrink: float = 0.5
    """what the dose is multiplied by each time"""
    window: int = 8
    """tokens that the running NLL is averaged over, and that going back takes out"""
    quantile: float = 0.95
    """share of the base's own answers that the band holds on either side"""

    @property
    def adapts(self) -> bool:
        """Whether the dose changes while an answer is written."""
        return bool(self.half_life or self.cap_nats or self.rewinds)


@dataclass(frozen=True)
class ConditionConfig:
    """On which training prompts a round's text is steered; on every one by default."""

    persona: str = ""
    """steer on prompts like those that draw out this persona (a name, or a TOML file), told from neutral ones"""
    file: str = ""
    """or a condition's file (`shl vector condition`), which has layer, threshold and side of its own"""
    layer: float = 0.5
    """share of the depth at whose layer prompts are compared"""
    cut: Literal["balanced", "quantile", "threshold"] = "balanced"
    """how the least cosine is set: where held-out prompts of both kinds are told apart best; where the share `value` of the
    persona's lies below it; or at `value` itself"""
    value: float = 0.0
    """that share, or that cosine"""
    side: Literal["above", "below"] = "above"
    """below steers exactly the other prompts"""

    @property
    def asked(self) -> bool:
        """Whether there is a condition."""
        return bool(self.persona or self.file)

    def mistakes(self) -> list[str]:
        """What doesn't go together, a line each."""
        own = {f.name: f.default for f in dataclasses.fields(self)}
        told = [name for name in ("layer", "cut", "value", "side") if getattr(self, name) != own[name]]
        out = []
        if self.persona and self.file:
            out.append("condition.persona, condition.file: one of the two; leave the other empty")
        if self.file and told:
            out.append(
                f"condition.{told[0]}: the file {self.file!r:.80} has its own; make another with `shl vector condition`"
            )
        if told and not self.asked:
            out.append(f"condition.{told[0]}: of no condition; name condition.persona, or leave it out")
        if self.cut == "quantile" and not 0 < self.value < 1:
            out.append(f"condition.value: a quantile, above 0 and below 1, found {self.value!r}")
        if self.cut == "balanced" and self.value:
            out.append(f"condition.value: of condition.cut quantile or threshold, found {self.value!r}")
        return out


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
    """number of the base's own samples that set the filter's bounds"""
    least: int = 16
    """the run stops when fewer answers than this survive"""


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
    weight_decay: float = 0.0
    """decoupled (AdamW), on the factors"""
    spectral: float = 0.0
    """weight of the mean squared spectral norm of ΔW"""
    divergence: str = "reverse_kl"
    """barrier divergence (`shl list divergences`)"""
    aggregate: Literal["mean", "rmse", "p95", "max"] = "mean"
    """how per-token divergences of one completion become one number"""
    lam: float = 0.0
    """weight of the barrier, a penalty on divergence from the reference; 0 switches it off"""
    tau: float = 0.1
    """nats of divergence that cost nothing"""
    reference: Literal["base", "previous"] = "base"
    anchor: float = 1.0
    """weight of the anchor, KL(base‖student) on the base's own neutral answers"""
    anchor_temperature: float = 0.92
    """of the base's distribution in the anchor; drift itself is measured at 1. 1 lets the student get less sure"""
    anchor_prompts: int = 108
    anchor_kinds: tuple[str, ...] = KINDS
    """kinds of neutral prompts that the anchor and the trust region are made of, in equal shares"""
    anchor_tokens: int = 48
    anchor_batch: int = 4
    """anchor answers a step"""
    anchor_validation: float = 0.67
    """share of the anchor answers never trained on in any round, on which the trust region is measured"""
    validation: float = 0.15
    """share of training prompts held out for the curve"""
    soft: float = 1.0
    """share of the NLL that is replaced by KL(teacher‖student) over the whole vocabulary"""
    teacher: float = 2.0
    """how far the teacher is steered, as a multiple of the dose that round 0 found"""
    budget: float = 0.045
    """trust region: each round's update is shrunk until held-out anchor KL is inside that round's part of
    this many nats, which the last round may spend whole; 0 leaves updates as trained"""


@dataclass(frozen=True)
class EvalConfig:
    """What is measured, on how much."""

    instruments: tuple[str, ...] = ()
    """instruments to run; empty means every default one (`shl list instruments`)"""
    probes: int = 48
    probe_half: Literal["all", "search", "report", "confirmation"] = "all"
    """settings are searched on every second probe, and reported on the others; confirmation takes the persona's probes
    of that name, which no search ever opens"""
    third_answers: bool = True
    """whether a probe's answers without either pole, and to another question, are read too: twice the cost"""
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
    neutral_prompts: int = 96
    neutral_kinds: tuple[str, ...] = KINDS
    """kinds of neutral prompts that drift is measured on, in equal shares"""
    neutral_bank: Literal["heldout", "sealed"] = "heldout"
    """which prompts of those kinds; the sealed ones are for a claim already made, never for a search"""
    neutral_min_p: float = 0.0
    """min-p of the base's answers to neutral prompts, held-out and anchor's. 0 samples the base as it is, which keeps
    drift unbiased: cut answers leave out the tokens on which a model drifts most"""
    transfer: Literal["off", "cosine", "full"] = "cosine"
    """whether the healed model's hidden states moved along the steering vector. `full` adds a control that was healed on
    unsteered text and a ledger of what each round's drift paid for; it costs about 15 s a round on two cores and one
    more heal a run"""
    sample_prompts: int = 24
    """held-out probe questions answered freely, and as many neutral prompts"""
    base_draws: int = 4
    """the base's own samples a prompt, once a run"""
    healed_draws: int = 3
    """own samples a prompt of each healed model; of the prompted and the steered one"""
    behaviour_prompts: int = 64
    """training prompts that the base answers as either pole, once a run, for the readout of instrument `behaviour`"""
    sample_tokens: int = 48
    temperature: float = 1.0
    """of the base's answers that drift is measured on, and of every model's own samples"""
    min_p: float = 0.1
    """of every model's own samples"""
    resamples: int = 2000
    """bootstrap resamples"""
    wordings: bool = True
    """whether the prompted model is told the best of several wordings, or else the first"""
    nulls: bool = True
    """whether every stage is set beside what a bias or a temperature alone reaches"""


@dataclass(frozen=True)
class RunConfig:
    """One run of the loop."""

    persona: str = "love"
    """a persona's name (`shl list personas`), or the path of a persona TOML"""
    model: str = "smollm2"
    """smollm2 (embedded), gemma3-270m (from its wheels), a folder, or a hub id"""
    template: str = ""
    """chat template: plain (for base models), chatml, or a Jinja file; empty means the model's own"""
    rounds: int = 3
    seed: int = 0
    out: str = "runs"
    device: str = "auto"
    """auto, cpu, cuda, mps"""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """number type of the weights; auto is bfloat16 wherever the hardware multiplies it, else float32"""
    memory: str = ""
    """how much of a GPU's memory to use at most, such as 24GB; empty means all. What doesn't fit is halved"""
    batch_tokens: int = 2048
    """tokens a forward pass may hold, padding included"""
    replicas: int = 1
    """copies of the model that share a run's rows out, each on a GPU of its own; 0 means as many as there are GPUs"""
    split: int = 1
    """GPUs that one copy of the model is spread over, by its layers; for a model that one GPU doesn't hold"""
    ray: str = ""
    """address of a Ray cluster that the replicas run on (auto: the one that is up here); empty means this machine alone"""
    coherence_floor: float = 0.5
    """own_excess (nats/token) above which the loop stops"""
    patience: int = 2
    """the loop stops when the trait has not risen with 95% confidence in so many rounds; 0 never asks"""
    trust_remote_code: bool = False
    """run code that ships with the model; off unless you ask"""
    vector: VectorConfig = field(default_factory=VectorConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    condition: ConditionConfig = field(default_factory=ConditionConfig)
    walk: WalkConfig = field(default_factory=WalkConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    heal: HealConfig = field(default_factory=HealConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    @property
    def memory_gb(self) -> float:
        """`memory` in GB of 10^9 bytes; 0 for all there is."""
        found = SIZE.fullmatch(self.memory)
        return float(found[1]) if found else 0.0

    def check(self) -> None:
        """Raise one `UserError` that lists every setting out of range."""
        found = named(self)
        rules = [
            (fine(found[name][0]), f"{name}: {wanted}, found {found[name][0]!r}")
            for wanted, (fine, names) in RANGES.items() for name in names.split()
        ] + [
            (value in get_args(kind), f"{name}: {' or '.join(get_args(kind))}, found {value!r}")
            for name, (value, kind) in found.items() if get_origin(kind) is Literal
        ] + [
            (abs(value) < MOST if name != "seed" else abs(value) < 2**63,
             f"{name}: {'a 64-bit number' if name == 'seed' else f'below {MOST:,}'}, found {value!r:.60}")
            for name, (value, kind) in found.items() if kind is int and isinstance(value, int)
        ] + [
            (self.filter.keep >= self.filter.least,
             f"filter.keep: at least filter.least, which is {self.filter.least}, found {self.filter.keep}"),
            (self.walk.ceiling >= self.walk.floor,
             f"walk.ceiling: at least walk.floor, which is {self.walk.floor}, found {self.walk.ceiling}"),
            (not self.memory or SIZE.fullmatch(self.memory) is not None,
             f"memory: a size such as 24GB, found {self.memory!r}"),
        ] + [
            (bool(kinds) and set(kinds) <= set(KINDS),
             f"{name}: one or more of {', '.join(KINDS)}, found {kinds!r}")
            for name, kinds in (("heal.anchor_kinds", self.heal.anchor_kinds), ("eval.neutral_kinds", self.eval.neutral_kinds))
        ]  # fmt: skip
        if wrong := [message for fine, message in rules if not fine] or self.condition.mistakes():
            raise UserError("settings out of range:\n" + "\n".join(f"  {w}" for w in wrong))


@dataclass(frozen=True)
class Grid:
    """A comparison: the strengths each kind of knob is measured at, rising, each a cell a seed; the budgets."""

    doses: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0, 1.5)
    """raw steering: multiples of the dose that the walk finds"""
    scales: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.5)
    """adapters: multiples of the update as trained"""
    beyond: tuple[float, ...] = (1.25, 1.5)
    """healed loop, past its last round: multiples of all rounds together"""
    shots: tuple[float, ...] = (1.0, 2.0, 4.0)
    """few-shot prompt: how many examples"""
    biases: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
    """null of one unconditional bias: multiples of the prompted models' mean logit difference"""
    coolings: tuple[float, ...] = (1.05, 1.1, 1.2, 1.35, 1.5, 2.0)
    """null of temperature: inverse temperatures"""
    budgets: tuple[float, ...] = (0.02, 0.05)
    """neutral_kl, nats/token, at which methods are compared"""
    own_budgets: tuple[float, ...] = (0.02, 0.05, 0.1)
    """own_excess, nats/token, at which methods are compared"""

    def mistakes(self) -> list[str]:
        """What is wrong, a line each."""
        out = []
        for f in dataclasses.fields(self):
            values = getattr(self, f.name)
            if not values or list(values) != sorted({v for v in values if v > 0}):
                out.append(f"grid.{f.name}: numbers above 0, rising, found {values}")
        for name in ("beyond", "coolings"):
            if any(v <= 1 for v in getattr(self, name)):
                out.append(f"grid.{name}: above 1, found {getattr(self, name)}")
        if any(v != int(v) for v in self.shots):
            out.append(f"grid.shots: whole numbers, found {self.shots}")
        return out

    def check(self) -> None:
        """Raise one `UserError` with everything that is wrong."""
        if found := self.mistakes():
            raise UserError("settings out of range:\n" + "\n".join(f"  {m}" for m in found))


@dataclass(frozen=True)
class Cluster:
    """What the executors `ray` and `submitit` are told of where they work."""

    address: str = ""
    """ray: HOST:PORT of a cluster, or auto for the one that this machine belongs to; empty begins one here"""
    kind: Literal["slurm", "local"] = "slurm"
    """submitit: jobs of SLURM, or processes here that imitate them"""
    partition: str = ""
    """submitit: SLURM's partition; empty takes its default"""
    minutes: int = 720
    """submitit: the most that one job may take; one that takes longer is sent again, and goes on"""
    cpus: int = 0
    """processors of one worker; 0 leaves it to the cluster"""
    gpus: int = 0
    """GPUs of one worker"""
    memory_gb: int = 0
    """submitit: memory of one worker; 0 leaves it to the cluster"""

    def check(self) -> None:
        """Raise one `UserError` with everything that is wrong."""
        found = [
            f"cluster.{n}: at least 0, found {getattr(self, n)}"
            for n in ("cpus", "gpus", "memory_gb")
            if getattr(self, n) < 0
        ]
        found += [f"cluster.minutes: at least 1, found {self.minutes}"] if self.minutes < 1 else []
        found += (
            [] if self.kind in ("slurm", "local") else [f"cluster.kind: slurm or local, found {self.kind!r}"]
        )
        if found:
            raise UserError("settings out of range:\n" + "\n".join(f"  {m}" for m in found))


def named(config: Any, where: str = "") -> dict[str, tuple[Any, Any]]:
    """Every setting under its room's name: its value and its type."""
    out: dict[str, tuple[Any, Any]] = {}
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        out |= named(value, f"{name}.") if dataclasses.is_dataclass(value) else {where + name: (value, kind)}
    return out


RETIRED = {"heal": {"lam_growth": 1.0, "warmup": 0.1}}
"""settings that older files still name, each with the one value that the program works with (decision 45)"""
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "at least 1": (
        lambda v: v >= 1,
        """rounds batch_tokens split generate.prompts generate.max_new_tokens generate.batch walk.passes filter.keep
        filter.calibration filter.least heal.rank heal.epochs heal.batch heal.micro_batch heal.anchor_tokens
        heal.anchor_batch eval.probes eval.vignettes eval.paraphrases eval.capability_blocks eval.neutral_prompts
        adapt.window eval.base_draws eval.healed_draws eval.sample_tokens eval.resamples""",
    ),
    "at least 2": (lambda v: v >= 2, "vector.contexts walk.doses"),
    "at least 4": (lambda v: v >= 4, "eval.behaviour_prompts"),
    "a number, at least 0": (
        lambda v: 0 <= v < math.inf,
        """coherence_floor patience replicas adapt.half_life adapt.cap_nats adapt.rewinds generate.temperature eval.temperature heal.weight_decay heal.spectral heal.lam heal.tau heal.anchor heal.teacher
        heal.anchor_prompts heal.budget eval.think_tokens eval.lm_eval_limit eval.sample_prompts""",
    ),
    "a number above 0": (
        lambda v: 0 < v < math.inf,
        "walk.start walk.floor walk.ceiling walk.nats heal.alpha heal.lr heal.anchor_temperature",
    ),
    "a number above 1": (lambda v: 1 < v < math.inf, "walk.span"),
    "from 0 to 1": (lambda v: 0 <= v <= 1, "heal.soft"),
    "from -1 to 1": (lambda v: -1 <= v <= 1, "condition.value"),
    "from 0 to below 1": (
        lambda v: 0 <= v < 1,
        "condition.layer generate.min_p eval.min_p eval.neutral_min_p heal.validation heal.anchor_validation",
    ),
    "above 0, at most 1": (lambda v: 0 < v <= 1, "filter.quantile adapt.shrink adapt.quantile"),
    "above 0 and below 1": (lambda v: 0 < v < 1, "walk.survival"),
    "two shares of the depth, rising": (lambda v: 0 <= v[0] < v[1] <= 1, "vector.layers heal.layers"),
}
"""what each number may be; a seed may be anything"""
