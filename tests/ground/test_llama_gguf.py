"""A GGUF file read here gives what the library's own conversion gives."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from steer_heal_love.ground import embedded, llama_gguf, quiet
from steer_heal_love.ground.errors import UserError

gguf = pytest.importorskip(
    "gguf", reason="gguf is not installed; pip install 'steer-heal-love[smollm2]' installs it"
)
WIDTH, INNER, HEADS, KV, LAYERS = 64, 96, 4, 2, 2
MERGED = ["Ġa", "th", "the", "Ġth", "Ġthe", "in"]
TOKENS = ["<|end|>", "<|start|>", *"abcdefghijklmnopqrstuvwxyzĠĊ.,!?<|>", *MERGED]
MERGES = ["Ġ a", "t h", "th e", "Ġ th", "Ġth e", "i n"]
TEMPLATE = "{% for m in messages %}<|start|>{{ m['content'] }}<|end|>{% endfor %}"


def written(path, *, tied: bool = True, architecture: str = "llama", more: str = ""):
    """A small Llama, its projections as Q4_1, its embedding as Q8_0."""
    out = gguf.GGUFWriter(str(path), architecture)
    out.add_name("tiny")
    out.add_block_count(LAYERS)
    out.add_context_length(256)
    out.add_embedding_length(WIDTH)
    out.add_feed_forward_length(INNER)
    out.add_head_count(HEADS)
    out.add_head_count_kv(KV)
    out.add_rope_dimension_count(WIDTH // HEADS)
    out.add_rope_freq_base(50_000.0)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(len(TOKENS))
    out.add_tokenizer_model("gpt2")
    out.add_token_list(TOKENS)
    out.add_token_types([3, 3] + [1] * (len(TOKENS) - 2))
    out.add_token_merges(MERGES)
    for name, number in (("bos", 1), ("eos", 0), ("unk", 0), ("pad", 0)):
        getattr(out, f"add_{name}_token_id")(number)
    out.add_chat_template(TEMPLATE)
    draw = torch.Generator().manual_seed(0)

    def add(name: str, *shape: int, kind: str = "Q4_1") -> None:
        values, kind = torch.randn(shape, generator=draw).numpy(), gguf.GGMLQuantizationType[kind]
        out.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)

    add("token_embd.weight", len(TOKENS), WIDTH, kind="Q8_0")
    add("output_norm.weight", WIDTH, kind="F32")
    if not tied:
        add("output.weight", len(TOKENS), WIDTH, kind="F16")
    for n in range(LAYERS):
        add(f"blk.{n}.attn_norm.weight", WIDTH, kind="F32")
        add(f"blk.{n}.ffn_norm.weight", WIDTH, kind="F32")
        for name, shape in {
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (WIDTH * KV // HEADS, WIDTH),
            "attn_v": (WIDTH * KV // HEADS, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_gate": (INNER, WIDTH),
            "ffn_up": (INNER, WIDTH),
            "ffn_down": (WIDTH, INNER),
        }.items():
            add(f"blk.{n}.{name}.weight", *shape)
    if more:
        add(more, WIDTH, kind="F32")
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


@pytest.mark.parametrize("tied", [True, False])
def test_the_folder_is_what_the_library_would_make(tmp_path, tied):
    file, folder = written(tmp_path / "tiny.gguf", tied=tied), tmp_path / "made"
    embedded.convert(file, folder, llama_gguf.read)
    with quiet.conversion():
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32)
    ours = load_file(folder / "model.safetensors")
    assert ("lm_head.weight" in ours) is not tied
    for name, tensor in theirs.state_dict().items():
        if name in ours or not tied:
            assert torch.equal(ours[name], tensor.to(torch.bfloat16)), name
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    same = (
        "hidden_size",
        "head_dim",
        "num_key_value_heads",
        "rope_parameters",
        "rms_norm_eps",
        "tie_word_embeddings",
        "vocab_size",
        "max_position_embeddings",
        "eos_token_id",
        "bos_token_id",
        "pad_token_id",
    )
    assert {k: getattr(loaded.config, k) for k in same} == {k: getattr(theirs.config, k) for k in same}
    ids = torch.tensor([[1, 5, 9, 30]])
    theirs.load_state_dict(loaded.state_dict())
    torch.testing.assert_close(loaded(ids).logits, theirs(ids).logits)


@pytest.mark.parametrize("text", ["the thin cat, in a hat!", "<|start|>in<|end|> the", "  a\n the?"])
def test_text_is_cut_as_the_library_cuts_it(tmp_path, text):
    file, folder = written(tmp_path / "tiny.gguf"), tmp_path / "made"
    embedded.convert(file, folder, llama_gguf.read)
    ours = AutoTokenizer.from_pretrained(folder)
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name)
    assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert ours.decode(ours(text)["input_ids"]) == text
    assert ours.chat_template == TEMPLATE and ours.special_tokens_map == theirs.special_tokens_map


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"architecture": "qwen2"}, "architecture 'qwen2'"),
        ({"more": "blk.0.attn_sinks.weight"}, "which no Llama has"),
    ],
)
def test_another_architecture_is_refused(tmp_path, how, said):
    file = written(tmp_path / "tiny.gguf", **how)
    with pytest.raises(UserError, match=said):
        embedded.convert(file, tmp_path / "made", llama_gguf.read)
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.gguf"], "nothing is left behind"


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_file_cut_short_is_refused(tmp_path, share):
    file = written(tmp_path / "tiny.gguf")
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(UserError, match="cut short or damaged"):
        llama_gguf.read(file)
