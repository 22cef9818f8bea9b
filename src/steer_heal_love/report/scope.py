"""What a run measured less of than a study does, and how wide its intervals therefore are.

In: a run's own settings. Out: sentences; none for a run that measures as much as the default settings do. An interval of
a mean over n items is about √(N/n) times as wide as one over N.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import asdict

from steer_heal_love.config import RunConfig
from steer_heal_love.nouns import Json
from steer_heal_love.report.read import RunRecord

STUDY = asdict(RunConfig())
ITEMS = {
    "probes": ("held-out probes", "on the trait"),
    "neutral_prompts": ("neutral prompts", "on drift"),
    "sample_prompts": ("questions answered freely", "on the model's own text"),
}
"""settings that say how much is measured: of what, and what it is read for"""
SWITCHES = {
    "nulls": "what a bias or a temperature alone would reach",
    "wordings": "the search for the best system prompt",
    "third_answers": "the probes' answers without either pole and to another question",
}
"""what can be switched off"""
PANELS = {
    "relevance": "whether answers stay with their questions",
    "vignettes": "the moral vignettes",
    "capability": "the panel of sums, facts and formats",
    "behaviour": "a classifier's reading of the model's own text",
    "own_kl": "the distance from the base along the model's own text",
    "text_auc": "whether its text can be told from the base's",
}
"""default instruments that a short run leaves out"""


def left_out(run: RunRecord) -> list[str]:
    """What is missing, what that does to the intervals, and the command of the full study."""
    own, study = run.config.get("eval", {}), STUDY["eval"]
    there = probes_there(run)
    few = 0 < there < own.get("probes", study["probes"])
    own = own | {"probes": there} if few else own
    fewer = {name: (own[name], study[name]) for name in ITEMS if 0 < own.get(name, study[name]) < study[name]}
    missing = [what for name, what in PANELS.items() if name not in (own.get("instruments") or PANELS)]
    missing += [what for name, what in SWITCHES.items() if not own.get(name, True)]
    if own.get("transfer") == "off":
        missing.append("whether the healed model moved along the steering vector")
    if not fewer and not missing:
        return []
    also = {"probes": ", all that the persona has"} if few else {}
    counts = [f"{n} of {most} {ITEMS[name][0]}{also.get(name, '')}" for name, (n, most) in fewer.items()]
    less = round_count(run.config) + counts
    said = [f"This run measured less than a full study: {together(less)}."] if less else []
    if missing:
        said.append(f"Not run: {together(missing)}.")
    if fewer:
        wider = [
            f"by about {math.sqrt(most / n):.1f} times {ITEMS[name][1]}" for name, (n, most) in fewer.items()
        ]
        said.append(f"With fewer items its intervals are wider: {together(wider)}.")
    return [*said, f"The full study: {command(run)}"]


def probes_there(run: RunRecord) -> int:
    """How many probes were measured: a persona may have fewer than the settings ask for. 0 before any was."""
    return len(run.stages[0].items.get("trait", [])) if run.stages else 0


def round_count(config: Json) -> list[str]:
    """How many rounds, where they are fewer."""
    n, most = config.get("rounds", STUDY["rounds"]), STUDY["rounds"]
    return [f"{n} of {most} rounds"] if n < most else []


def together(parts: list[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(parts[:-1])] * (len(parts) > 1) + parts[-1:])


def command(run: RunRecord) -> str:
    """The same persona, model and seed with the settings of a study."""
    named = {name: run.config.get(name, STUDY[name]) for name in ("persona", "model", "seed")}
    return shlex.join(
        ["shl", "run", *(w for name, value in named.items() for w in (f"--{name}", str(value)))]
    )
