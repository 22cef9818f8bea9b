"""Steering that adapts as it writes: the decode loop with a dose that changes from token to token, all rows in one batch.

In: prompts, one dose each, what steers, a policy. Out: sampled token ids, how often each row went back, tokens read.

decay      the t-th token of an answer is read at dose · 2^(−t / half_life)
cap        every row is read twice a step, steered and unsteered, in one batch. The next token is drawn from
           log p ∝ ℓ₀ + s·(ℓ₁ − ℓ₀), with the largest s ≤ 1 for which KL(p‖p₀) ≤ cap_nats: to first order the
           dose is scaled by s, and the bound holds exactly
rewinding  the NLL of the last `window` tokens under the unsteered model is averaged. Where that leaves `band`, the row goes
           back to before those tokens and is written on from there at `shrink` times the dose, at most `rewinds` times

Invariants: without any of the three, and with a cap that is never reached, the tokens are those of `decode.sample`; with a
cap of 0 they are the unsteered ones; a row's tokens don't depend on the batch it travelled in. A model that is decoded
without a cache reads the whole text at the dose of its last token. The gate by cosine is an operation of its own.
Source: our own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from steer_heal_love.ground import replay, team
from steer_heal_love.ground.condition import Condition
from steer_heal_love.ground.decode import batches_as_alone, choose, prefill
from steer_heal_love.ground.hooks import Doses
from steer_heal_love.ground.memory import halving
from steer_heal_love.ground.operations import Steering
from steer_heal_love.ground.parts import head
from steer_heal_love.ground.policy import Policy, capped, left
from steer_heal_love.ground.progress import Advance, Track, silent
from steer_heal_love.ground.reading import select, way
from steer_heal_love.ground.scoring import last_hidden


@dataclass(frozen=True)
class Written:
    """Answers in the order of the prompts, how often each went back, and how many tokens the model read for all of them.

    `pairs`: of a token that was read and one that it attends to, itself among them. `predicted`: positions whose logits were
    computed. All count each row as read alone, without padding: what all rows begin with counts for each.
    """

    answers: list[tuple[int, ...]]
    rewinds: list[int]
    read: int
    pairs: int = 0
    predicted: int = 0


@dataclass(frozen=True)
class Draft:
    """A row under way: what is kept of its answer, the NLL of those tokens, its dose, how often it went back."""

    row: int
    dose: float
    kept: tuple[int, ...] = ()
    nll: tuple[float, ...] = ()
    attempt: int = 0


@dataclass
class Writer:
    """What all rows of a call share."""

    model: PreTrainedModel
    prompts: list[tuple[int, ...]]
    steering: Steering
    policy: Policy
    ends: frozenset[int]
    most: int
    uniforms: Float[Tensor, "n a t"]
    temperature: float
    min_p: float
    read: int = field(default=0)
    pairs: int = field(default=0)
    predicted: int = field(default=0)

    def text(self, d: Draft) -> tuple[int, ...]:
        return self.prompts[d.row] + d.kept

    def count(self, ends: list[int], fed: int | None = None) -> None:
        """Rows were read up to and with token `ends` (from 1): whole, or their last `fed` tokens, each of which chose one."""
        for n in ends:
            new = n if fed is None else fed
            self.read += new
            self.pairs += new * (2 * n - new + 1) // 2
            self.predicted += 1 if fed is None else fed


def written(
    model: PreTrainedModel,
    prompts: list[tuple[int, ...]],
    *,
    steering: Steering,
    doses: list[float],
    policy: Policy,
    when: Condition | None = None,
    ends: frozenset[int],
    max_new_tokens: int,
    seed: int,
    temperature: float = 1.0,
    min_p: float = 0.1,
    batch: int = 64,
    track: Track = silent,
    label: str = "generate",
) -> Written:
    """Sampled answers; temperature 0 takes the likeliest token. `ends`: tokens that close an answer. `when`: steer only the
    rows whose prompt meets this condition."""
    if when is not None:
        doses = when.doses(model, prompts, doses)
    w = Writer(
        model,
        prompts,
        steering,
        policy,
        ends,
        max_new_tokens,
        drawn(len(prompts), policy.rewinds + 1, max_new_tokens, seed),
        temperature,
        min_p,
    )
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    with team.sharing(order) as mine, track(label, len(mine)) as advance:
        done = finished(w, [Draft(row, doses[row]) for row in sorted(mine)], batch, advance)
    kept = [done[i].kept if i in done else () for i in range(len(prompts))]
    told = [torch.tensor([done[i].attempt if i in done else 0]) for i in range(len(prompts))]
    did: dict[str, float] = {"read": w.read, "pairs": w.pairs, "predicted": w.predicted}
    total = {name: int(n) for name, n in team.summed(did, list(did)).items()}
    rewinds = [int(t) for t in team.filled(told, mine)]
    return Written(team.answers(kept, mine), rewinds, **total)


def finished(w: Writer, todo: list[Draft], batch: int, advance: Advance) -> dict[int, Draft]:
    """Every draft as it ends, by its row."""
    done: dict[int, Draft] = {}
    while todo:
        fresh = attempted(w, todo, batch)
        todo = [again for d in fresh if (again := rewound(d, w)) is not None]
        back = {d.row for d in todo}
        done |= {d.row: d for d in fresh if d.row not in back}
        advance(len(fresh) - len(todo))
    return done


def drawn(rows: int, attempts: int, tokens: int, seed: int) -> Float[Tensor, "n a t"]:
    """Uniforms of every row and attempt; the first attempt's are those of `decode.sample`."""
    streams = [torch.Generator().manual_seed(seed * 1_000_003 + row) for row in range(rows)]
    each = [torch.stack([torch.rand(tokens, generator=s) for _ in range(attempts)]) for s in streams]
    return torch.stack(each) if each else torch.empty(0, attempts, tokens)


def attempted(w: Writer, todo: list[Draft], batch: int) -> list[Draft]:
    """Every draft written on until it ends, is long enough, or leaves the band."""
    texts = [w.text(d) for d in todo]
    order = sorted(range(len(todo)), key=lambda i: len(texts[i]))
    size = max(batch // 2, 1) if w.policy.twin else batch
    groups = [order[i : i + size] for i in range(0, len(order), size)]
    out: dict[int, Draft] = {}

    def write(rows: list[int]) -> None:
        out.update(zip(rows, write_on(w, [todo[i] for i in rows]), strict=True))

    halving([g for group in groups for g in batches_as_alone(w.model, texts, group, w.most)], write)
    return [out[i] for i in range(len(todo))]


def rewound(d: Draft, w: Writer) -> Draft | None:
    """The draft to write again, or None where it stays as it is."""
    at = left(d.nll, w.policy)
    if at is None or d.attempt >= w.policy.rewinds:
        return None
    good = max(at + 1 - w.policy.window, 0)
    return replace(
        d, kept=d.kept[:good], nll=d.nll[:good], dose=d.dose * w.policy.shrink, attempt=d.attempt + 1
    )


@torch.no_grad()
def write_on(w: Writer, drafts: list[Draft]) -> list[Draft]:
    """One group's drafts, in one loop over the tokens of all of them."""
    p, total = w.policy, max(w.most - len(d.kept) for d in drafts)
    start = torch.tensor([d.dose * p.factor ** len(d.kept) for d in drafts], device=w.model.device)
    rows = torch.cat([start, torch.zeros_like(start)]) if p.twin else start
    wide = max(len(w.text(d)) for d in drafts) + total
    with w.steering(w.model, rows) as doses:
        loop = Cached(w, drafts, doses, total) if wide <= way(w.model).cached else Again(w, drafts, doses)
        tokens, nll = loop.begin()
        while True:
            going = [i for i, d in enumerate(loop.drafts) if not loop.take(i, d, tokens[i], nll[i])]
            if not going:
                return [loop.done[d.row] for d in drafts]
            loop.keep(going)
            tokens, nll = loop.step()


class Loop:
    """Rows that are written together; `done` holds those that have left."""

    def __init__(self, w: Writer, drafts: list[Draft], doses: Doses) -> None:
        self.w, self.drafts, self.doses, self.done = w, list(drafts), doses, dict[int, Draft]()
        self.uniforms = torch.stack(
            [
                torch.nn.functional.pad(w.uniforms[d.row, d.attempt, len(d.kept) :], (0, len(d.kept)))
                for d in drafts
            ]
        ).to(w.model.device)
        self.at = 0

    def take(self, i: int, d: Draft, tokens: list[int], nll: list[float]) -> bool:
        """Add tokens to a draft up to where it ends or leaves the band; whether it does. Who can't be rewound any more goes on."""
        for token, value in zip(tokens, nll, strict=True):
            d = self.drafts[i] = replace(d, kept=(*d.kept, token), nll=(*d.nll, value))
            tail = replace(d, nll=d.nll[-self.w.policy.window :])
            out = d.attempt < self.w.policy.rewinds and left(tail.nll, self.w.policy) is not None
            if token in self.w.ends or len(d.kept) >= self.w.most or out:
                self.done[d.row] = d
                return True
        return False

    def keep(self, going: list[int]) -> Int[Tensor, " k"]:
        """Only these rows go on; their numbers among all that are read."""
        n, chosen = len(self.drafts), torch.tensor(going, device=self.w.model.device)
        every = torch.cat([chosen, chosen + n]) if self.w.policy.twin else chosen
        if len(going) < n:
            self.drafts = [self.drafts[i] for i in going]
            self.uniforms, self.doses.rows = self.uniforms[chosen], self.doses.rows[every]  # type: ignore[index]
        return every

    def pick(
        self, hidden: Float[Tensor, "m d"], uniform: Float[Tensor, " k"]
    ) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
        """The next token of every row, and its NLL under the unsteered model; 0 where that was not read."""
        w, logits = self.w, head(self.w.model, hidden)
        if not w.policy.twin:
            token = choose(logits, uniform, w.temperature, w.min_p)
            return token, torch.zeros_like(uniform)
        steered, plain = logits.chunk(2)
        if w.policy.cap_nats < math.inf:
            steered = capped(steered, plain, w.policy.cap_nats)
        token = choose(steered, uniform, w.temperature, w.min_p)
        return token, -plain.log_softmax(-1).gather(1, token[:, None]).squeeze(1)

    def begin(self) -> tuple[list[list[int]], list[list[float]]]:
        raise NotImplementedError

    def step(self) -> tuple[list[list[int]], list[list[float]]]:
        raise NotImplementedError

    def texts(self) -> list[tuple[int, ...]]:
        """What the model is to have read, each row twice where it is read unsteered too."""
        once = [self.w.text(d) for d in self.drafts]
        return once * 2 if self.w.policy.twin else once


class Cached(Loop):
    """With a key/value cache; on a GPU in spans of replayed steps."""

    def __init__(self, w: Writer, drafts: list[Draft], doses: Doses, total: int) -> None:
        super().__init__(w, drafts, doses)
        self.total = total

    def begin(self) -> tuple[list[list[int]], list[list[float]]]:
        texts = self.texts()
        self.even = way(self.w.model).manner(max(map(len, texts)) + self.total) == "equal"
        self.cache, self.mask, hidden = prefill(self.w.model, texts, self.total, self.doses)
        self.w.count(list(map(len, texts)))
        token, nll = self.pick(hidden, self.uniforms[:, 0])
        self.last, self.at = token, 1
        self.doses.rows = self.doses.rows * self.w.policy.factor
        return token[:, None].tolist(), nll[:, None].tolist()

    def take(self, i: int, d: Draft, tokens: list[int], nll: list[float]) -> bool:
        """`Loop.take`, which counts what it takes as read: a span may hold tokens after a row's end. The first token's
        reading is counted with the prompt."""
        before = len(self.w.text(d))
        over = super().take(i, d, tokens, nll)
        new = len(self.w.text(self.drafts[i])) - before
        if self.at > 1:
            self.w.count([before + new - 1] * (1 + self.w.policy.twin), new)
        return over

    def keep(self, going: list[int]) -> Int[Tensor, " k"]:
        fewer = len(going) < len(self.drafts)
        self.last = self.last[torch.tensor(going, device=self.last.device)]
        every = super().keep(going)
        if fewer:
            select(self.cache, every)
            self.mask = self.mask[every]
        return every

    def step(self) -> tuple[list[list[int]], list[list[float]]]:
        w, n, room = self.w, len(self.drafts), self.total - self.at
        nll = torch.zeros(n, room, device=w.model.device)
        rest, twice = self.uniforms[:, self.at :], 1 + w.policy.twin
        stop = torch.tensor(sorted(w.ends), device=w.model.device)

        def draw(hidden: Tensor, step: Tensor) -> Tensor:
            token, value = self.pick(hidden, rest.index_select(1, step).squeeze(1))
            nll.index_copy_(1, step, value[:, None])
            self.doses.rows.mul_(w.policy.factor)  # type: ignore[union-attr]
            return token.repeat(twice)

        ended = lambda chosen: torch.isin(chosen, stop).any(1)
        tokens, _ = replay.steps(
            w.model, self.cache, self.mask, self.last.repeat(twice), room, draw, ended, even=self.even
        )
        self.mask = torch.cat([self.mask, self.mask.new_ones(tokens.shape)], 1)
        self.at += tokens.shape[1]
        self.last = tokens[:n, -1]
        return tokens[:n].tolist(), nll[:, : tokens.shape[1]].tolist()


class Again(Loop):
    """Every row read whole for every token, for a model that doesn't go on from its own cache as it reads."""

    def begin(self) -> tuple[list[list[int]], list[list[float]]]:
        return self.step()

    def step(self) -> tuple[list[list[int]], list[list[float]]]:
        texts = self.texts()
        self.w.count(list(map(len, texts)))
        token, nll = self.pick(last_hidden(self.w.model, texts), self.uniforms[:, self.at])
        self.at += 1
        self.doses.rows = self.doses.rows * self.w.policy.factor
        return token[:, None].tolist(), nll[:, None].tolist()
