"""How long a run will take: its steps in tokens, and the seconds that a token took here so far.

In: a run's settings, then each step as it begins and ends. Out: the seconds that are left. The tokens are a rough count
of what each step reads and writes, so that the first steps on a machine tell how long the others will take.
"""

from __future__ import annotations

from steer_heal_love.config import RunConfig

PROMPT, QUESTION = 16, 60
"""tokens of a prompt once what all prompts begin with is read; of a question with two answers"""
WRITTEN, LEARNT = 1.5, 3.5
"""what a token costs that is written, and one that is learnt from, as multiples of one that is read"""
READINGS = 4
"""of the held-out anchor answers, by the search for the trust region's scale"""
LOAD = 3000
"""importing and loading, in the tokens that could be read meanwhile"""

Step = tuple[int, str]
"""a round's number, −1 for what comes before the rounds, and the step's name"""


def name(label: str) -> Step:
    """The step that a label such as "round 1: generate at 0.12–0.31" is of."""
    first, _, rest = label.partition(": ")
    words = first.split()
    if words[0] == "round" and rest:
        step = rest.split(" at ")[0]
        return int(words[1]), "walk" if step in ("generate", "filter") else step
    return -1, "load" if words[0] == "load" else label


def plan(cfg: RunConfig) -> dict[Step, float]:
    """Every step of a run in its order, with its cost in tokens read."""
    before = {(-1, step): cost for step, cost in base(cfg).items()}
    rounds = {(n, step): cost for n in range(cfg.rounds) for step, cost in one_round(cfg).items()}
    rounds.pop((0, "vector"), None)  # read before everything else, for a first look
    return before | rounds


def base(cfg: RunConfig) -> dict[str, float]:
    """What comes before the rounds."""
    h, e, text = cfg.heal, cfg.eval, cfg.generate.max_new_tokens
    anchor, neutral = h.anchor_prompts * h.anchor_tokens, e.neutral_prompts * e.sample_tokens
    return {
        "load": LOAD,
        "vector": 2 * 30 * cfg.vector.contexts,
        "first look": 200,
        "base: anchor": WRITTEN * anchor,
        "base: neutral": WRITTEN * neutral,
        "base: calibration": WRITTEN * cfg.filter.calibration * text,
        "filter": 3 * cfg.filter.calibration * (text + PROMPT),
        "base: states": 1.3 * (anchor + neutral),
        "choose the prompt's wording": 6 * 24 * QUESTION * e.wordings,
        "nulls": 6 * (2 * e.probes * 20 + neutral) * e.nulls,
        "evaluate base": evaluation(cfg, e.base_draws),
        "evaluate prompt": evaluation(cfg, 1),
    }


def one_round(cfg: RunConfig) -> dict[str, float]:
    """A round, its passes of sampling and filtering together as its walk."""
    h, e, text = cfg.heal, cfg.eval, cfg.generate.max_new_tokens
    made = cfg.generate.prompts * cfg.walk.doses * cfg.walk.passes
    learnt = h.epochs * cfg.filter.keep * (text + 40) * (1 + h.anchor_batch / h.batch)
    held = h.anchor_validation * h.anchor_prompts * (1.6 * h.anchor_tokens + PROMPT)
    return {
        "vector": 2 * 30 * cfg.vector.contexts,
        "walk": made * (WRITTEN * text + 3 * (text + PROMPT)),
        "teacher": 3 * cfg.filter.keep * (text + 40) * bool(h.soft),
        "heal": LEARNT * learnt,
        "trust region": READINGS * held * bool(h.budget),
        "look": 400,
        "evaluate steered": evaluation(cfg, 1),
        "evaluate healed": evaluation(cfg, e.healed_draws),
        "transfer": 2 * 30 * cfg.vector.contexts * (e.transfer != "off"),
    }


def evaluation(cfg: RunConfig, draws: int) -> float:
    """One model under the instruments; one that isn't known here counts as nothing."""
    e, own = cfg.eval, 2 * cfg.eval.sample_prompts * draws
    costs = {
        "probes": e.probes * QUESTION,
        "neutral": e.neutral_prompts * (1.6 * e.sample_tokens + PROMPT),
        "samples": own * e.sample_tokens * (1 + WRITTEN) + (own + 2 * e.sample_prompts) * PROMPT,
        "vignettes": e.vignettes * 120 * e.paraphrases,
        "capability": 12 * e.capability_blocks * 50,
    }
    return sum(cost for instrument, cost in costs.items() if instrument in (e.instruments or costs))


class Forecast:
    """Seconds left of a run, learned from the steps that have ended; None until one has."""

    def __init__(self, cfg: RunConfig) -> None:
        self.left, self.tokens, self.seconds = plan(cfg), 0.0, 0.0
        self.whole: dict[Step, float] = {}
        self.share = {"walk": 1 / (2 * cfg.walk.passes)}

    def began(self, label: str) -> None:
        """What stands before this step won't come again: a resumed run has it, or it took less than was foreseen."""
        if (at := name(label)) in self.left:
            order = list(self.left)
            for step in order[: order.index(at)]:
                del self.left[step]

    def ended(self, label: str, seconds: float) -> None:
        """A step took so long. What a walk does in one pass is a share of it."""
        if (at := name(label)) not in self.left:
            return
        cost = min(self.left[at], self.share.get(at[1], 1.0) * self.foreseen(at))
        self.left[at] -= cost
        self.tokens += cost
        self.seconds += seconds

    def foreseen(self, at: Step) -> float:
        """A step's whole cost."""
        return self.whole.setdefault(at, self.left[at])

    def seconds_left(self) -> float | None:
        """Of the whole run, from here on."""
        return sum(self.left.values()) * self.seconds / self.tokens if self.tokens else None


def said(left: float | None) -> str:
    """The time left in words; nothing before there is anything to say."""
    if left is None:
        return ""
    return "less than a minute left" if left < 60 else f"about {round(left / 60)} min left"
