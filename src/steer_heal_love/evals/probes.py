"""Trait by held-out probes: how likely each given answer is, in nats per token; nothing is sampled.

    trait = NLL(neg answer) − NLL(pos answer)
    trait_pos = fall of NLL(pos answer) from base,  trait_neg = rise of NLL(neg answer),  trait_shift = trait_pos + trait_neg

so that a model which only finds the neg answers less likely is told from one which finds the pos answers likelier.
Where a probe has third answers, two more comparisons keep style and general surprise apart from the trait:
`over_neutral` = NLL(neutral) − NLL(pos), with an answer of the same manner and neither pole; `over_off_topic` =
NLL(off_topic) − NLL(pos), with an answer of the pos pole's tone to another question; and `choice_pos`, 1 where the
pos answer is the likeliest per token of all four. A probe without them is NaN there.
Where a persona has probes of both kinds, `trait_shift.elicit` and `trait_shift.plain` are over one kind each: a question
that draws the trait out, and a plain one, on which a persona shows only if it has spread to everything.

Identities: swapping the answers flips the sign of trait; trait_pos_i + trait_neg_i = trait_shift_i for every probe i.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from steer_heal_love.evals import Subject, instrument
from steer_heal_love.ground.chat import answer_ids
from steer_heal_love.ground.declared import Declared, Panel
from steer_heal_love.ground.trees import branch_nll
from steer_heal_love.nouns import Items, Probe

ANSWERS = ("pos", "neg", "neutral", "off_topic")


def given(p: Probe, *, third: bool = True) -> dict[str, str]:
    """The answers that this probe has, by kind; those of the two poles alone without the `third` ones."""
    return {kind: text for kind in ANSWERS[: None if third else 2] if (text := getattr(p, kind))}


SCORES = (
    Declared(
        "trait_shift",
        10,
        items="trait",
        shift="rise",
        column=True,
        means="Held-out probes: NLL of the neg answer minus NLL of the pos answer, in nats per token, shift from base. It is the sum of trait_pos and trait_neg.",
        panel=Panel("Trait, on held-out probes", "nats/token"),
    ),
    *(
        Declared(
            f"trait_shift.{kind}",
            place,
            items=f"trait.{kind}",
            shift="rise",
            column=True,
            means=f"trait_shift, only on {which}.",
        )
        for place, kind, which in (
            (16, "elicit", "probes whose question draws the trait out"),
            (17, "plain", "probes whose question is a plain one"),
        )
    ),
    Declared(
        "trait_pos",
        11,
        items="nll_pos",
        shift="fall",
        column=True,
        means="How much likelier the pos answers have become: the fall of their NLL from base, in nats per token.",
        panel=Panel("Pos answers likelier by", "nats/token"),
    ),
    Declared(
        "trait_neg",
        12,
        items="nll_neg",
        shift="rise",
        column=True,
        means="How much less likely the neg answers have become: the rise of their NLL from base, in nats per token.",
        panel=Panel("Neg answers less likely by", "nats/token"),
    ),
    Declared(
        "trait_over_neutral",
        13,
        items="over_neutral",
        shift="rise",
        column=True,
        means="NLL of an answer of the same manner with neither pole, minus NLL of the pos answer, shift from base, in nats per token. Style alone does not raise it.",
    ),
    Declared(
        "trait_over_off_topic",
        14,
        items="over_off_topic",
        shift="rise",
        column=True,
        means="NLL of an answer with the pos pole's tone to another question, minus NLL of the pos answer, shift from base, in nats per token. Tone alone does not raise it.",
    ),
    Declared(
        "choice_pos",
        15,
        column=True,
        means="Share of probes whose pos answer is the likeliest per token among pos, neg, neutral and off-topic answer.",
    ),
)


@instrument("probes", scores=SCORES)
def probes(s: Subject) -> Items:
    chosen = s.probes
    answers = [given(p, third=s.config.third_answers) for p in chosen]
    ids = [[answer_ids(s.tok, text) for text in a.values()] for a in answers]
    nll = branch_nll(s.model, [s.prompt(p.question) for p in chosen], ids, batch_tokens=s.batch_tokens)
    items = items_of([dict(zip(a, values, strict=True)) for a, values in zip(answers, nll, strict=True)])
    return items | by_question(chosen, items["trait"])


def by_question(chosen: Sequence[Probe], trait: list[float]) -> Items:
    """The trait by kind of question; empty where all are of one kind."""
    kinds = dict.fromkeys(p.kind for p in chosen)
    if len(kinds) < 2:
        return {}
    return {f"trait.{k}": [v for p, v in zip(chosen, trait, strict=True) if p.kind == k] for k in kinds}


def items_of(nll: list[dict[str, float]]) -> Items:
    """Items from each probe's mean NLL per token by kind of answer."""
    items = {
        "trait": [a["neg"] - a["pos"] for a in nll],
        "nll_pos": [a["pos"] for a in nll],
        "nll_neg": [a["neg"] for a in nll],
    }
    for kind in ("neutral", "off_topic"):
        if any(kind in a for a in nll):
            items[f"over_{kind}"] = [a.get(kind, math.nan) - a["pos"] for a in nll]
    if any(len(a) == len(ANSWERS) for a in nll):
        items["choice_pos"] = [
            float(a["pos"] < min(a[k] for k in ANSWERS[1:])) if len(a) == len(ANSWERS) else math.nan
            for a in nll
        ]
    return items
