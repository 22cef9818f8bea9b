"""What libraries print that says nothing to whoever watches a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedTokenizerBase


@contextmanager
def conversion() -> Iterator[None]:
    """A GGUF file's conversion without its bar, which doesn't follow the library's own switch and, in a log, is a
    hundred lines."""
    from transformers import modeling_gguf_pytorch_utils

    library: Any = modeling_gguf_pytorch_utils
    bar = library.tqdm
    library.tqdm = plain
    try:
        yield
    finally:
        library.tqdm = bar


def plain(items: Iterable[Any], **_how: Any) -> Iterable[Any]:
    """The same items, and no bar."""
    return items


def settle(tok: PreTrainedTokenizerBase) -> None:
    """Switch off a clean-up of spaces that the library ignores for a BPE tokenizer, and warns of at the first decode."""
    inner = getattr(tok, "backend_tokenizer", None)
    wanted = getattr(tok, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", False)
    if inner is not None and type(inner.model).__name__ == "BPE" and not wanted:
        tok.clean_up_tokenization_spaces = False
