"""Text from outside as a terminal may show it: what would move the cursor, reorder or hide text stands there escaped.

In: any text (a name, a key, a message). Out: the same with C0 and C1 controls, line and paragraph separators,
bidirectional controls, invisible format characters and lone surrogates written as Python escapes, such as `\\x1b`.
Letters of every script, emoji and their joiners stay. Identity: showing what is shown changes nothing.
"""

from __future__ import annotations

import re

HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks, embeddings, overrides, isolates
    "\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb"  # no width, no glyph
    "\u2028\u2029\ud800-\udfff\U000e0000-\U000e0fff]"  # separators, lone surrogates, tags
)


def shown(text: object, *, lines: bool = False) -> str:
    """`text` on one line, safe to print; with `lines`, line ends and tabs stay as they are."""
    kept = "\n\t" if lines else ""
    return HIDDEN.sub(lambda m: m[0] if m[0] in kept else escaped(m[0]), str(text))


def escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
