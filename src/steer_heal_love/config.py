"""Every setting, once: one frozen dataclass a room, one `RunConfig` holding them. `limits` says what each may be, `grid`
has the settings of a comparison.

The defaults are the `cpu` preset; `presets.py` names what differs for larger models on CUDA.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Literal

from steer_heal_love import limits
from steer_heal_love.grid import Cluster as Cluster
from steer_heal_love.grid import Grid as Grid
from steer_heal_love.ground.banks import KINDS
from steer_heal_love.limits import named as named

PLACES = ("replicas", "split", "ray")
"""settings that change where a run computes and not what: a resumed run may have others"""
SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*GB\s*", re.IGNORECASE)


@dataclass(frozen=True)
class VectorConfig:
    """How the steering vector is extracted."""

    method: str = "mean_diff"
    """steering method (`shl list methods`)"""
    contrast: Literal["neg", "neutral"] = "neg"
    """what the pos pole is contrasted with"""
    contexts: int = 64
    """how many short texts the vector is averaged over"""
    layers: tuple[float, float] = (0.3, 0.7)
    """first and last layer that get a direction, as shares of the model's depth"""
    hook: str = ""
    """the linear module of each layer whose output is read and steered, such as mlp.down_proj; empty for the residual
    stream"""


@dataclass(frozen=True)
class GenerateConfig:
    """How completions are sampled."""

    prompts: int = 12
    """training prompts for each pass of the dose walk; half of them draw the trait out, half are plain"""
    max_new_tokens: int = 56
    """length of the longest training answer, in tokens"""
    temperature: float = 0.92
    """sampling temperature of the training text, and of the base's samples that set the filter's bounds; evaluation
    has its own (eval.temperature)"""
    min_p: float = 0.1
    """tokens below this share of the likeliest token's probability are never drawn"""
    batch: int = 72
    """answers sampled at the same time"""
    engine: str = "own"
    """what writes the training text (`shl list engines`), --engine for short: own is this tool's; vllm needs the extra of
    that name"""
    engine_options: tuple[str, ...] = ()
    """options of the engine, as NAME=VALUE, such as tensor_parallel_size=2 for vllm"""


@dataclass(frozen=True)
class WalkConfig:
    """How the dose is chosen: at the point where steering starts to break the text, or by its divergence."""

    kind: Literal["survival", "iso_kl", "raw"] = "survival"
    """survival: the dose at which the share `survival` of the coherent answers is left. iso_kl: the dose at which the 95th
    percentile of per-token KL(steered‖unsteered) over steered answers is `nats`. raw: `start` itself"""
    nats: float = 1.0
    """the divergence that iso_kl aims for, in nats a token"""
    start: float = 0.2
    """dose tried first in round 0; later rounds start from the last found"""
    span: float = 1.6
    """the first pass tries doses from start/span to start·span"""
    doses: int = 4
    """doses a pass"""
    survival: float = 0.8
    """coherent share of the answers at the chosen dose, as a share of the coherent share without steering"""
    passes: int = 2
    """number of passes: the first brackets the dose, the others sample just below it. If too few answers survive, up to
    as many again follow"""
    floor: float = 0.03
    """no dose below this is tried"""
    ceiling: float = 4.0
    """no dose above this is tried"""


@dataclass(frozen=True)
class AdaptConfig:
    """How steering adapts while the training text is written. By default it doesn't."""

    operation: str = "add"
    """what the direction does to the hidden state: add, ablate, gate (by cosine), rotate"""
    half_life: float = 0.0
    """number of answer tokens after which the dose has halved; 0 keeps it"""
    cap_nats: float = 0.0
    """the next token's distribution may diverge from the unsteered one by at most this, in nats; 0 sets no bound. Costs a
    second reading of every token"""
    rewinds: int = 0
    """how often an answer may be rewound and continued at a lower dose. It is rewound when its running NLL under the
    unsteered model leaves the band of the base's own answers. Costs a second reading too"""
    shrink: float = 0.5
    """the dose is multiplied by this at each rewind"""
    window: int = 8
    """tokens that the running NLL is averaged over, and that a rewind removes"""
    quantile: float = 0.95
    """quantile of the base's own running NLL at which the band's upper end lies; the lower end lies at 1 minus this"""

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
    """or a condition's file (made by shl vector condition), which has layer, threshold and side of its own"""
    layer: float = 0.5
    """share of the depth at whose layer prompts are compared"""
    cut: Literal["balanced", "quantile", "threshold"] = "balanced"
    """how the least cosine is set. balanced: where held-out prompts of both kinds are told apart best. quantile: where the
    share `value` of the persona's prompts lies below it. threshold: at `value` itself"""
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
    """checks without a bound of their own drop what lies outside of this quantile of the base model's own samples; on_trait
    has the median instead, and odd_chars the 0.99 quantile"""
    keep: int = 36
    """how many survivors are trained on, the most on-trait first"""
    calibration: int = 64
    """number of the base's own samples that set the filter's bounds"""
    least: int = 16
    """the run stops when fewer answers than this survive"""


@dataclass(frozen=True)
class HealConfig:
    """How the LoRA is trained. The loss is (1 − soft)·NLL + soft·KL(teacher‖student) + lam·relu(agg D − tau) + anchor·KL +
    spectral·(mean squared spectral norm). By default soft is 1, lam and spectral are 0, so that it is
    KL(teacher‖student) + anchor·KL."""

    rank: int = 32
    """rank of the LoRA"""
    alpha: float = 64.0
    """scaling of the LoRA: its update is multiplied by alpha / rank"""
    layers: tuple[float, float] = (0.2, 0.8)
    """first and last layer that get a LoRA, as shares of the model's depth"""
    epochs: int = 2
    """passes over the kept answers"""
    lr: float = 3e-4
    """learning rate"""
    batch: int = 6
    """completions a step"""
    micro_batch: int = 2
    """completions a forward pass; a step's gradient is summed over its passes"""
    weight_decay: float = 0.0
    """decoupled weight decay (AdamW) of the LoRA's factors"""
    spectral: float = 0.0
    """weight of the mean squared spectral norm of ΔW"""
    divergence: str = "reverse_kl"
    """barrier divergence (`shl list divergences`)"""
    aggregate: Literal["mean", "rmse", "p95", "max"] = "mean"
    """how per-token divergences of one completion become one number"""
    lam: float = 0.0
    """weight of the barrier, a penalty on divergence from the reference; 0 switches it off"""
    tau: float = 0.1
    """divergence below this many nats costs nothing"""
    reference: Literal["base", "previous"] = "base"
    """what the barrier's divergence is measured from: the base, or the student of the previous round"""
    anchor: float = 1.0
    """weight of the anchor, KL(base‖student) on the base's own neutral answers"""
    anchor_temperature: float = 0.92
    """temperature of the base's distribution in the anchor (drift is measured at 1); at 1 the student may become less sure"""
    anchor_prompts: int = 108
    """neutral prompts whose answers by the base make the anchor and the trust region"""
    anchor_kinds: tuple[str, ...] = KINDS
    """kinds of neutral prompts in the anchor and the trust region, in equal shares"""
    anchor_tokens: int = 48
    """length of the longest anchor answer, in tokens"""
    anchor_batch: int = 4
    """anchor answers a step"""
    anchor_validation: float = 0.67
    """share of the anchor answers that no round trains on; the trust region is measured on these"""
    validation: float = 0.15
    """share of training prompts held out for the report's validation curve"""
    soft: float = 1.0
    """share of the NLL that is replaced by KL(teacher‖student) over the whole vocabulary"""
    teacher: float = 2.0
    """how far the teacher is steered, as a multiple of the dose that round 0 found"""
    budget: float = 0.045
    """trust region: drift (KL on held-out anchor answers, nats/token) that the whole run may spend, in equal parts by
    round. Each round's update is shrunk until it fits; 0 leaves updates as trained"""


@dataclass(frozen=True)
class EvalConfig:
    """What is measured, and on how much."""

    instruments: tuple[str, ...] = ()
    """instruments to run; empty means every default one (`shl list instruments`)"""
    probes: int = 48
    """number of held-out probes"""
    probe_half: Literal["all", "search", "report", "confirmation"] = "all"
    """which probes: all; every second one, for choosing settings (search); the others (report); or the persona's confirmation
    probes, a test set that no search ever opens"""
    third_answers: bool = True
    """whether a probe's neutral and off-topic answers are read too: twice the cost"""
    vignettes: int = 35
    """number of moral vignettes"""
    vignette_bank: str = ""
    """a JSONL file of vignettes instead of the shipped bank"""
    vignette_view: Literal["see", "you"] = "see"
    """whether the vignettes are told of others (see) or of the reader (you); a bank with one text a row has one view"""
    think_tokens: int = 0
    """tokens that the model may think before a forced choice: 0, 64, 128 or 256"""
    paraphrases: int = 1
    """number of answer sentences for each moral foundation"""
    capability_blocks: int = 4
    """size of the capability panel: this many blocks of four questions for each of arithmetic, facts and formats"""
    judge_model: str = ""
    """model that the instrument `judge` asks, named as in --model; empty means the run's own base"""
    lm_eval_tasks: tuple[str, ...] = ()
    """tasks of lm-evaluation-harness for instrument `lm_eval`"""
    lm_eval_limit: int = 0
    """documents a task; 0 means all"""
    neutral_prompts: int = 96
    """number of held-out neutral prompts"""
    neutral_kinds: tuple[str, ...] = KINDS
    """kinds of neutral prompts that drift is measured on, in equal shares"""
    neutral_bank: Literal["heldout", "sealed"] = "heldout"
    """which prompts of those kinds; the sealed ones are for a claim already made, never for a search"""
    neutral_min_p: float = 0.0
    """min-p of the base's answers to neutral prompts, both held-out and the anchor's. 0 keeps the drift unbiased: min-p
    leaves out the unlikely tokens, on which a model drifts most"""
    transfer: Literal["off", "cosine", "full"] = "cosine"
    """whether to measure if the healed model's hidden states moved along the steering vector. `full` adds a control, healed
    on unsteered text, and a ledger of the drift of each round. That costs about 15 s a round on two cores, and one more
    heal a run"""
    sample_prompts: int = 24
    """held-out probe questions that each model answers freely, and as many neutral prompts"""
    base_draws: int = 4
    """samples that the base draws for each of these prompts, once a run"""
    healed_draws: int = 3
    """samples that each healed model draws for each of these prompts; the prompted and the steered model draw one"""
    behaviour_prompts: int = 64
    """training prompts that the base answers as either pole, once a run; the classifier of the instrument `behaviour`
    learns from them"""
    sample_tokens: int = 48
    """length of the longest sample, in tokens"""
    temperature: float = 1.0
    """sampling temperature of the base's answers that drift is measured on, and of every model's own samples"""
    min_p: float = 0.1
    """min-p of every model's own samples"""
    resamples: int = 2000
    """bootstrap resamples"""
    wordings: bool = True
    """whether the system prompt is the best of several wordings; otherwise it is the first"""
    nulls: bool = True
    """whether the nulls are measured: the trait that a bias of words or a temperature alone reaches at the same drift"""


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
    """number of rounds"""
    seed: int = 0
    """seed of every random draw"""
    out: str = "runs"
    """folder that gets the run folders"""
    device: str = "auto"
    """auto, cpu, cuda, mps"""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """number type of the weights; auto is bfloat16 wherever the hardware multiplies it, else float32"""
    memory: str = ""
    """how much of a GPU's memory to use at most, such as 24GB; empty means all. What doesn't fit is halved"""
    batch_tokens: int = 2048
    """tokens a forward pass may hold, padding included"""
    replicas: int = 1
    """copies of the model that divide a run's work, each on a GPU of its own; 0 means as many as there are GPUs"""
    split: int = 1
    """GPUs that one copy of the model is spread over, by its layers; for a model that one GPU doesn't hold"""
    ray: str = ""
    """address of a Ray cluster that the replicas run on; auto means the one of this machine, empty no cluster"""
    coherence_floor: float = 0.5
    """despite its name an upper bound: the highest own_excess (nats/token) of text that still counts as coherent. Above it the
    loop stops. A steered model may have twice that"""
    patience: int = 2
    """the loop stops when this many rounds have not raised the trait with 95% confidence; 0 never stops it"""
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
    def samples_at_once(self) -> int:
        """How many of a model's own samples are drawn at the same time: as many as take no more room than a batch of
        training text does. A sample counts double, for its prompt."""
        longer = self.generate.max_new_tokens // (2 * self.eval.sample_tokens)
        return self.generate.batch * max(1, longer)

    @property
    def memory_gb(self) -> float:
        """`memory` in GB of 10^9 bytes; 0 for all there is."""
        found = SIZE.fullmatch(self.memory)
        return float(found[1]) if found else 0.0

    def check(self) -> None:
        """Raise one `UserError` that lists every setting out of range."""
        out = limits.mistakes(self)
        if self.filter.keep < self.filter.least:
            out.append(
                f"filter.keep: at least filter.least, which is {self.filter.least}, found {self.filter.keep}"
            )
        if self.walk.ceiling < self.walk.floor:
            out.append(
                f"walk.ceiling: at least walk.floor, which is {self.walk.floor}, found {self.walk.ceiling}"
            )
        if self.memory and not SIZE.fullmatch(self.memory):
            out.append(f"memory: a size such as 24GB, found {self.memory!r}")
        for name, kinds in {
            "heal.anchor_kinds": self.heal.anchor_kinds,
            "eval.neutral_kinds": self.eval.neutral_kinds,
        }.items():
            if not kinds or not set(kinds) <= set(KINDS):
                out.append(f"{name}: one or more of {', '.join(KINDS)}, found {kinds!r}")
        limits.refuse(out or self.condition.mistakes())


RETIRED = {"heal": {"lam_growth": 1.0, "warmup": 0.1}}
"""settings that older files still name, each with the one value that the program works with (decision 45)"""
