"""Whether a row's numbers depend on the batch it travels in, with a prompt past the sliding window where there is one."""

from __future__ import annotations

from steer_heal_love.doctor import Finding, Patient, check
from steer_heal_love.ground.scoring import hidden_states


@check("batch = single", 5)
def batch(p: Patient) -> Finding:
    together = hidden_states(p.model, p.sequences, batch_tokens=10**6)
    longest = max(map(len, p.prompts))
    window = f", past the window of {p.window}" if 0 < p.window < longest else ""
    if p.window >= longest:
        window = f"; the window of {p.window} was not reached"
    return p.same(
        "batch = single",
        f"three rows together, up to {longest} tokens{window}",
        p.kl_nats(together, p.reference),
        "answers in a batch would be others than alone: this architecture is not supported",
    )
