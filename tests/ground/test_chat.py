"""Templates to token ids, with and without a system role."""

from __future__ import annotations

import pytest

from steer_heal_love.ground import chat
from steer_heal_love.ground.chat import (
    answer_ids,
    end_of_turn_ids,
    prompt_ids,
    template_hash,
)


def test_the_prompt_ends_at_the_assistant_tag_and_holds_both_messages(tok):
    text = tok.decode(prompt_ids(tok, "Who is there?", "Be kind."))
    assert text == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWho is there?<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("which", ["tok_raises", "tok_drops"])
def test_without_a_system_role_the_system_text_leads_the_users(which, request):
    tok = request.getfixturevalue(which)
    text = tok.decode(prompt_ids(tok, "Who is there?", "Be kind."))
    assert text == "<|im_start|>user\nBe kind.\n\nWho is there?<|im_end|>\n<|im_start|>assistant\n"


def test_shots_are_earlier_turns(tok):
    shots = (("Who?", "Me."), ("Where?", "Here."))
    text = tok.decode(prompt_ids(tok, "When?", "Be kind.", shots=shots))
    turns = [
        ("system", "Be kind."),
        ("user", "Who?"),
        ("assistant", "Me."),
        ("user", "Where?"),
        ("assistant", "Here."),
        ("user", "When?"),
    ]
    whole = "".join(f"<|im_start|>{role}\n{said}<|im_end|>\n" for role, said in turns)
    assert text == whole + "<|im_start|>assistant\n"


def test_without_a_system_role_the_system_text_leads_the_first_turn(tok_raises):
    text = tok_raises.decode(prompt_ids(tok_raises, "When?", "Be kind.", shots=(("Who?", "Me."),)))
    assert text.startswith("<|im_start|>user\nBe kind.\n\nWho?<|im_end|>") and text.count("Be kind.") == 1


def test_an_answer_has_no_special_tokens(tok):
    ids = answer_ids(tok, "I love the cat.")
    assert tok.decode(ids) == "I love the cat." and not set(ids) & set(tok.all_special_ids)


def test_every_end_of_turn_is_known(tiny):
    end = tiny.tok.eos_token_id
    assert end_of_turn_ids(tiny.model, tiny.tok) == {end}
    tiny.model.generation_config.eos_token_id = [7, 9]
    assert end_of_turn_ids(tiny.model, tiny.tok) == {7, 9, end}
    tiny.model.generation_config.eos_token_id = None
    assert end_of_turn_ids(tiny.model, tiny.tok) == {end}


def test_the_templates_own_end_counts_where_the_tokenizers_is_another(model):
    from tiny_model import build_tokenizer

    tok = build_tokenizer()
    end = tok.convert_tokens_to_ids("<|im_end|>")
    tok.eos_token = "<|endoftext|>"
    tok.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    assert end in end_of_turn_ids(model, tok)


def test_the_hash_tells_templates_apart(tok, tok_raises):
    assert template_hash(tok) != template_hash(tok_raises)
    assert template_hash(tok) == template_hash(tok)


def test_a_question_is_rendered_once_and_a_talk_each_time(tok, monkeypatch):
    rendered = []
    real = chat._ids
    monkeypatch.setattr(chat, "_ids", lambda *a, **how: rendered.append(1) or real(*a, **how))
    chat._remembered_ids.cache_clear()
    asked = [prompt_ids(tok, "Who is there?") for _ in range(3)]
    assert len(rendered) == 1 and len(set(asked)) == 1
    assert prompt_ids(tok, "Who is there?", "Be kind.") != asked[0] and len(rendered) == 2
    for many in ({"shots": (("Who?", "Me."),)}, {"system": "Be kind."}):
        text = "Who?" if "shots" in many else "Who? " * chat.LONGEST
        assert prompt_ids(tok, text, **many) == prompt_ids(tok, text, **many)
    assert len(rendered) == 6, "what is hardly asked again isn't kept"
