"""The gate: what it lets through is sound, what it refuses is a `UserError` that says all, whatever the bytes are."""

from __future__ import annotations

import json
import math
import os
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import save

from fuzz import fuzz
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.untrusted import inside, json_lines, json_object, json_text, nearest, toml
from steer_heal_love.ground.untrusted.gguf import gguf
from steer_heal_love.ground.untrusted.tensors import tensors


def written(folder: Path, content: str | bytes, name: str = "x.toml") -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def refused(read, *args, **kwargs) -> str:
    with pytest.raises(UserError) as e:
        read(*args, **kwargs)
    assert "\x1b" not in str(e.value)
    return str(e.value)


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path):
    assert toml(written(tmp_path, "\ufeffa = 1\r\nb = 'x'\r\n"), "f").data == {"a": 1, "b": "x"}
    assert json_object(written(tmp_path, '\ufeff{"a": 1}'), "f").data == {"a": 1}
    assert [n for n, _ in json_lines(written(tmp_path, "\ufeff1\r\n\r\n2"), "f")] == [1, 3]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "latin-1"])
def test_another_encoding_is_named(tmp_path, encoding):
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    said = refused(toml, written(tmp_path, f'{mark}a = "é"'.encode(encoding)), "f")
    assert "UTF-8" in said and ("UTF-16" in said) == encoding.startswith("utf-16")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = " + "[" * 50_000, "nested deeper"),
        ("a" + ".a" * 50_000 + " = 1", "nested deeper"),
        ("a = " + "9" * 5_000, "integer"),
        ("a = 0x" + "f" * 5_000, "64 bits"),
        ("a = nan", "finite"),
        ("a = [1, inf]", r"a\[1\]"),
        ('a = "\\u001b"', "U+001B"),
        ('"\\u0000" = 1', "U+0000"),
        ("a = 1\na = 2", "not TOML"),
        ("[a]\nb = 9223372036854775808", "a.b: an integer"),
        ("a = " + "[" * 17 + "]" * 17, "nested deeper"),
    ],
)
def test_toml_that_nobody_means(tmp_path, text, words):
    file = written(tmp_path, text)
    try:
        found = toml(file, "f").all([])
    except UserError as e:
        found = [str(e)]
    assert words.replace("\\", "") in "\n".join(found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "nested deeper"),
        ('{"a": 1, "a": 2}', "a: the key is there twice"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": 1e999}', "a: expected a finite number"),
        ('{"a": ' + "9" * 5_000 + "}", "a: an integer of more"),
        (r'{"a": "\ud83d"}', "half of a surrogate pair, U+D83D"),
        (r'{"a": ["\u0000"]}', "a[0]: the text holds the control character U+0000"),
        ('{"a": 1', "not JSON"),
    ],
)
def test_json_that_nobody_means(text, words):
    try:
        found = json_text(text, "f").all([])
    except UserError as e:
        found = [str(e)]
    assert words in "\n".join(found)


def test_every_mistake_of_a_table_is_listed(tmp_path):
    found = toml(written(tmp_path, 'a = nan\n[b]\nc = 0xffffffffffffffffff\nd = "\\u009b"'), "f")
    assert {m.partition(":")[0] for m in found.all(["e: missing", "a: no number"])} == {
        "a",
        "b.c",
        "b.d",
        "e",
    }


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, words in [
        (tmp_path, "a folder"),
        (tmp_path / "pipe", "a pipe"),
        (tmp_path / "none", "No such file"),
    ]:
        assert words in refused(toml, path, "f")
        assert "f: " in refused(tensors, path, "f")
    assert "0.0001 MB" in refused(toml, written(tmp_path, "a = 1\n" * 100), "f", most=100)


def test_links_that_leave_a_folder_are_refused(tmp_path):
    root = tmp_path / "run"
    (root / "rounds").mkdir(parents=True)
    (root / "adapter").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    (root / "fine").symlink_to(root / "rounds")
    assert inside(root, root / "rounds" / "00") == root / "rounds" / "00"
    assert inside(root, root / "fine") == root / "fine"
    for path in (root / "adapter", root / "adapter" / "x", root / ".." / "x", root / "loop"):
        assert "run" in refused(inside, root, path)


def test_the_nearest_name_is_named():
    assert nearest("questoin", ["question", "pos"]) == "; did you mean 'question'?"
    assert nearest("zzz", ["question", "pos"]) == ""


GOOD = save({"a": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.float16)}, metadata={"format": "pt"})
LENGTH = struct.unpack("<Q", GOOD[:8])[0]


def header(**changes) -> bytes:
    """The good file with parts of its header replaced."""
    found = json.loads(GOOD[8 : 8 + LENGTH]) | changes
    raw = json.dumps(found).encode()
    return struct.pack("<Q", len(raw)) + raw + GOOD[8 + LENGTH :]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        (GOOD[:40], "cut short"),
        (GOOD[:-1], "expected a part of"),
        (GOOD + b"x", "cut short, or something"),
        (b"\xff" * 8 + GOOD[8:], "header of"),
        (header(__metadata__=[1]), "flat table"),
        (header(__metadata__={"a": {}}), "flat table"),
        (header(a={"dtype": "I64", "shape": [3], "data_offsets": [0, 24]}), "type 'I64'"),
        (header(a={"dtype": "F32", "shape": [2, -3], "data_offsets": [0, 24]}), "shape"),
        (header(a={"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 24]}), "24 bytes for shape"),
        (header(a={"dtype": "F32", "shape": [True, 6], "data_offsets": [0, 24]}), "shape"),
        (header(a={"dtype": "F32", "shape": [2**62, 0], "data_offsets": [0, 24]}), "bytes for shape"),
        (header(a=3), "expected dtype"),
        (header(b={"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}), "begins at byte"),
    ],
)
def test_a_safetensors_header_is_checked_before_anything_is_mapped(tmp_path, raw, words):
    assert words in refused(tensors, written(tmp_path, raw), "f")


def test_safetensors_come_in_fp32_and_finite(tmp_path):
    found, metadata = tensors(written(tmp_path, GOOD), "f")
    assert {k: t.dtype for k, t in found.items()} == {"a": torch.float32, "b": torch.float32}
    assert metadata == {"format": "pt"}
    for odd in (math.nan, math.inf):
        raw = save({"fine": torch.ones(2), "odd": torch.tensor([1.0, odd])})
        assert "'odd': values that are not finite" in refused(tensors, written(tmp_path, raw), "f")


def mangled(raw: bytes):
    """A file with a stretch replaced by other bytes, and cut."""
    place = st.integers(0, len(raw))
    return st.tuples(place, place, st.binary(max_size=24), place).map(
        lambda t: (raw[: t[0]] + t[2] + raw[max(t[0], min(t[1], t[0] + 24)) :])[: t[3] or None]
    )


def only_user_errors(read, *args):
    try:
        return read(*args)
    except UserError as e:
        assert str(e) and "\x1b" not in str(e)
        return None


@fuzz(raw=mangled(GOOD))
def test_no_damage_to_safetensors_is_anything_but_a_user_error(tmp_path, raw):
    if found := only_user_errors(tensors, written(tmp_path, raw), "f"):
        assert all(torch.isfinite(t).all() for t in found[0].values())


CONTROL = (
    b"GGUF"
    + struct.pack("<IQQ", 3, 1, 1)
    + struct.pack("<Q", 20)
    + b"general.architecture"
    + struct.pack("<IQ", 8, 13)
    + b"controlvector"
    + struct.pack("<Q", 11)
    + b"direction.1"
    + struct.pack("<IQIQ", 1, 4, 0, 0)
)
CONTROL += b"\0" * (-len(CONTROL) % 32) + struct.pack("<4f", 1, 2, 3, 4)


def test_gguf_is_read_as_written(tmp_path):
    found = gguf(written(tmp_path, CONTROL), "f")
    assert found.fields == {"general.architecture": "controlvector"}
    assert found.tensors["direction.1"].tolist() == [1, 2, 3, 4]


@fuzz(raw=st.one_of(mangled(CONTROL), st.binary(max_size=80).map(lambda b: CONTROL[:8] + b)))
def test_no_damage_to_gguf_is_anything_but_a_user_error(tmp_path, raw):
    if found := only_user_errors(gguf, written(tmp_path, raw), "f"):
        assert all(math.isfinite(x) for t in found.tensors.values() for x in t.ravel().tolist())


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(codec=None), max_size=8)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=12,
)


@fuzz(value=VALUES)
def test_what_json_lets_through_is_what_was_written(value):
    found = only_user_errors(json_text, json.dumps(value), "f")
    if found and not found.mistakes:
        assert found.data == value


@fuzz(
    raw=st.one_of(
        st.binary(max_size=60),
        st.text(alphabet="ab.=[]{}\"'\\u0123\n ,#-+einfa", max_size=60).map(str.encode),
    )
)
def test_no_bytes_are_anything_but_a_table_or_a_user_error(tmp_path, raw):
    found = only_user_errors(toml, written(tmp_path, raw), "f")
    assert found is None or isinstance(found.data, dict)
