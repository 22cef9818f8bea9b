"""A tokenizer from the SentencePiece pieces that a GGUF holds, for models whose merges it leaves out.

SentencePiece's BPE joins, again and again, the two neighbours whose joint piece has the highest score. Merges in order
of the joint piece's score do the same:

    merges = [ (a, b) : a + b = p, a and b pieces ]   for pieces p by falling score.

Text reads " " as "▁"; what no piece spells is spelled in bytes. Source: arXiv 1808.06226.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

SPACE = "▁"
CONTROL, USER, BYTE = 3, 4, 6
"""kinds of token in a GGUF"""


def merges(pieces: dict[str, int], scores: list[float]) -> list[tuple[str, str]]:
    """Every split of a piece into two pieces, the highest score first; ties in the pieces' order."""
    out: list[tuple[str, str]] = []
    for piece in sorted(pieces, key=lambda p: (-scores[pieces[p]], pieces[p])):
        splits = ((piece[:i], piece[i:]) for i in range(1, len(piece)))
        here = [(a, b) for a, b in splits if a in pieces and b in pieces]
        out += sorted(here, key=lambda pair: (pieces[pair[0]], pieces[pair[1]]))
    return out


def build(tokens: list[str], scores: list[float], kinds: list[int], bos: int, unk: int) -> Tokenizer:
    """The tokenizer; `bos` is the number of the token that begins every text, `unk` of the one for the unknown."""
    vocab = {token: i for i, token in enumerate(tokens)}
    plain = {t: i for t, i in vocab.items() if kinds[i] not in (CONTROL, USER, BYTE)}
    tok = Tokenizer(
        models.BPE(vocab, merges(plain, scores), byte_fallback=True, unk_token=tokens[unk], fuse_unk=True)
    )
    tok.normalizer = normalizers.Replace(" ", SPACE)
    tok.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tok.post_processor = processors.TemplateProcessing(
        single=f"{tokens[bos]} $A", pair=f"{tokens[bos]} $A $B", special_tokens=[(tokens[bos], bos)]
    )
    whole = [t for t, i in vocab.items() if kinds[i] == USER and SPACE not in t]
    tok.add_tokens([AddedToken(t, normalized=False, special=False) for t in whole])
    control = [t for t, i in vocab.items() if kinds[i] == CONTROL]
    tok.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in control])
    return tok


def tokenizer_of(gguf: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a GGUF file, with its own beginning, end, padding and unknown tokens."""
    from gguf import GGUFReader

    reader = GGUFReader(str(gguf))
    field = lambda name: reader.fields[f"tokenizer.ggml.{name}"].contents()
    tokens, scores, kinds = field("tokens"), field("scores"), field("token_type")
    special = {
        f"{name}_token": tokens[field(f"{key}_token_id")]
        for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        if f"tokenizer.ggml.{key}_token_id" in reader.fields
    }
    numbers = {name: tokens.index(token) for name, token in special.items()}
    built = build(tokens, scores, kinds, numbers["bos_token"], numbers["unk_token"])
    return PreTrainedTokenizerFast(tokenizer_object=built, **special)
