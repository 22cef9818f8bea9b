"""The table of outcomes as a page: `python -m steer_heal_love.gates.page > docs/verdicts.md`."""

from __future__ import annotations

from steer_heal_love.gates import in_order
from steer_heal_love.gates.certificate import CLAIM

HEAD = """# Verdicts

What a run can say against or for itself: every outcome of every gate, what it looks like in the run's numbers, what
it says, and what to try. The run's own numbers select the row; `summary.json`, the report and the terminal show the
row with its evidence. Coherence is judged first; ratios are read only for coherent text. Intervals are
95% intervals, paired by item; where a verdict reads several, they are widened so that together they are wrong in at
most 5% of runs. That the filter can tell babble from the rest at all is shown on a labelled set ([coherence](coherence/README.md)). The last
table, certificate, is that of `shl certify` ([certify](certify.md)), and no gate of a run.

Printed by `python -m steer_heal_love.gates.page`; a test holds this page to the code.
"""


def markdown() -> str:
    """The whole page."""
    parts = [HEAD]
    for name, gate in {**in_order(), "certificate": CLAIM}.items():
        rows = "\n".join(
            f"| {outcome.replace('_', ' ')} | **{r.verdict}** | {r.looks} | {r.says} | {r.tries} |"
            for outcome, r in gate.rows.items()
        )
        parts.append(
            f"## {name}\n\n*{gate.claim}*\n\n| outcome | verdict | what it looks like | what it says | what to try |\n"
            f"|---|---|---|---|---|\n{rows}\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    print(markdown(), end="")
