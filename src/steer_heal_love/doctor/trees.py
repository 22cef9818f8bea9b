"""Whether answers read as branches of one tree have the NLL that they have one by one."""

from __future__ import annotations

from steer_heal_love.doctor import Finding, Patient, check
from steer_heal_love.ground.chat import answer_ids
from steer_heal_love.ground.scoring import token_nll
from steer_heal_love.ground.trees import branch_nll
from steer_heal_love.nouns import Tokens


@check("trees", 9)
def trees(p: Patient) -> Finding:
    answers = [answer_ids(p.tok, a) for a in ("It is good.", "It is good to wait.", "Nobody knows that.")]
    prompts = p.prompts[:2]
    found = branch_nll(p.model, prompts, [answers, answers[:2]])
    flat = [Tokens(prompts[0], a) for a in answers] + [Tokens(prompts[1], a) for a in answers[:2]]
    plain = [token_nll(p.model, [s])[0].mean().item() for s in flat]
    worst = max(abs(a - b) for a, b in zip([*found[0], *found[1]], plain, strict=True))
    return p.same(
        "trees",
        f"NLL of {len(flat)} answers as branches and alone",
        worst,
        "probes and vignettes would be misread: this architecture is not supported",
    )
