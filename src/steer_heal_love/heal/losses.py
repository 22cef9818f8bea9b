"""One step's loss: the terms of kept completions and anchor answers, and their gradient into the factors."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.config import HealConfig
from steer_heal_love.ground import team
from steer_heal_love.ground.devices import sent
from steer_heal_love.ground.scoring import size
from steer_heal_love.heal.examples import Example, answer_ids, tokens
from steer_heal_love.heal.loss import token_terms
from steer_heal_love.heal.student import Student
from steer_heal_love.heal.terms import Term, in_order, terms


def backward(
    model: PreTrainedModel,
    kept: list[Example],
    anchor: list[Example],
    config: HealConfig,
    weights: dict[str, float],
    student: Student | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Add one step's gradient to the factors', at most `micro_batch` completions and as many anchors at a time; the
    terms' means over the step, on the model's device. In a team (`ground.team`) both are this process's part of a sum
    over all."""
    means: dict[str, Tensor] = {}
    for part, extra in parts_of(kept, anchor, config.micro_batch):
        found, _ = losses(model, part, extra, config, student)
        shares = {name: share(terms[name], (part, kept), (extra, anchor)) for name in found}
        loss = sum(weights[name] * shares[name] * value for name, value in found.items() if weights[name])
        if isinstance(loss, Tensor):
            loss.backward()
        for name, value in found.items():
            means[name] = means.get(name, 0.0) + shares[name] * value.detach()
    return means


def parts_of(kept: list[Example], anchor: list[Example], most: int) -> Iterator[Part]:
    """This process's share of a step, `most` of either kind at a time; a team's shares take about as long as each other."""
    if team.size() > 1:
        kept, anchor = dealt(kept, anchor, team.size())[team.rank()]
    n = math.ceil(max(len(kept), len(anchor)) / most)
    yield from ((kept[i::n], anchor[i::n]) for i in range(n))


def dealt(kept: list[Example], anchor: list[Example], processes: int) -> list[Part]:
    """What each of so many processes reads of a step: the longest text first, each to whoever has the fewest tokens yet,
    and as many of either kind to all, to within one."""
    hands: list[Part] = [([], []) for _ in range(processes)]
    loads = [0] * processes
    most = [math.ceil(len(part) / processes) for part in (kept, anchor)]
    texts = [(size(e.tokens), kind, e) for kind, part in enumerate((kept, anchor)) for e in part]
    for length, kind, e in sorted(texts, key=lambda text: (-text[0], text[1])):
        i = min((i for i in range(processes) if len(hands[i][kind]) < most[kind]), key=loads.__getitem__)
        hands[i][kind].append(e)
        loads[i] += length
    return hands


Part = tuple[list[Example], list[Example]]
"""two lists of examples: of either kind, or some and all of the step that they are of"""


def share(term: Term, kept: Part, anchor: Part) -> float:
    """How much of the step a part is, to this term."""
    part, whole = kept if term.on == "kept" else anchor
    return term.share(part) / max(1, term.share(whole))


def losses(
    model: PreTrainedModel,
    kept: list[Example],
    anchor: list[Example],
    config: HealConfig,
    student: Student | None = None,
) -> tuple[dict[str, Float[Tensor, ""]], Float[Tensor, "t d"]]:
    """The unweighted terms, and the hidden states they were read from. `student` reads them, in padded rows if not said."""
    hidden = (student or Student(model, within=False)).answers(kept, anchor)
    targets, n = sent(answer_ids(kept + anchor), hidden.device), tokens(kept)
    found: dict[str, Float[Tensor, ""]] = {}
    for on, part, at in (("kept", kept, slice(0, n)), ("anchor", anchor, slice(n, None))):
        if part:
            wanted = [t for t in in_order() if t.on == on and t.active(config)]
            found |= values(model, wanted, part, config, hidden[at], targets[at])
    return found, hidden


def values(
    model: PreTrainedModel,
    wanted: list[Term],
    part: list[Example],
    config: HealConfig,
    hidden: Float[Tensor, "t d"],
    targets: Int[Tensor, " t"],
) -> dict[str, Float[Tensor, ""]]:
    """These terms of one kind of text, from the student's final hidden states over it."""
    references = {}
    for t in wanted:
        if compared := t.comparison(config):
            theirs, apart = compared
            given = [states for e in part if (states := theirs(e)) is not None]
            references[t.name] = stack(given, hidden), apart
    hard = [t for t in wanted if t.name not in references]
    learned = any(t.weight(config) for t in hard)
    nll, *found = token_terms(
        model, hidden, targets if hard else None, *references.values(), learn_nll=learned
    )
    each = dict(zip(references, found, strict=True))
    return {t.name: t.reduce(each.get(t.name, nll), part, config) for t in wanted}


def stack(states: list[Tensor], like: Tensor) -> Float[Tensor, "t d"]:
    return torch.cat(states).to(like.device, like.dtype)
