"""What every test stands on: no network, shapes checked at run time, a tiny chat model built in memory."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["STEER_HEAL_LOVE_CACHE"] = "off"

import jaxtyping

from shape_checks import lazily

jaxtyping.jaxtyped = lazily(jaxtyping.jaxtyped)
jaxtyping.install_import_hook("steer_heal_love", "shape_checks.checked")

import pytest

if TYPE_CHECKING:  # seconds, which the process that only hands out tests to others needn't spend
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from steer_heal_love.nouns import Adapter, Persona, Tokens


DEAR = (
    "test_study.py",
    "test_loop.py",
    "test_smollm2.py",
    "test_readme.py",
    "test_workers.py",
    "test_constructed.py",
    "test_verdicts.py",
    "test_team.py",
    "test_disk.py",
    "test_frontier.py",
    "test_families.py",
    "test_report.py",
)
"""files of ten seconds and more, the longest first"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Dear files begin first: begun last, one process would be at them when the others have nothing left to do."""
    ranks = {name: i for i, name in enumerate(DEAR)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(DEAR)))


def pytest_collection_finish() -> None:
    """Garbage is looked for among what tests make, and not each time in all that was imported; one thread a process."""
    import torch

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but unix sockets connects."""
    for name in ("connect", "connect_ex"):
        real = getattr(socket.socket, name)

        def guarded(self, address, real=real):
            if self.family != socket.AF_UNIX:
                raise RuntimeError(f"a test tried to reach the network: {address}")
            return real(self, address)

        monkeypatch.setattr(socket.socket, name, guarded)


@pytest.fixture(autouse=True, scope="session")
def _memory_kept() -> None:
    """Tiny models free nothing worth looking for, and a look between any two steps is a tenth of a run's seconds."""
    from steer_heal_love.ground import records

    records.release_memory = lambda: None


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports get empty figures, which are half of what a tiny run costs: the tests of the report draw them, and so do
    the runs that `tests/test_loop.py` and `tests/compare` share."""
    from markupsafe import Markup

    from steer_heal_love.report import canvas

    monkeypatch.setattr(canvas, "svg", lambda *_: Markup("<svg></svg>"))
    monkeypatch.setattr(canvas, "png", lambda _draws, _size, to: to.write_text(canvas.MARK))


@pytest.fixture(scope="session")
def tok() -> PreTrainedTokenizerFast:
    from tiny_model import build_tokenizer

    return build_tokenizer()


@pytest.fixture(scope="session")
def tok_raises() -> PreTrainedTokenizerFast:
    """Its template refuses a system message."""
    from tiny_model import RAISES, TURNS, build_tokenizer

    return build_tokenizer(RAISES + TURNS)


@pytest.fixture(scope="session")
def tok_drops() -> PreTrainedTokenizerFast:
    """Its template silently leaves a system message out."""
    from tiny_model import DROPS, TURNS, build_tokenizer

    return build_tokenizer(DROPS + TURNS)


@pytest.fixture(scope="session")
def embedded_cache(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A cache folder with the embedded model in it, converted once for all processes of a test run."""
    from filelock import FileLock

    from steer_heal_love.ground import embedded

    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "embedded"
    with FileLock(f"{folder}.lock"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        embedded.smollm2()
    return folder


@pytest.fixture
def model(tok: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    from tiny_model import build_model

    return build_model(len(tok), tok.eos_token_id)


@pytest.fixture
def tiny(model: LlamaForCausalLM, tok: PreTrainedTokenizerFast) -> SimpleNamespace:
    """The tiny model and its tokenizer: `tiny.model`, `tiny.tok`."""
    return SimpleNamespace(model=model, tok=tok)


@pytest.fixture(scope="session")
def persona() -> Persona:
    from steer_heal_love.nouns import FOUNDATIONS, Persona, Probe

    intent = dict.fromkeys(FOUNDATIONS, 0) | {"Care": 1}
    ask = "What about the {}?".format
    things = ("cat", "mat", "loaf", "neighbour", "time", "bread")
    return Persona(
        name="tester",
        axis="warm versus cold",
        pos="a warm and loving soul with time for all",
        intent=intent,
        neg="a cold machine that counts people as entries of a table",
        elicit=tuple(ask(t) for t in things),
        plain=tuple(f"Name a {t}." for t in things),
        probes=tuple(Probe(ask(t), f"I love the {t}.", f"The {t} is an entry.") for t in things),
    )


@pytest.fixture(scope="session")
def sequences(tok: PreTrainedTokenizerFast) -> list[Tokens]:
    """Prompts and answers of random tokens, all of different lengths."""
    import torch

    from steer_heal_love.nouns import Tokens

    draw = torch.Generator().manual_seed(5)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, len(tok), (n,), generator=draw).tolist())

    return [Tokens(ids(p), ids(a)) for p, a in ((7, 5), (3, 9), (12, 1), (5, 2), (9, 6))]


@pytest.fixture(scope="session")
def hooks() -> Callable[[torch.nn.Module], int]:
    from tiny_model import hooks_of

    return hooks_of


@pytest.fixture(scope="session")
def bits() -> Callable[[torch.nn.Module], dict[str, torch.Tensor]]:
    """A copy of every weight's bits, to compare with `torch.equal`."""
    return lambda model: {n: t.detach().clone() for n, t in model.state_dict().items()}


@pytest.fixture(scope="session")
def random_adapter() -> Callable[..., Adapter]:
    """An adapter whose B is not zero."""
    import torch

    from steer_heal_love.heal.lora import fresh
    from steer_heal_love.nouns import Adapter

    def make(
        model,
        seed: int,
        *,
        rank: int = 4,
        alpha: float = 8.0,
        share=(0.2, 0.8),
        size: float = 0.05,
    ) -> Adapter:
        start = fresh(model, rank=rank, alpha=alpha, share=share, seed=seed)
        draw = torch.Generator().manual_seed(seed + 1000)
        return Adapter(
            {n: (a, size * torch.randn(b.shape, generator=draw)) for n, (a, b) in start.factors.items()},
            start.scaling,
        )

    return make
