"""Chat templates from outside: chosen, pinned, looked through, and never more than rendered."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken

from steer_heal_love.ground import chat, template_trial, templates
from steer_heal_love.ground.chat import answer_ids, end_of_turn_ids, prompt_ids, template_end
from steer_heal_love.ground.errors import UserError
from tiny_model import DROPS, TURNS, build_tokenizer

PARTS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% for part in m['content'] %}"
    "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def chosen(template, wanted=""):
    tok = build_tokenizer(template)
    return tok, templates.choose(tok, wanted, "m")


def test_a_good_template_has_nothing_odd():
    assert chosen(TURNS)[1] == []


@pytest.mark.parametrize("wanted", ["plain", "chatml"])
def test_a_base_model_takes_a_template_by_name(wanted):
    tok, _ = chosen(None, wanted)
    text = tok.decode(prompt_ids(tok, "Who is there?", "Be kind."))
    assert text.index("Be kind.") < text.index("Who is there?") and text.lower().rstrip(":\n").endswith(
        "assistant"
    )


def test_a_plain_answer_ends_with_the_models_own_end_of_text(model):
    tok, _ = chosen(None, "plain")
    assert template_end(tok) == tok.eos_token_id
    assert end_of_turn_ids(model, tok) == {tok.eos_token_id}


def test_a_plain_prompt_begins_as_the_tokenizer_begins_every_text():
    from tokenizers import processors

    tok = build_tokenizer(None)
    tok.bos_token = "<|endoftext|>"
    tok._tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tok.bos_token_id)]
    )
    templates.choose(tok, "plain", "m")
    assert prompt_ids(tok, "hi")[0] == tok.bos_token_id != prompt_ids(tok, "hi")[1]


def test_without_a_template_the_way_out_is_named():
    with pytest.raises(UserError, match="no chat template.*--template plain"):
        chosen(None)


def test_a_file_is_taken_and_one_that_is_wrong_is_refused(tmp_path):
    (tmp_path / "t.jinja").write_text(TURNS)
    assert chosen(None, str(tmp_path / "t.jinja"))[0].chat_template == TURNS
    for name, text, said in (
        ("broken", "{% for %}", "fails on a plain question"),
        ("empty", " ", "empty"),
        ("long", "x" * 1_000_001, "has at most"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=said):
            chosen(None, str(tmp_path / name))
    with pytest.raises(UserError, match="no such file"):
        chosen(None, str(tmp_path / "nowhere.jinja"))


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.getcwd() }}",
        "{% include '/etc/hostname' %}",
    ],
)
def test_a_template_reaches_nothing_outside_the_sandbox(tmp_path, attack):
    (tmp_path / "t.jinja").write_text(attack + TURNS)
    with pytest.raises(UserError, match="fails on a plain question"):
        chosen(None, str(tmp_path / "t.jinja"))


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            TURNS.replace("assistant\\n", "assistant\\n<think>\\n").replace(
                "assistant\n", "assistant\n<think>\n"
            ),
            "open <think>",
        ),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "nothing after the user's text"),
        ("{{ '<|im_start|>assistant' }}", "leaves out what the user says"),
        ("{{ raise_exception('no') }}", "fails on a plain question"),
    ],
    ids=["open think", "no tag", "no user", "raises"],
)
def test_a_template_that_no_prompt_can_be_made_with_is_refused(template, said):
    with pytest.raises(UserError, match=said):
        chosen(template)


def test_a_thought_that_is_closed_again_is_fine():
    tag = "<think>\n\n</think>\n\n"
    assert chosen(TURNS.replace("assistant\n", f"assistant\n{tag}"))[1] == []


def test_contents_are_given_as_parts_where_the_template_wants_them():
    tok, notes = chosen(PARTS)
    text = tok.decode(prompt_ids(tok, "Who is there?", "Be kind."))
    assert "lists of parts" in notes[0] and "Be kind." in text and "Who is there?" in text
    assert template_end(tok) == tok.convert_tokens_to_ids("<|im_end|>")


def test_a_clock_is_pinned_and_said(monkeypatch):
    import datetime

    from transformers.utils import chat_template_utils

    shown = "{{ 'Today: ' + strftime_now('%d %B %Y') + '\n' }}" + TURNS

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime(2031, 5, 6, tzinfo=tz)

    loose = build_tokenizer(shown)
    tok, notes = chosen(shown)
    today, pinned = prompt_ids(loose, "hi"), prompt_ids(tok, "hi")
    monkeypatch.setattr(chat_template_utils, "datetime", Later)
    chat._remembered_ids.cache_clear()
    assert prompt_ids(loose, "hi") != today and prompt_ids(tok, "hi") == pinned
    assert "Today: 01 January 2025" in tok.decode(pinned) and "pinned" in notes[0]
    again = tok.chat_template
    templates.choose(tok, "", "m")
    assert tok.chat_template == again


def test_a_template_without_a_system_role_is_said():
    assert any("no system role" in note for note in chosen(DROPS + TURNS)[1])


def test_marks_that_are_no_tokens_are_said_and_end_nothing(monkeypatch):
    monkeypatch.setattr(templates, "MARK", "<|eot|>")
    tok, notes = chosen(TURNS.replace("<|im_end|>", "<|eot|>"))
    assert any("spelled in pieces" in note for note in notes) and template_end(tok) is None


def test_the_end_of_turn_is_found_where_nobody_marked_it_special(model):
    tok = build_tokenizer(TURNS.replace("<|im_end|>", "<end>"))
    tok.add_tokens([AddedToken("<end>", special=False, normalized=False)])
    end = tok.convert_tokens_to_ids("<end>")
    assert end not in tok.all_special_ids and template_end(tok) == end
    assert end in end_of_turn_ids(model, tok)


def test_what_follows_an_answer_in_words_is_no_end():
    tok = build_tokenizer(
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\nover' }}{% endfor %}"
    )
    assert template_end(tok) is None


def test_the_next_turns_mark_ends_an_answer_that_nothing_else_closes():
    tok = build_tokenizer(
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ' ' + m['content'] }}{% endfor %}"
    )
    assert template_end(tok) == tok.convert_tokens_to_ids("<|im_start|>")


def test_an_answers_tokens_are_untouched_by_the_template():
    tok, _ = chosen(None, "plain")
    assert tok.decode(answer_ids(tok, "I love the cat.")) == "I love the cat."


BOMBS = (
    "{{ 'a' * 10**9 }}",
    "{{ 'x'|center(10**10) }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}" + "x" * 1_000 + "{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% if messages[0]['content']|length > 9999 %}{{ 'a' * 10**10 }}{% endif %}" + templates.CHATML,
    "{% generation %}{{ 'a' * 10**10 }}{% endgeneration %}",
)


@pytest.mark.parametrize("bomb", BOMBS, ids=range(len(BOMBS)))
def test_a_template_that_would_take_all_time_or_memory_is_refused(tmp_path, bomb, monkeypatch):
    monkeypatch.setattr(template_trial, "WALL_SECONDS", 4)
    (tmp_path / "t.jinja").write_text(bomb)
    with pytest.raises(UserError, match="takes more than 5 s or 1 GiB"):
        templates.choose(build_tokenizer(None), str(tmp_path / "t.jinja"), "m")


@pytest.mark.parametrize(
    "template", [*templates.NAMED.values(), "{% generation %}a{% endgeneration %}", "{{", "{{ x.y.z }}"]
)
def test_a_template_that_only_fails_is_left_to_who_renders_it(template):
    assert template_trial.harmless(template, {"eos_token": "</s>"})


@pytest.mark.parametrize("name", ["enable_thinking", "messages", "template", "self"])
def test_a_token_that_is_called_as_an_argument_is_does_not_keep_a_template_from_being_tried(name):
    assert template_trial.harmless("{{ 1 }}", {name: "x"})
    assert not template_trial.harmless(
        "{% for i in range(99999) %}{{ 'a' * 99999 }}{% endfor %}", {name: "x"}
    )
