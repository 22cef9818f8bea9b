"""Vectors of other tools: the same directions whichever way they were saved, and what is not said is asked for."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from steer_heal_love import cli
from steer_heal_love.bake import llama_cpp
from steer_heal_love.ground.errors import UserError
from steer_heal_love.vector import Vector
from steer_heal_love.vector.imports import adjusted, foreign

ROWS = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
FORMS = {
    "stacked from 0": ({"vector": ROWS}, "0", 0),
    "stacked with the embedding": ({"vector": torch.cat([torch.ones(1, 6), ROWS])}, "1", 0),
    "numbers": ({str(i): v.clone() for i, v in enumerate(ROWS)}, "0", 0),
    "paths": ({f"model.layers.{i + 1}": v.clone() for i, v in enumerate(ROWS)}, "1", 0),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_directions_and_says_where_from(tmp_path, form, capsys):
    tensors, base, first = FORMS[form]
    save_file(tensors, str(tmp_path / "theirs.safetensors"))
    cli.main(
        [
            "vector",
            "import",
            str(tmp_path / "theirs.safetensors"),
            "--layer-base",
            base,
            "--out",
            str(tmp_path / "ours.safetensors"),
        ]
    )
    found = Vector.load(tmp_path / "ours.safetensors")
    assert sorted(found.directions) == [first + i for i in range(4)]
    assert all(torch.equal(v, ROWS[i - first]) for i, v in found.directions.items())
    assert (
        found.meta["layer_base"] == base and found.meta["operation"] == "add" and found.meta["norm"] == "raw"
    )
    assert "4 layers, add" in capsys.readouterr().out


def test_a_control_vector_comes_in_by_its_own_numbers(tmp_path):
    llama_cpp.save_control_vector({2: ROWS[0], 3: ROWS[1]}, "any", tmp_path / "v.gguf")
    cli.main(
        [
            "vector",
            "import",
            str(tmp_path / "v.gguf"),
            "--norm",
            "unit",
            "--layers",
            "3",
            "--out",
            str(tmp_path / "v.safetensors"),
        ]
    )
    (found,) = Vector.load(tmp_path / "v.safetensors").directions.items()
    assert found[0] == 3 and torch.allclose(found[1], ROWS[1] / ROWS[1].norm())


@pytest.mark.parametrize(
    ("name", "tensors", "argv", "words"),
    [
        ("v.pt", None, ["--layer-base", "0"], "can run code"),
        ("v.safetensors", {"vector": ROWS}, [], "--layer-base"),
        ("v.safetensors", {"vector": ROWS}, ["--layer-base", "0", "--layers", "9"], "[9]"),
        ("v.safetensors", {"last": ROWS[0]}, ["--layer-base", "0"], "last"),
        ("v.safetensors", {"0": ROWS[0]}, ["--layer-base", "1"], "'0'"),
        ("v.safetensors", {"a": ROWS, "b": ROWS}, ["--layer-base", "0"], "2 tensors"),
        ("v.safetensors", {"a.1": ROWS[0], "b.1": ROWS[1]}, ["--layer-base", "0"], "second time"),
        ("v.safetensors", {"1": ROWS[0], "2": ROWS[1][:3]}, ["--layer-base", "0"], "widths differ"),
        ("v.safetensors", {"1": torch.full((3,), float("nan"))}, ["--layer-base", "0"], "not finite"),
    ],
)
def test_what_is_unsafe_unsaid_or_wrong_is_refused_and_nothing_is_written(
    tmp_path, capsys, name, tensors, argv, words
):
    file = tmp_path / name
    save_file({k: t.clone() for k, t in tensors.items()}, str(file)) if tensors else file.write_bytes(
        b"\x80\x02}."
    )
    with pytest.raises(SystemExit) as e:
        cli.main(["vector", "import", str(file), *argv, "--out", str(tmp_path / "out.safetensors")])
    assert e.value.code == 2 and words in " ".join(capsys.readouterr().err.split()).replace("│", "")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_direction_of_nothing_has_no_unit(tmp_path):
    with pytest.raises(UserError, match="length 0"):
        adjusted({1: torch.zeros(3)}, norm="unit")
    save_file({"1": torch.zeros(3)}, str(tmp_path / "v.safetensors"))
    assert adjusted(foreign(tmp_path / "v.safetensors", base=0), norm="raw")[1].norm() == 0
