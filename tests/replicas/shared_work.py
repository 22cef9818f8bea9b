"""What a leader and its follower compute in `test_team.py`: every function that shares rows, on the tiny model.

Run as a program it is the follower. Both do the same calls in the same order.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from steer_heal_love import follower
from steer_heal_love.config import HealConfig
from steer_heal_love.ground import team
from steer_heal_love.ground.adaptive import written
from steer_heal_love.ground.answers import answer_means
from steer_heal_love.ground.decode import sample
from steer_heal_love.ground.divergence import forward_kl
from steer_heal_love.ground.hooks import adapted, added
from steer_heal_love.ground.models import head
from steer_heal_love.ground.operations import Steering
from steer_heal_love.ground.policy import Policy
from steer_heal_love.ground.scoring import hidden_states, log_likelihood, token_nll, token_order
from steer_heal_love.ground.state_cache import StateCache, from_states
from steer_heal_love.ground.states import states
from steer_heal_love.ground.trees import branch_nll
from steer_heal_love.heal.diagnostics import validate
from steer_heal_love.heal.examples import Example
from steer_heal_love.heal.lora import fresh
from steer_heal_love.heal.optimise import Trainer
from steer_heal_love.nouns import Tokens
from tiny_model import build_model, build_tokenizer

ROWS, ENDS = 11, frozenset({2})
"""an odd number of rows, so that no two processes have as many"""
CONFIG = HealConfig(
    rank=2, alpha=4.0, batch=5, micro_batch=2, soft=0.5, lam=0.3, tau=0.0, aggregate="mean", anchor=0.7
)


class Work:
    """The tiny model, rows of unlike length, and what is computed on them."""

    def __init__(self) -> None:
        tok = build_tokenizer()
        self.model = build_model(len(tok), tok.eos_token_id)
        draw = torch.Generator().manual_seed(5)
        ids = lambda n: tuple(torch.randint(3, len(tok), (n,), generator=draw).tolist())
        self.rows = [Tokens(ids(3 + (7 * i) % 10), ids(1 + (5 * i) % 8)) for i in range(ROWS)]
        self.prompts = [r.prompt for r in self.rows]
        self.directions = {2: torch.randn(32, generator=draw), 4: torch.randn(32, generator=draw)}
        self.doses = [(0.0, 0.3, 1.0)[i % 3] for i in range(ROWS)]

    def answers(self, temperature: float) -> list[tuple[int, ...]]:
        return sample(
            self.model,
            self.prompts,
            ends=ENDS,
            max_new_tokens=12,
            seed=4,
            steer=self.directions,
            doses=self.doses,
            temperature=temperature,
            batch=4,
        )

    def adapting(self) -> tuple[list[tuple[int, ...]], list[int], int]:
        policy = Policy(half_life=6.0, rewinds=2, window=2, band=(2.0, 3.0))
        made = written(
            self.model,
            self.prompts,
            steering=Steering(self.directions, "add"),
            doses=self.doses,
            policy=policy,
            ends=ENDS,
            max_new_tokens=10,
            seed=4,
            batch=8,
        )
        return made.answers, made.rewinds, made.read

    def readings(self) -> dict[str, list[torch.Tensor]]:
        branches = [[r.answer, (*r.answer[:1], 7), (9,)] for r in self.rows]
        at = states(self.model, self.prompts, [1, 3], 64)
        return {
            "token_nll": token_nll(self.model, self.rows, batch_tokens=64),
            "token_order": token_order(self.model, self.rows, batch_tokens=64),
            "hidden_states": hidden_states(self.model, self.rows, batch_tokens=64),
            "answer_means": list(answer_means(self.model, self.rows, 2, batch_tokens=64)),
            "states": [at[1], at[3]],
            **self.from_cached_states(),
            "branch_nll": [
                torch.tensor(v) for v in branch_nll(self.model, self.prompts, branches, batch_tokens=64)
            ],
        }

    @torch.no_grad()
    def from_cached_states(self) -> dict[str, list[torch.Tensor]]:
        """What follows from the states of two models over the same answers, read at different times and after different
        prompts, and from those that every process has."""
        cache, kl = StateCache(), lambda p, q: forward_kl(head(self.model, p), head(self.model, q))
        read = lambda name, rows: cache.read(name, self.model, rows, batch_tokens=64)
        base, whole = read("base", self.rows), hidden_states(self.model, self.rows)
        with added(self.model, self.directions, 0.5):
            few = read("", [r._replace(prompt=r.prompt[1:]) for r in self.rows[::2]])
        targets = [torch.tensor(r.answer) for r in self.rows]
        return {
            "nll from states": from_states(
                self.model, [base, targets], lambda h, y: -log_likelihood(self.model, h, y)
            ),
            "divergence from states": from_states(self.model, [read("base", self.rows[::2]), few], kl),
            "beside whole states": from_states(self.model, [[1.1 * h for h in whole], base], kl),
        }

    def examples(self) -> list[Example]:
        """Each with a reference and a teacher that are not the model's own states, so that every term has a gradient."""
        found = hidden_states(self.model, self.rows)
        return [
            Example(r, h * 1.1, str(i), teacher=h * 0.9)
            for i, (r, h) in enumerate(zip(self.rows, found, strict=True))
        ]

    def step(self, kept: int, anchors: int) -> tuple[dict[str, float], list[torch.Tensor], dict[str, float]]:
        """One step's terms and gradient, and what is read of held-out rows."""
        examples = self.examples()
        adapter = fresh(self.model, rank=2, alpha=4.0, share=(0.2, 0.8), seed=0)
        for n, (_, b) in enumerate(adapter.factors.values()):
            b.copy_(0.05 * torch.randn(b.shape, generator=torch.Generator().manual_seed(n)))
        trainer = Trainer(self.model, adapter, CONFIG, 10)
        with adapted(self.model, adapter.factors, adapter.scaling):
            terms = trainer.gradient(examples[:kept], examples[kept : kept + anchors])()
            held = validate(self.model, examples[:3], examples[3:6], CONFIG, 64)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in trainer.parameters]
        trainer.end()
        return terms, grads, held

    def all(self) -> dict[str, Any]:
        return {
            "greedy": self.answers(0.0),
            "sampled": self.answers(1.0),
            "adapting": self.adapting(),
            "readings": self.readings(),
            "step": self.step(5, 4),
            "lone step": self.step(1, 0),
            "nothing": token_nll(self.model, []),
        }


def main() -> None:
    told = follower.parsed(None)
    torch.set_num_threads(1)
    with follower.joined(told):
        work = Work()
        work.all()
        team.wait()
        token_nll(work.model, work.rows[:1])  # the leader kills this process here
        team.wait()


if __name__ == "__main__":
    main()
