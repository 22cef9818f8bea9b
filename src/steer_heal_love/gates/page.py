"""The table of outcomes as a page: `python -m steer_heal_love.gates.page > docs/verdicts.md`."""

from __future__ import annotations

from steer_heal_love.gates import coherence, in_order
from steer_heal_love.gates.certificate import CLAIM

HEAD = """# Verdicts

A *gate* is a claim about a run. Each table below lists the possible outcomes of one gate: what an outcome looks like in
the run's numbers, what it means, and what to try. The run's own numbers choose the outcome. Where several apply, a gate
shows the first that holds, in this order: incoherent text, no trait, what else is wrong with the claim, the claim holds.
The rows of a table are not in that order. `summary.json`, the report and the terminal show the outcome with its evidence.

- **Confidence.** Intervals are 95% intervals, paired by item. Where a verdict reads several, they are corrected to
  hold together at 95%. *Holds zero* means that the interval includes zero: the data can't tell.
- **Scores** such as trait_shift, neutral_kl and own_excess are defined in [reading a report](reading-a-report.md).
  The *halves* are trait_pos and trait_neg. A *foundation* is one of the moral foundations, read after short moral scenes
  (vignettes). *Scaled to the same neutral_kl* says what the steered base would have if it were steered less. It isn't
  measured, but computed: its trait times √(healed model's neutral_kl / steered base's neutral_kl). This assumes that the
  trait grows with the dose, and the drift with the dose's square. The *steered base* is the steered model of the first
  round. The *evidence* is the line beside the verdict.
- **Settings** such as heal.soft are explained in [settings](settings.md) and by `shl run --help`.

The last table, certificate, belongs to `shl certify` ([certify](certify.md)). There *half* passes, unlike in a gate: the
certificate asks whether the trait is in the model, and names the half that isn't shown. How well the filter tells babble
from coherent text was measured on [a labelled set](coherence/README.md).

This page is printed by `python -m steer_heal_love.gates.page`, and a test compares it with the code.
"""

COHERENCE = """Five tables share these three outcomes, which compare the model's own text with the base's. They are judged first:
where one of them applies, a gate says nothing else."""
SEE = "see [coherence](#coherence)"


def markdown() -> str:
    """The whole page. What the rows of coherence look like is said once, and linked to."""
    once = coherence.rows("", "")
    patterns = "\n".join(f"| {name} | {row.pattern} |" for name, row in once.items())
    parts = [
        HEAD,
        f"## coherence\n\n{COHERENCE}\n\n| outcome | what it looks like |\n|---|---|\n{patterns}\n",
    ]
    for name, gate in {**in_order(), "certificate": CLAIM}.items():
        rows = "\n".join(
            f"| {outcome.replace('_', ' ')}: **{r.verdict}** | {SEE if outcome in once else r.pattern} | {r.says} | {r.tries} |"
            for outcome, r in gate.rows.items()
        )
        parts.append(
            f"## {name}\n\n*{gate.claim}*\n\n| outcome | what it looks like | what it says | what to try |\n"
            f"|---|---|---|---|\n{rows}\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    print(markdown(), end="")
