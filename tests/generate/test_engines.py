"""Engines as plug-ins: what they must do alike, what they refuse, and what of vLLM's steering needs no vLLM to be tried."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn

from steer_heal_love import cli, session
from steer_heal_love.config import GenerateConfig, RunConfig
from steer_heal_love.generate import engine, generate
from steer_heal_love.generate.engine import Engine, Order, engines
from steer_heal_love.generate.vllm.options import options
from steer_heal_love.generate.vllm.steered import SLOTS, Buffers, decoder, weighted
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.hooks import added, biased, hooked
from steer_heal_love.ground.operations import Steering

GREEDY = GenerateConfig(temperature=0.0, batch=4)
WIDTH, DEPTH = 16, 3


@pytest.fixture
def steerings() -> tuple[Steering, ...]:
    draw = torch.Generator().manual_seed(2)
    return tuple(Steering({i: torch.randn(32, generator=draw) for i in (1, 3)}) for _ in range(2))


@pytest.fixture
def mute(monkeypatch) -> Iterator[list[int]]:
    """An engine that can't steer and counts its calls."""
    calls: list[int] = []
    engines["own"]
    monkeypatch.setattr(engines, "_items", dict(engines._items))

    def write(_model, _tok, order):
        calls.append(len(order.prompts))
        return [(max(order.ends),)] * len(order.prompts)

    nothing = lambda *_: None
    engines.register("mute", Engine("mute", write, nothing, nothing, frozenset(), adapts=False))
    return calls


def order(steerings, config=GREEDY, **given) -> Order:
    prompts = [(5, 6, 7, 8 + i) for i in range(6)]
    which, doses = [i % 2 for i in range(6)], [0.0, 0.5, 1.0, 0.5, 0.0, 2.0]
    return Order(prompts, frozenset({2}), config, 7, 3, steerings, which, doses, **given)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_several_vectors_in_one_order_are_each_of_them_alone(tiny, steerings, temperature):
    config = replace(GREEDY, temperature=temperature)
    together = engines["own"].write(tiny.model, tiny.tok, order(steerings, config))
    for n, one in enumerate(steerings):
        alone = order((one,), config)
        alone = replace(alone, which=[0] * 6)
        found = engines["own"].write(tiny.model, tiny.tok, alone)
        assert [found[i] for i in range(6) if i % 2 == n] == [together[i] for i in range(6) if i % 2 == n]
    plain = engines["own"].write(tiny.model, tiny.tok, order((), config))
    same = [a == b for a, b in zip(plain, together, strict=True)]
    assert same[0] and same[4] and not all(same), "dose 0 changes nothing, another dose does"


def test_a_model_that_hooks_change_is_written_by_the_reference(tiny, mute):
    config = replace(GREEDY, engine="mute")
    ask = lambda: generate(tiny.model, tiny.tok, ["hi"], [0.0], config=config, seed=1, max_new_tokens=4)
    assert ask()[0].ended and mute == [1]
    for inside in (
        lambda: added(tiny.model, {1: torch.ones(32)}, 0.1),
        lambda: biased(tiny.model, torch.zeros(len(tiny.tok))),
    ):
        assert not hooked(tiny.model)
        with inside():
            assert hooked(tiny.model)
            ask()
    assert mute == [1]


def test_a_dose_on_an_engine_that_cannot_steer_is_refused(tiny, mute):
    with pytest.raises(UserError, match=r"mute.*can't steer"):
        generate(
            tiny.model,
            tiny.tok,
            ["hi"],
            [1.0],
            config=replace(GREEDY, engine="mute"),
            seed=1,
            directions={1: torch.ones(32)},
        )
    assert not mute


def test_what_drift_is_measured_on_is_written_by_the_reference_whatever_the_engine():
    cfg = RunConfig(generate=GenerateConfig(engine="vllm", engine_options=("max_model_len=512",)))
    assert session.reference_sampling(cfg) == session.reference_sampling(RunConfig())


WRONG = [
    (["--engine", "magic"], ["magic", "own", "vllm"]),
    (["--engine=vllm"], ["not installed", "steer-heal-love[vllm]"]),
    (["--engine", "vllm", "--adapt.operation", "ablate"], ["ablate", "add", "own"]),
    (["--engine", "vllm", "--adapt.half-life", "8"], ["half_life", "own"]),
    (["--engine", "vllm", "--generate.temperature", "0.001"], ["temperature", "0.01"]),
    (
        ["--engine", "vllm", "--generate.engine-options", "worker_cls=os.system"],
        ["worker_cls", "max_model_len"],
    ),
    (
        ["--engine", "vllm", "--generate.engine-options", "max_model_len=-4"],
        ["max_model_len", "whole number"],
    ),
    (["--generate.engine-options", "max_model_len=64"], ["takes none", "--generate.engine"]),
    (["--engine", "mute"], ["mute", "can't steer"]),
]


@pytest.mark.parametrize(("asked", "words"), WRONG, ids=lambda v: " ".join(v)[-40:])
def test_what_an_engine_cannot_do_is_told_before_anything_is_written(
    asked, words, mute, tmp_path, monkeypatch, capsys
):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "vllm" else found(name, *a)
    )
    monkeypatch.setattr(
        "steer_heal_love.ground.models.load", lambda *_a, **_k: pytest.fail("a model was loaded")
    )
    with pytest.raises(SystemExit) as left:
        cli.main(["run", "--out", str(tmp_path / "runs"), "--device", "cpu", *asked])
    said = " ".join(capsys.readouterr().err.split())
    assert left.value.code == 2 and "Traceback" not in said
    assert all(word in said for word in words), said
    assert not (tmp_path / "runs").exists()


def test_options_are_read_by_their_type():
    given = ("tensor_parallel_size=2", "gpu_memory_utilization=1", "enforce_eager=True")
    found = options(GenerateConfig(engine_options=given))
    assert found == {"tensor_parallel_size": 2, "gpu_memory_utilization": 1.0, "enforce_eager": True}
    assert type(found["gpu_memory_utilization"]) is float


class Layer(nn.Module):
    """Like vLLM's decoder layers: tokens of all rows in one line, the stream in two parts."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden, residual):
        residual = hidden if residual is None else hidden + residual
        return self.inner(residual), residual


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(DEPTH))

    def forward(self, hidden):
        residual = None
        for layer in self.layers:
            hidden, residual = layer(hidden, residual)
        return hidden + residual


def by_hand(toy: Toy, hidden: torch.Tensor, shifts: dict[int, torch.Tensor]) -> torch.Tensor:
    for number, layer in enumerate(toy.layers):
        hidden = layer.inner(hidden) + hidden + shifts.get(number, torch.zeros(()))
    return hidden


@pytest.fixture
def toy() -> Toy:
    torch.manual_seed(0)
    return Toy().double().requires_grad_(False)


def test_tokens_are_steered_by_their_request_inside_a_graph_that_is_traced_once(toy):
    """A graph that was captured reads what the buffers hold then: nothing of Python runs again."""
    names, bare = [n for n, _ in toy.named_parameters()], Toy().double()
    bare.load_state_dict(toy.state_dict())
    buffers = Buffers(toy, DEPTH, WIDTH, tokens=16, like=torch.empty(0, dtype=torch.double))
    assert [
        n for n, _ in toy.named_parameters()
    ] == names and toy.state_dict().keys() == bare.state_dict().keys()

    graphs = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    traced = torch.compile(toy, backend=backend, fullgraph=True, dynamic=True)
    draw = torch.Generator().manual_seed(1)
    vectors = torch.randn(2, WIDTH, generator=draw)
    buffers.put({"0.0": vectors[0], "1.2": vectors[1]})
    buffers.note([("a", weighted(0, 0.5)), ("b", weighted(1, -2.0)), ("plain", None)], set())
    for names_, counts in (
        (["a", "b", "plain"], [3, 1, 2]),
        (["plain", "b", "a"], [2, 2, 5]),
        (["b", "a"], [4, 3]),
    ):
        hidden = torch.randn(sum(counts), WIDTH, generator=draw).double()
        buffers.fill(names_, counts)
        doses = {"a": [0.5, 0.0], "b": [0.0, -2.0], "plain": [0.0, 0.0]}
        each = torch.tensor(
            [doses[n] for n, c in zip(names_, counts, strict=True) for _ in range(c)]
        ).double()
        shifts = {0: each[:, :1] * vectors[0], 2: each[:, 1:] * vectors[1]}
        torch.testing.assert_close(traced(hidden), by_hand(bare, hidden, shifts))
    assert len(graphs) == 1


def test_vectors_that_are_not_named_again_and_requests_that_ended_steer_nothing(toy):
    buffers = Buffers(toy, DEPTH, WIDTH, tokens=8, like=torch.empty(0, dtype=torch.double))
    bare, hidden = Toy().double(), torch.ones(2, WIDTH).double()
    bare.load_state_dict(toy.state_dict())
    buffers.put({"0.1": torch.ones(WIDTH)})
    buffers.note([("a", weighted(0, 1.0)), ("b", weighted(SLOTS - 1, 1.0))], set())
    buffers.fill(["a", "b"], [1, 1])
    steered = toy(hidden)
    assert not torch.equal(steered[0], bare(hidden)[0]) and torch.equal(steered[1], bare(hidden)[1])
    buffers.note([], {"a"})
    buffers.fill(["a", "b"], [1, 1])
    assert torch.equal(toy(hidden), bare(hidden))
    buffers.note([("a", weighted(0, 1.0))], set())
    buffers.fill(["a", "b"], [1, 1])
    assert torch.equal(toy(hidden), steered)
    buffers.put({})
    assert torch.equal(toy(hidden), bare(hidden))


def test_a_model_without_one_list_of_its_layers_is_refused():
    with pytest.raises(ValueError, match="0 lists of 4 layers"):
        decoder(Toy(), 4)


def test_every_engine_names_operations_that_there_are():
    from steer_heal_love.ground.operations import operations

    for found in engines.values():
        assert found.operations is None or found.operations <= set(operations)
    assert engine.REFERENCE in engines and engines[engine.REFERENCE].operations is None
