"""Vectors' files, ours and GGUF: what is not exactly a steering vector is refused by the tensor that is wrong."""

from __future__ import annotations

import json

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from steer_heal_love.bake import llama_cpp
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.places import Directions
from steer_heal_love.vector import SAYS, Vector

HEADER = {**SAYS, "norm": "1", "meta": "{}"}


def saved(folder, tensors, **header):
    told = {k: v for k, v in {**HEADER, **header}.items() if v is not None}
    save_file(tensors, str(folder / "v.safetensors"), metadata=told)
    return folder / "v.safetensors"


def test_what_save_writes_is_what_load_wants(tmp_path):
    Vector({2: torch.ones(3)}, {"method": "x"}).save(tmp_path / "v.safetensors")
    assert Vector.load(tmp_path / "v.safetensors").meta == {"method": "x"}


@pytest.mark.parametrize("hook", ["", "mlp.down_proj"])
@pytest.mark.parametrize(("operation", "shape"), [("", (3,)), ("transport", (2, 3))])
def test_the_place_and_the_operation_are_saved_and_an_old_file_is_of_the_residual_stream(
    tmp_path, hook, operation, shape
):
    v = Vector(Directions({2: torch.randn(shape)}, hook=hook, operation=operation))
    v.save(tmp_path / "v.safetensors")
    again = Vector.load(tmp_path / "v.safetensors")
    assert (again.place.hook, again.place.operation) == (hook, operation)
    assert torch.equal(again.directions[2], v.directions[2])
    assert (again * 2.0 - v).place.hook == hook and (again * 2.0 - v).cosine(v) == pytest.approx(1.0)
    old = Vector.load(saved(tmp_path, {"layer.1": torch.ones(3)}))
    assert (old.place.hook, old.place.operation) == ("", "")
    if hook or operation:
        with pytest.raises(UserError, match="no sum"):
            old + v


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (
            {"operation": "multiply"},
            "operation: expected 'add' (or one of 'add', 'transport'), found 'multiply'",
        ),
        ({"format": "steer-heal-love.vector.99"}, "format: expected"),
        ({"operation": None}, "operation"),
        ({"layer_numbering": "from 1"}, "layer_numbering"),
        ({"positions": "last"}, "positions"),
        ({"hook_point": "mlp"}, "hook_point"),
        ({"hook_point": "output of a/b"}, "hook_point"),
        ({"operation": "transport"}, "expected 2 vectors"),
        ({"meta": None}, "meta: missing"),
        ({"meta": "not json"}, "meta: not JSON"),
        ({"meta": "[1]"}, "meta: expected a JSON object"),
        ({"meta": "[" * 99_999}, "nested"),
        ({"meta": '{"a": NaN}'}, "NaN"),
        ({"meta": r'{"a": "\u001b[2J"}'}, "U+001B"),
        ({"operaton": "add"}, "did you mean 'operation'"),
        ({"format": "another.tool"}, "not a steering vector of this tool"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_a_header_that_says_something_else_is_refused(tmp_path, header, words):
    with pytest.raises(UserError) as e:
        Vector.load(saved(tmp_path, {"layer.1": torch.ones(3)}, **header))
    assert words in str(e.value) and "\x1b" not in str(e.value)


ODD = {
    "negative": ({"{}.-1": torch.ones(3)}, "-1"),
    "words": ({"{}.last": torch.ones(3)}, ".last"),
    "matrix": ({"{}.2": torch.ones(2, 3)}, ".2"),
    "nan": ({"{}.2": torch.full((3,), float("nan"))}, ".2"),
    "uneven": ({"{}.2": torch.ones(3), "{}.3": torch.ones(4)}, "widths differ"),
    "deep": ({"{}.99999": torch.ones(3)}, "99999"),
    "zeros before": ({"{}.02": torch.ones(3)}, ".02"),
    "empty": ({"{}.1": torch.ones(0)}, ".1"),
}


@pytest.mark.parametrize("kind", ODD)
def test_directions_that_are_none_are_named(tmp_path, kind):
    tensors, words = ODD[kind]
    with pytest.raises(UserError, match=words.replace(".", r"\.")):
        Vector.load(saved(tmp_path, {k.format("layer"): t for k, t in tensors.items()}))
    if kind != "empty":  # the package writes none
        file = control(tmp_path, {k.format("direction"): t.numpy() for k, t in tensors.items()})
        with pytest.raises(UserError, match=words.replace(".", r"\.")):
            llama_cpp.load_control_vector(file)


def control(folder, tensors, arch="controlvector", raw=None):
    file = folder / "v.gguf"
    w = gguf.GGUFWriter(file, arch)
    w.add_array("tokenizer.words", ["a", "b"])
    w.add_array("numbers", [1, 2, 3])
    for name, t in tensors.items():
        w.add_tensor(name, np.ascontiguousarray(t), raw_dtype=raw)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return file


def test_f32_and_f16_are_read_and_quantised_bytes_are_not_taken_as_numbers(tmp_path):
    v = np.random.default_rng(0).normal(size=32).astype(np.float32)
    found = llama_cpp.load_control_vector(control(tmp_path, {"direction.3": v, "direction.1": 2 * v}))
    assert list(found) == [1, 3] and torch.equal(found[3], torch.from_numpy(v))
    half = llama_cpp.load_control_vector(control(tmp_path, {"direction.2": v.astype(np.float16)}))
    assert torch.equal(half[2], torch.from_numpy(v.astype(np.float16)).float())
    packed = gguf.quants.quantize(v[None], gguf.GGMLQuantizationType.Q8_0)[0]
    with pytest.raises(UserError, match=r"'direction\.2': values of type Q8_0"):
        llama_cpp.load_control_vector(
            control(tmp_path, {"direction.2": packed}, raw=gguf.GGMLQuantizationType.Q8_0)
        )


def test_another_architecture_and_layer_0_are_refused(tmp_path):
    for tensors, arch in [
        ({"direction.1": np.ones(3, np.float32)}, "llama"),
        ({"direction.0": np.ones(3, np.float32)}, "controlvector"),
    ]:
        with pytest.raises(UserError):
            llama_cpp.load_control_vector(control(tmp_path, tensors, arch))


@pytest.mark.parametrize("at", [0, 3, 8, 30, 100, 200])
def test_a_gguf_file_cut_short_names_the_file(tmp_path, at):
    file = control(tmp_path, {"direction.1": np.ones(64, np.float32)})
    file.write_bytes(file.read_bytes()[:at])
    with pytest.raises(UserError, match=r"v\.gguf: no GGUF file there"):
        llama_cpp.load_control_vector(file)


@pytest.mark.parametrize(
    ("directions", "words"),
    [
        ({5: torch.ones(32)}, "layer 5: there are 5 layers"),
        ({-1: torch.ones(32)}, "layer -1"),
        ({1: torch.ones(31)}, r"\(31,\) values for a width of 32"),
    ],
)
def test_a_vector_of_another_model_does_not_steer(model, directions, words):
    with pytest.raises(UserError, match=words), Vector(directions)(model, dose=1.0):
        pass


def test_metadata_is_printed_escaped(tmp_path, capsys):
    from steer_heal_love import cli

    cli.main(
        [
            "vector",
            "inspect",
            str(saved(tmp_path, {"layer.1": torch.ones(3)}, meta=json.dumps({"a\u202eb": "x\ny [red]"}))),
        ]
    )
    assert "a\\u202eb: x\\ny [red]" in capsys.readouterr().out


def test_tensors_that_share_their_bytes_or_are_larger_than_the_file_are_refused(tmp_path):
    """Else a small file would take any amount of memory."""
    ones = np.ones(64, np.float32)
    file = control(tmp_path, {"direction.1": ones, "direction.2": 2 * ones})
    raw = bytearray(file.read_bytes())
    at = raw.index(b"direction.2") + len("direction.2")
    # dimensions (u32), the one dimension (u64), type (u32), offset (u64)
    overlapping = bytearray(raw)
    overlapping[at + 16 : at + 24] = (0).to_bytes(8, "little")
    whole = len(raw)
    del overlapping[whole - 256 :]
    file.write_bytes(overlapping)
    with pytest.raises(UserError, match="overlap"):
        llama_cpp.load_control_vector(file)
    large = bytearray(raw)
    large[at + 4 : at + 12] = (2**63).to_bytes(8, "little")
    file.write_bytes(large)
    with pytest.raises(UserError, match="larger than the file"):
        llama_cpp.load_control_vector(file)
