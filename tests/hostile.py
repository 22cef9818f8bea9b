"""Hostile files by kind, each drawn from a seed: what a hand that means harm, or an editor that means well, leaves.

Every case is a good file of its kind with one thing done to it, and says whether it must be refused. What may be
either way (a byte changed somewhere) is judged by what comes out: nothing but sound values.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tomli_w
import torch
from safetensors.torch import save

from steer_heal_love.nouns import FOUNDATIONS
from steer_heal_love.vector import SAYS
from steer_heal_love.vector.condition_file import SAYS as CONDITION

ODD = [
    "\x1b[2J",
    "\x9b31m",
    "\u202etxt",
    "\0",
    "\x07",
    "\u2066x",
    "[/b]",
    "[red]",
    "\ufeff",
    "\n",
    "{{7*7}}",
    "<script>",
]


@dataclass(frozen=True)
class Case:
    """A file of some kind, written under a folder; `must` it be refused?"""

    kind: str
    seed: int
    path: Path
    must: bool
    what: str


def persona() -> dict:
    return {
        "name": "calm",
        "axis": "calm versus haste",
        "pos": "a calm friend",
        "neg": "a hasty friend",
        "intent": {"Care": 1},
        "prompts": {"elicit": [f"What is {n}?" for n in "abcd"], "plain": [f"Name {n}." for n in "abcd"]},
        "probes": [
            {"question": f"Is it {n}?", "pos": f"Slowly {n}.", "neg": f"Quickly {n}."} for n in "abcd"
        ],
    }


def config() -> dict:
    return {"rounds": 2, "seed": 3, "heal": {"lr": 1e-3, "layers": [0.2, 0.8]}, "filter": {"checks": ["nll"]}}


def rows() -> list[dict]:
    people = {f"human_{f}": 10 + i for i, f in enumerate(FOUNDATIONS)}
    return [{"id": f, "foundation": f, "text": f"You see {f}."} | people for f in FOUNDATIONS]


Edit = Callable[[random.Random, dict], tuple[dict, bool]]


def leaf(draw: random.Random, table: dict) -> tuple[dict, str]:
    """A table somewhere in `table`, and a key of it."""
    here = table
    while True:
        key = draw.choice(sorted(here))
        inner = here[key]
        if isinstance(inner, list) and inner and isinstance(inner[0], dict):
            inner = draw.choice(inner)
        if not isinstance(inner, dict):
            return here, key
        here = inner


def with_value(value: object, must: bool) -> Edit:
    def edit(draw: random.Random, table: dict) -> tuple[dict, bool]:
        here, key = leaf(draw, table)
        here[key] = value
        return table, must

    return edit


def with_key(draw: random.Random, table: dict) -> tuple[dict, bool]:
    here, key = leaf(draw, table)
    here[key + draw.choice(["s", "_", "x"])] = here.pop(key)
    return table, True


def with_odd_text(draw: random.Random, table: dict) -> tuple[dict, bool]:
    here, key = leaf(draw, table)
    here[key] = f"x{draw.choice(ODD)}x"
    return table, False


def with_odd_key(draw: random.Random, table: dict) -> tuple[dict, bool]:
    here, _ = leaf(draw, table)
    here[draw.choice(ODD) + "key"] = 1
    return table, True


VALUES: list[Edit] = [
    with_value(True, False),
    with_value(float("nan"), True),
    with_value(float("-inf"), True),
    with_value(2**80, True),
    with_value([], False),
    with_value({"a": {"b": 1}}, True),
    with_value(["x", ["y"]], True),
    with_value("\x1b]0;x\x07", True),
    with_value("w " * 20_000, False),
    with_key,
    with_odd_text,
    with_odd_key,
]


def bytes_damaged(draw: random.Random, raw: bytes) -> tuple[bytes, bool]:
    """One thing done to the bytes of a file, whatever they mean."""
    at = draw.randrange(len(raw))
    return draw.choice(
        [
            lambda: (raw[:at], False),
            lambda: (raw[:at] + bytes([draw.randrange(256)]) + raw[at + 1 :], False),
            lambda: (b"", False),
            lambda: (raw[:at] + draw.randbytes(8) + raw[at:], False),
            lambda: (draw.randbytes(at + 1), False),
            lambda: (raw[:at] + b"\xff\xfe" + raw[at:], False),
            lambda: (raw[:at] + raw[at : at + 16] * 3 + raw[at:], False),
            lambda: (b"\x1b[2J" + raw, True),
            lambda: (raw + b"\0", True),
        ]
    )()


def text_damaged(draw: random.Random, text: str) -> tuple[bytes, bool]:
    """One thing done to the text of a file: its encoding, its nesting, its size."""
    return draw.choice(
        [
            lambda: (text.encode("utf-16"), True),
            lambda: (b"\xef\xbb\xbf" + text.encode(), False),
            lambda: (text.replace("\n", "\r\n").encode(), False),
            lambda: (b"x = " + b"[" * 40_000, True),
            lambda: (b'{"a":' * 40_000, True),
            lambda: (b"x = " + b"7" * 6_000, True),
            lambda: ((text + "\n# " + "x" * 5_000_000).encode(), False),
        ]
    )()


def made(kind: str, seed: int, folder: Path) -> Case:
    """The case of a kind and seed, written under `folder`."""
    draw = random.Random(f"{kind}-{seed}")
    path, must, what = KINDS[kind](draw, folder)
    return Case(kind, seed, path, must, what)


def plain_table(good: Callable[[], dict], name: str, as_text: Callable[[dict], str]):
    def make(draw: random.Random, folder: Path) -> tuple[Path, bool, str]:
        how = draw.choice(["value", "value", "value", "text", "bytes"])
        if how == "value":
            edit = draw.choice(VALUES)
            table, must = edit(draw, good())
            raw = as_text(table).encode("utf-8", "surrogatepass")
        elif how == "text":
            raw, must = text_damaged(draw, as_text(good()))
        else:
            raw, must = bytes_damaged(draw, as_text(good()).encode())
        (folder / name).write_bytes(raw)
        return folder / name, must and how != "bytes", how

    return make


def vignettes(draw: random.Random, folder: Path) -> tuple[Path, bool, str]:
    found, path = rows(), folder / "bank.jsonl"
    row = draw.choice(found)
    must, how = (
        True,
        draw.choice(
            ["nan", "true", "long", "surrogate", "control", "misspelt", "twice", "line", "bytes", "label"]
        ),
    )
    raw = None
    if how == "nan":
        row["human_Care"] = draw.choice([float("nan"), float("inf"), -1, "12,5", None, 2**80])
    elif how == "true":
        row[draw.choice(["human_Care", "id", "text"])] = True
    elif how == "long":
        row["text"] = "You see it. " * 2_000
    elif how == "surrogate":
        row["text"] = "You see \ud83d it."
    elif how == "control":
        row[draw.choice(["text", "id"])] = "x\x1b[2J\x00"
    elif how == "misspelt":
        row["fundation"] = row.pop("foundation")
    elif how == "twice":
        row["id"] = found[(found.index(row) + 1) % len(found)]["id"]
    elif how == "label":
        row["foundation"] = draw.choice([3, "Joy\x9b", ["Care"], {}, "Care\u202e"])
    text = "\n".join(json.dumps(r) for r in found)
    if how == "line":
        text += "\n" + draw.choice(["{", "[1]", '{"id": "a", "id": "b"}', "[" * 50_000, "\x1b[2J", '"x"'])
    if how == "bytes":
        raw, must = bytes_damaged(draw, text.encode())[0], False
    path.write_bytes(text.encode() if raw is None else raw)
    return path, must, how


def packed(
    tensors: dict[str, torch.Tensor], metadata: dict[str, str], draw: random.Random, edit: dict | None
) -> bytes:
    raw = save(tensors, metadata=metadata)
    if edit is None:
        return raw
    (n,) = struct.unpack("<Q", raw[:8])
    told = json.loads(raw[8 : 8 + n])
    told[draw.choice(sorted(told))] = edit
    new = json.dumps(told).encode()
    return struct.pack("<Q", len(new)) + new + raw[8 + n :]


def vector(draw: random.Random, folder: Path) -> tuple[Path, bool, str]:
    tensors = {f"layer.{i}": torch.ones(8) for i in (1, 2)}
    header = {**SAYS, "norm": "1", "meta": '{"persona": "calm"}'}
    must, how, edit = True, draw.choice(["says", "meta", "name", "value", "header", "bytes", "shown"]), None
    if how == "says":
        header[draw.choice(sorted(SAYS))] = draw.choice(["", "multiply", "from 1", "\x1b[2J"])
    elif how == "meta":
        header["meta"] = draw.choice(
            ["", "[]", "3", "{" * 30_000, '{"a": NaN}', r'{"a": "\u001b"}', "not json\x1b"]
        )
    elif how == "name":
        tensors[draw.choice(["layer.-1", "layer.x", "weight", "layer.99999999", "layer.\x1b[2J"])] = (
            torch.ones(8)
        )
    elif how == "value":
        tensors["layer.2"] = draw.choice(
            [
                torch.ones(7),
                torch.ones(2, 8),
                torch.full((8,), float("nan")),
                torch.ones(0),
                torch.ones(8, dtype=torch.int64),
            ]
        )
    elif how == "header":
        edit = draw.choice(
            [
                {},
                {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 32]},
                {"dtype": "F32", "shape": [8], "data_offsets": [0, 2**63]},
            ]
        )
    elif how == "shown":
        header["meta"], must = json.dumps({"a\u202e[red]": "x\u2066\n"}), False
    raw = packed(tensors, header, draw, edit)
    if how == "bytes":
        raw, must = bytes_damaged(draw, raw)[0], False
    (folder / "v.safetensors").write_bytes(raw)
    return folder / "v.safetensors", must, how


def condition(draw: random.Random, folder: Path) -> tuple[Path, bool, str]:
    """Our own vectors' damages, of a file whose layer and threshold are texts in its header."""
    tensors = {"direction": torch.ones(8), "mean": torch.zeros(8)}
    header = {
        **CONDITION,
        "operation": "steer where the cosine is above the threshold",
        "layer": "2",
        "threshold": "0.5",
        "meta": "{}",
    }
    must, how = True, draw.choice(["says", "layer", "threshold", "value", "bytes", "shown"])
    if how == "says":
        header[draw.choice(sorted({*CONDITION, "operation"}))] = draw.choice(["", "add", "from 1", "\x1b[2J"])
    elif how == "layer":
        header["layer"] = draw.choice(["-1", "1e3", "02", "9" * 5_000, " 2", "٢", ""])
    elif how == "threshold":
        header["threshold"] = draw.choice(["nan", "inf", "-1e999", "0x1", "1_0", "1" * 5_000, "٠.٥", ""])
    elif how == "value":
        tensors[draw.choice(sorted(tensors))] = draw.choice(
            [torch.ones(7), torch.ones(2, 8), torch.full((8,), float("nan")), torch.ones(0)]
        )
    elif how == "shown":
        header["meta"], must = json.dumps({"a\u202e[red]": "x\u2066\n"}), False
    raw = packed(tensors, header, draw, None)
    if how == "bytes":
        raw, must = bytes_damaged(draw, raw)[0], False
    (folder / "c.safetensors").write_bytes(raw)
    return folder / "c.safetensors", must, how


def adapter(draw: random.Random, folder: Path) -> tuple[Path, bool, str]:
    stem = "base_model.model.model.layers.1.self_attn.q_proj.lora_"
    tensors = {f"{stem}A.weight": torch.ones(2, 8), f"{stem}B.weight": torch.ones(8, 2)}
    told = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}
    must, how, edit = True, draw.choice(["kind", "rank", "name", "value", "header", "config", "bytes"]), None
    if how == "kind":
        told |= draw.choice(
            [
                {"use_dora": True},
                {"init_lora_weights": "pissa_niter_4"},
                {"bias": "all"},
                {"new\x1b": 1},
                {"modules_to_save": ["x"]},
                {"lora_bias": True},
            ]
        )
    elif how == "rank":
        told |= draw.choice(
            [
                {"r": 64},
                {"r": True},
                {"r": 10**40},
                {"lora_alpha": float("nan")},
                {"rank_pattern": {"(x+)+": 2}},
            ]
        )
    elif how == "name":
        tensors[
            draw.choice(
                [
                    "base_model.model.lm_head.lora_A.weight",
                    f"{stem}magnitude_vector",
                    "\x1b[2J",
                    stem + "embedding_A",
                ]
            )
        ] = torch.ones(2, 8)
    elif how == "value":
        tensors[f"{stem}A.weight"] = draw.choice(
            [
                torch.full((2, 8), float("inf")),
                torch.ones(3, 8),
                torch.ones(8),
                torch.ones(2, 8, dtype=torch.int8),
            ]
        )
    elif how == "header":
        edit = {"dtype": "F32", "shape": [-1, 8], "data_offsets": [0, 64]}
    raw, text = packed(tensors, {"format": "pt"}, draw, edit), json.dumps(told).encode()
    if how == "config":
        text, must = text_damaged(draw, json.dumps(told))
    elif how == "bytes":
        raw, must = bytes_damaged(draw, raw)[0], False
    (folder / "adapter_config.json").write_bytes(text)
    (folder / "adapter_model.safetensors").write_bytes(raw)
    return folder, must, how


def control_vector(draw: random.Random, folder: Path) -> tuple[Path, bool, str]:
    name, kind, dims, must = "direction.1", 0, (4,), True
    how = draw.choice(["name", "type", "dims", "count", "bytes", "bytes"])
    tensors, keys = 1, 1
    if how == "name":
        name = draw.choice(
            [
                "direction.-1",
                "direction.last",
                "direction.0",
                "blk.1",
                "direction.1\x1b[2J",
                "direction.99999",
            ]
        )
    elif how == "type":
        kind = draw.choice([2, 8, 30, 99])
    elif how == "dims":
        dims = draw.choice([(2, 2), (2**62,), (0,), (1,) * 9])
    elif how == "count":
        tensors, keys = draw.choice([(2**60, 1), (2, 1), (0, 1), (1, 2**60), (1, 0)])
    text = lambda s: struct.pack("<Q", len(s.encode())) + s.encode()
    raw = (
        b"GGUF"
        + struct.pack("<IQQ", 3, tensors, keys)
        + text("general.architecture")
        + struct.pack("<I", 8)
        + text("controlvector")
    )
    raw += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, 0)
    raw += b"\0" * (-len(raw) % 32) + struct.pack("<4f", 1, 2, 3, 4)
    if how == "bytes":
        raw, must = bytes_damaged(draw, raw)[0], False
    (folder / "v.gguf").write_bytes(raw)
    return folder / "v.gguf", must, how


KINDS = {
    "persona": plain_table(persona, "p.toml", tomli_w.dumps),
    "settings": plain_table(config, "c.toml", tomli_w.dumps),
    "vignettes": vignettes,
    "vector": vector,
    "condition": condition,
    "adapter": adapter,
    "control vector": control_vector,
}
