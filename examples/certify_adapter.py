"""Measure an adapter that somebody else made: did it move the trait, and what did that cost?

    python examples/certify_adapter.py ADAPTER

ADAPTER is a folder with a plain LoRA in PEFT's form. Nothing in it is executed: weights are read from safetensors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from steer_heal_love import cli

SHOWN = {
    "trait_shift": "trait, held-out probes (nats per token)",
    "trait_pos": "  the pos answers became likelier by",
    "trait_neg": "  the neg answers became less likely by",
    "neutral_kl": "drift on neutral prompts (nats per token)",
    "own_excess": "how much odder the base finds its text (nats per token)",
    "own_kl": "how far it is from the base along its text (nats per token)",
}


def main(adapter: str, *options: str, out: str = "scores.json") -> dict[str, dict[str, float]]:
    """Print the scores that matter, and return all of them. `options` are those of `shl eval`."""
    # `shl certify` asks more questions, and gives a verdict on each. This only measures.
    command = ["eval", "--adapter", adapter, "--persona", "love", *options]
    cli.dispatch([*command, "--out", out])
    scores = json.loads(Path(out).read_text())["scores"]
    for name, words in SHOWN.items():
        if name in scores:
            s = scores[name]
            print(f"{words:<62} {s['mean']:+.3f} [{s['lo']:+.3f}, {s['hi']:+.3f}]")
    return scores


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("give the folder of an adapter")
    main(*sys.argv[1:])
