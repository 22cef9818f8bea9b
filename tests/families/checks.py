"""What must hold of every family: numbers of a batch are those of its rows alone, whatever the padding, cache or tree.

The truth is one row, whole, without padding and without a cache, through the library's own model; nothing of it is ours.
Each check returns the largest distance found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steer_heal_love.ground import parts
from steer_heal_love.ground.branching_cache import BranchingCache
from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.hooks import adapted, added
from steer_heal_love.ground.scoring import answer_hidden, pack, token_nll
from steer_heal_love.ground.states import states
from steer_heal_love.ground.trees import branch_nll
from steer_heal_love.ground.weights import folded
from steer_heal_love.heal.lora import fresh
from steer_heal_love.nouns import Adapter, Tokens

START, OWN, MORE = 9, (21, 3, 34, 21), 5
"""tokens that prompts begin with alike, that each goes on with, and of an answer: longer than any window of the zoo"""
SEED = 1
"""of the rows"""
LAYERS = [1, 2]
STEPS = (3e-3, 1e-3, 3e-4, 1e-4)
"""of all factors together, along the gradient"""
ROUNDING = 0.02
"""share of a slope that fp32's rounding of a loss can make of its differences over such steps"""


@dataclass
class Rows:
    """A model, its prompts and answers, and what it makes of one row alone."""

    model: PreTrainedModel
    tok: PreTrainedTokenizerBase
    prompts: list[tuple[int, ...]] = field(init=False)
    answers: list[tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        draw = torch.Generator().manual_seed(SEED)
        row = lambda n: tuple(torch.randint(3, len(self.tok), (n,), generator=draw).tolist())
        start = row(START)
        self.prompts = [start + row(n) for n in OWN]
        self.answers = [row(MORE) for _ in OWN]

    def logits(self, ids: tuple[int, ...]) -> Tensor:
        ids = torch.tensor([ids], device=self.model.device)
        return self.model(input_ids=ids, use_cache=False).logits[0].float().cpu()

    def nll(self, prompt: tuple[int, ...], answer: tuple[int, ...]) -> Tensor:
        logp = self.logits(prompt + answer).log_softmax(-1)[len(prompt) - 1 : -1]
        return -logp.gather(1, torch.tensor(answer)[:, None])[:, 0]

    def greedy(self, prompt: tuple[int, ...], n: int) -> tuple[int, ...]:
        out: tuple[int, ...] = ()
        for _ in range(n):
            out += (int(self.logits(prompt + out)[-1].argmax()),)
        return out

    @torch.no_grad()
    def at_tag(self, prompt: tuple[int, ...], layer: int) -> Tensor:
        found = []
        look = lambda _m, _a, out: found.append(parts.stream(self.model, out)[0, -1].float().cpu())
        handle = parts.layers(self.model)[layer].register_forward_hook(look)
        self.logits(prompt)
        handle.remove()
        return found[0]


def far(found: Tensor, truth: Tensor) -> float:
    found, truth = found.float().cpu(), truth.float().cpu()
    return ((found - truth).norm() / truth.norm()).item()


def answers(r: Rows) -> float:
    """How many greedy tokens of a batch are not those of the rows alone."""
    found = sample(r.model, r.prompts, ends=frozenset(), max_new_tokens=MORE, seed=0, temperature=0)
    return sum(
        a != b
        for f, p in zip(found, r.prompts, strict=True)
        for a, b in zip(f, r.greedy(p, MORE), strict=True)
    )


def ends(r: Rows) -> float:
    """The same where a row that has ended leaves the batch."""
    truth = [r.greedy(p, MORE) for p in r.prompts]
    stop = truth[0][1]
    cut = [t[: t.index(stop) + 1] if stop in t else t for t in truth]
    found = sample(r.model, r.prompts, ends=frozenset({stop}), max_new_tokens=MORE, seed=0, temperature=0)
    return float(found != cut)


def likelihood(r: Rows) -> float:
    found = token_nll(r.model, [Tokens(p, a) for p, a in zip(r.prompts, r.answers, strict=True)])
    return max(far(f, r.nll(p, a)) for f, p, a in zip(found, r.prompts, r.answers, strict=True))


def at_tag(r: Rows) -> float:
    """Hidden states from which the vector is read."""
    found = states(r.model, r.prompts, LAYERS, 4096)
    return max(far(found[i][k], r.at_tag(p, i)) for i in LAYERS for k, p in enumerate(r.prompts))


def branches(r: Rows) -> float:
    pairs = [[a, a[:2] + b[2:], b] for a, b in zip(r.answers, r.answers[1:] + r.answers[:1], strict=True)]
    found = branch_nll(r.model, r.prompts, pairs)
    truth = [[r.nll(p, b).mean().item() for b in pair] for p, pair in zip(r.prompts, pairs, strict=True)]
    return far(torch.tensor(found), torch.tensor(truth))


def branching_cache(r: Rows) -> float:
    """Read, thought on, branched and fed."""
    s = BranchingCache.prefill(r.model, r.prompts)
    thought = s.think(3, frozenset())
    wrong = [t != r.greedy(p, 3) for t, p in zip(thought, r.prompts, strict=True)]
    s.fork(2)
    rows = [p + t for p, t in zip(r.prompts, thought, strict=True) for _ in (0, 1)]
    texts = [a[: 2 + k % 3] for k, a in enumerate(a for a in r.answers for _ in (0, 1))]
    nll = max(far(f, r.nll(p, t)) for f, p, t in zip(s.feed(texts), rows, texts, strict=True))
    last = torch.stack([r.logits(p + t)[-1] for p, t in zip(rows, texts, strict=True)])
    return max(float(any(wrong)), nll, far(parts.head(r.model, s.hidden), last))


def doses(r: Rows) -> float:
    """Greedy tokens under a dose a row that are not those of the row alone under its dose; a dose must change something."""
    width = parts.body(r.model).config.hidden_size
    draw = torch.Generator().manual_seed(2)
    steer = {i: 3 * torch.randn(width, generator=draw) for i in LAYERS}
    each = [0.0, 1.0, 0.5, 1.0]
    found = sample(
        r.model,
        r.prompts,
        ends=frozenset(),
        max_new_tokens=MORE,
        seed=0,
        temperature=0,
        steer=steer,
        doses=each,
    )
    wrong, moved = 0, False
    for f, p, dose in zip(found, r.prompts, each, strict=True):
        with added(r.model, steer, dose):
            wrong += f != r.greedy(p, MORE)
        moved |= f != r.greedy(p, MORE)
    return float(wrong or not moved)


def adapter(model: PreTrainedModel) -> Adapter:
    start = fresh(model, rank=2, alpha=4.0, share=(0.2, 0.8), seed=0)
    draw = torch.Generator().manual_seed(3)
    made = {n: (a, 0.1 * torch.randn(b.shape, generator=draw)) for n, (a, b) in start.factors.items()}
    return Adapter(made, start.scaling)


def folding(r: Rows) -> float:
    """The adapter as hooks and folded into the weights; it must change something, and leave no trace."""
    a, row = adapter(r.model), r.prompts[0]
    before = r.logits(row)
    with adapted(r.model, a.factors, a.scaling):
        live = r.logits(row)
    with folded(r.model, [a]):
        fold = r.logits(row)
    clean = torch.equal(before, r.logits(row))
    return max(far(fold, live), float(not clean), float(far(live, before) < 1e-3))


def training(r: Rows) -> float:
    """The gradient through right-padded rows against the gradient of the rows alone, and that against differences."""
    a = adapter(r.model)
    factors = [b.requires_grad_(True) for _, b in a.factors.values()]
    pairs = [Tokens(p, t) for p, t in zip(r.prompts, r.answers, strict=True)]
    alone = lambda: torch.cat([r.nll(s.prompt, s.answer) for s in pairs]).mean()
    with adapted(r.model, a.factors, a.scaling):
        batch = pack(pairs, r.model.device)
        logits = parts.head(r.model, answer_hidden(r.model, batch))
        found = gradient(torch.nn.functional.cross_entropy(logits, batch.targets), factors)
        truth = gradient(alone(), factors)
        flat = lambda each: torch.cat([g.flatten() for g in each])
        return far(flat(found), flat(truth)) + unlike_differences(alone, factors, truth)


def gradient(loss: Tensor, factors: list[Tensor]) -> list[Tensor]:
    """Zero for what only chooses keys or experts: it has no slope."""
    found = torch.autograd.grad(loss, factors, allow_unused=True)
    return [torch.zeros_like(f) if g is None else g for f, g in zip(factors, found, strict=True)]


def unlike_differences(loss: Callable[[], Tensor], factors: list[Tensor], grads: list[Tensor]) -> float:
    """By how much more than rounding makes the loss's slope along its gradient departs from its differences.

    A step over a router's edge, where another expert is chosen, jumps to one side alone: the step counts whose two
    sides agree best.
    """
    slope = torch.cat([g.flatten() for g in grads]).norm().item()

    def at(step: float) -> float:
        for f, g in zip(factors, grads, strict=True):
            f.requires_grad_(False).add_(step / slope * g)
        found = loss().item()
        for f, g in zip(factors, grads, strict=True):
            f.sub_(step / slope * g)
        return found

    here = at(0.0)
    sides = [((at(step) - here) / step / slope, (here - at(-step)) / step / slope) for step in STEPS]
    right, left = min(sides, key=lambda side: abs(side[0] - side[1]))
    gap = abs((right + left) / 2 - 1)
    return 0.0 if gap <= ROUNDING else gap


CHECKS = {
    f.__name__: f
    for f in (answers, ends, likelihood, at_tag, branches, branching_cache, doses, folding, training)
}
CLOSE = 1e-3


def failing(model: PreTrainedModel, tok: PreTrainedTokenizerBase) -> dict[str, float]:
    """The checks that don't hold, with the distance found."""
    r = Rows(model, tok)
    found = {name: check(r) for name, check in CHECKS.items()}
    return {name: gap for name, gap in found.items() if not gap <= CLOSE}
