"""Claims, observations, verdicts: the first version of the five gates.

In: the stages and counts of a run so far. Out: `Gate` records, which terminal, report and tests all read.
Verdicts come from paired intervals; coherence is read against an absolute bound before any ratio.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, Literal

from steer_heal_love.ground.stats import paired
from steer_heal_love.nouns import Gate, Persona, Score, Stage

Verdict = Literal["pass", "fail", "undecided"]

INCOHERENT = 1.0
"""own_excess in nats/token past which text is no longer the model's language"""
RETAINED = 0.25
"""share of the steered trait below which a heal has undone rather than healed"""

PANEL = ("trait_shift", "neutral_kl", "own_excess")

CLAIMS = {
    "steer": "Steering moves the trait, the way it should, while the text stays coherent.",
    "filter": "Coherent completions can be told from broken ones, and enough of them survive.",
    "heal": "The healed model keeps the trait and gives back the coherence that steering cost.",
    "loop": "Another round adds trait, and the model stays coherent.",
    "prompt": "The healed model has more of the trait than the model that is merely told to have it.",
}

# outcome → verdict, what it says, what to try. The run's own numbers select the row.
OUTCOMES: dict[str, tuple[Verdict, str]] = {
    "steer.moves": ("pass", "The vector carries the trait. Healing has something to distil."),
    "steer.weak": (
        "undecided",
        "The probes' shift is not distinguishable from zero. Raise walk.start, add contexts, or move the layers.",
    ),
    "steer.reversed": (
        "fail",
        "The probes move away from the pos pole. Read the poles again: this model may not take them as opposites.",
    ),
    "steer.wrong_way": (
        "fail",
        "The probes move, but a moral foundation that the persona declares moves against its intent. On this model the "
        "persona does not mean what it says: rewrite the poles, or use a larger model.",
    ),
    "steer.broken": (
        "fail",
        "At this dose the text is soup, so the shift says nothing. Lower walk.start or raise walk.survival.",
    ),
    "filter.works": ("pass", "What is dropped grows with the dose, and enough is kept."),
    "filter.inert": (
        "undecided",
        "Almost everything passes at every dose. Either the doses are too low to break anything, or the filter sees "
        "nothing: read the borderline samples, then raise walk.start.",
    ),
    "filter.starved": (
        "fail",
        "Too few completions survived at any dose. The vector breaks this model before it moves it: other layers, "
        "other poles, or a larger model.",
    ),
    "heal.healed": ("pass", "Trait kept, drift on neutral prompts well under steering's."),
    "heal.undid": (
        "fail",
        "Coherence is back because the trait is gone. Lower heal.lam or heal.anchor, or train longer.",
    ),
    "heal.reversed": ("fail", "The healed model moved away from the pos pole. Read what was kept."),
    "heal.nothing": (
        "undecided",
        "The healed model's shift is not distinguishable from zero: more epochs, a higher lr, or more kept text.",
    ),
    "heal.broken": (
        "fail",
        "The healed model's own text is as odd as soup to the base: the training set holds soup, or nothing anchors it.",
    ),
    "heal.drifted": (
        "undecided",
        "Trait kept, but the model drifts on neutral prompts about as much as steering did: raise heal.anchor.",
    ),
    "loop.rises": ("pass", "The trait rose over the rounds and no round lost any."),
    "loop.holds": (
        "undecided",
        "Later rounds hold the trait but add nothing distinguishable: the loop saturates.",
    ),
    "loop.falls": ("fail", "A later round lost trait. Earlier rounds may be the better model."),
    "loop.broken": ("fail", "The loop ran into incoherence; use an earlier round."),
    "loop.single": ("undecided", "One round says nothing about a loop."),
    "prompt.beaten": ("pass", "The weights carry more of the trait than the system prompt does."),
    "prompt.even": ("undecided", "Healed and prompted are not distinguishable on the probes."),
    "prompt.wins": (
        "fail",
        "A system prompt moves the trait further, for free. More rounds, or a higher dose.",
    ),
}


@dataclass(frozen=True)
class Evidence:
    """What the gates read: the stages so far, and what the filter counted, a row a round."""

    persona: Persona
    stages: list[Stage]
    rounds: list[dict[str, Any]] = field(default_factory=list)
    resamples: int = 2000

    def has(self, *names: str) -> bool:
        """Whether every stage was measured with the instruments behind these scores."""
        return all(name in s.scores for s in self.stages for name in names)

    def get(self, stage: str, round: int) -> Stage | None:
        return next((s for s in self.stages if s.stage == stage and s.round == round), None)

    def last(self, stage: str) -> Stage | None:
        return next((s for s in reversed(self.stages) if s.stage == stage), None)

    def versus(self, a: Stage, b: Stage, item: str = "trait") -> Score:
        return paired(a.items[item], b.items[item], resamples=self.resamples)


def judge(e: Evidence) -> list[Gate]:
    """Every gate that the evidence reaches, in order."""
    needs = {
        steer: ("trait_shift",),
        sieve: (),
        loop: ("trait_shift",),
        **dict.fromkeys((heal, prompt), PANEL),
    }
    found = [gate(e) if e.has(*needs[gate]) else None for gate in (steer, sieve, heal, loop, prompt)]
    return [g for g in found if g is not None]


def verdict(gate: str, outcome: str, observed: str) -> Gate:
    v, means = OUTCOMES[f"{gate}.{outcome}"]
    return Gate(gate, CLAIMS[gate], observed, v, means, outcome)  # type: ignore[arg-type]


def show(s: Score, unit: str = "") -> str:
    return f"{s.mean:+.3f} [{s.lo:+.3f}, {s.hi:+.3f}]{unit}"


def steer(e: Evidence) -> Gate | None:
    s = e.get("steered", 0)
    if s is None:
        return None
    trait, odd = s.scores["trait_shift"], s.scores.get("own_excess", Score.undefined())
    intended = {f: sign for f, sign in e.persona.intent.items() if sign and f"mfv.{f}" in s.scores}
    moves = {f: s.scores[f"mfv.{f}"] for f in intended}
    against = [f for f, m in moves.items() if (m.hi < 0 if intended[f] > 0 else m.lo > 0)]
    observed = f"at dose {s.dose:g}: trait_shift {show(trait, ' nats/token')}, own_excess {show(odd)}"
    observed += "".join(
        f"; {f} {show(m)} (meant to {'rise' if intended[f] > 0 else 'fall'})" for f, m in moves.items()
    )
    if odd.mean > INCOHERENT:
        return verdict("steer", "broken", observed)
    if trait.hi < 0:
        return verdict("steer", "reversed", observed)
    if against:
        return verdict("steer", "wrong_way", observed)
    return verdict("steer", "moves" if trait.lo > 0 else "weak", observed)


def sieve(e: Evidence) -> Gate | None:
    if not e.rounds:
        return None
    parts = []
    for r in e.rounds:
        low, high = min(r["survival"]), max(r["survival"])
        parts.append(
            f"round {r['round']}: {r['used']} of {r['made']} used; coherent {r['survival'][low]:.0%} at dose {low:g}, "
            f"{r['survival'][high]:.0%} at {high:g}"
        )
    observed = "; ".join(parts)
    if any(r["starved"] for r in e.rounds):
        return verdict("filter", "starved", observed)
    falls = [r["survival"][min(r["survival"])] - r["survival"][max(r["survival"])] for r in e.rounds]
    return verdict("filter", "works" if sum(falls) / len(falls) > 0.1 else "inert", observed)


def heal(e: Evidence) -> Gate | None:
    h = e.last("healed")
    if h is None:
        return None
    s = e.get("steered", h.round)
    assert s is not None
    trait, kl, odd = (h.scores[k] for k in ("trait_shift", "neutral_kl", "own_excess"))
    retained = trait.mean / s.scores["trait_shift"].mean if s.scores["trait_shift"].mean > 0 else float("nan")
    observed = (
        f"round {h.round}: trait_shift {show(trait)}, {retained:.0%} of the steered; neutral_kl {kl.mean:.4f} against "
        f"{s.scores['neutral_kl'].mean:.4f} steered; own_excess {show(odd)} against {show(s.scores['own_excess'])}"
    )
    if odd.mean > INCOHERENT:
        return verdict("heal", "broken", observed)
    if trait.hi < 0:
        return verdict("heal", "reversed", observed)
    if trait.lo <= 0:
        return verdict("heal", "nothing", observed)
    if retained < RETAINED:
        return verdict("heal", "undid", observed)
    return verdict("heal", "healed" if kl.mean < 0.5 * s.scores["neutral_kl"].mean else "drifted", observed)


def loop(e: Evidence) -> Gate | None:
    healed = [s for s in e.stages if s.stage == "healed"]
    if not healed:
        return None
    if len(healed) == 1:
        return verdict("loop", "single", "one healed round")
    steps = [e.versus(b, a) for a, b in itertools.pairwise(healed)]
    total = e.versus(healed[-1], healed[0])
    observed = "trait added " + ", ".join(
        f"in round {s.round}: {show(d)}" for s, d in zip(healed[1:], steps, strict=True)
    )
    observed += f"; since round 0: {show(total)}"
    if any(s.scores.get("own_excess", Score.undefined()).mean > INCOHERENT for s in healed):
        return verdict("loop", "broken", observed)
    if any(d.hi < 0 for d in steps):
        return verdict("loop", "falls", observed)
    return verdict("loop", "rises" if total.lo > 0 else "holds", observed)


def prompt(e: Evidence) -> Gate | None:
    h, p = e.last("healed"), e.last("prompt")
    if h is None or p is None:
        return None
    gap = e.versus(h, p)
    observed = (
        f"healed minus prompted: {show(gap)} nats/token ({h.scores['trait_shift'].mean:+.3f} against "
        f"{p.scores['trait_shift'].mean:+.3f}); neutral_kl {h.scores['neutral_kl'].mean:.4f} against "
        f"{p.scores['neutral_kl'].mean:.4f}; own_excess {show(h.scores['own_excess'])} against "
        f"{show(p.scores['own_excess'])}"
    )
    return verdict("prompt", "beaten" if gap.lo > 0 else "wins" if gap.hi < 0 else "even", observed)
