"""Words and odd characters in other scripts than ours: ordinary text is ordinary in every one of them."""

from __future__ import annotations

import unicodedata

import pytest

from steer_heal_love.filter.script import odd_share
from steer_heal_love.ground.text import count_words, leaks, spoken, words
from steer_heal_love.nouns import Completion, Tokens

TEXTS = {
    "Hindi": "दूसरों के साथ दयालुता से पेश आना क्यों ज़रूरी है? जब हम मदद करते हैं, तो हमारा दिन अच्छा हो जाता है।",
    "Thai": "ทำไมการช่วยเหลือเพื่อนบ้านจึงสำคัญ เพราะเมื่อเราช่วยกัน ทุกคนก็มีความสุข",
    "Chinese": "你好，朋友！为什么善待邻居很重要？因为“我们”都需要帮助。",
    "Japanese": "隣の人に親切にするのはなぜ大切ですか？それは、みんなが助け合うからです。",
    "Arabic": "لماذا من المهم أن نساعد الجيران؟ لأنّنا جميعًا بحاجة إلى المساعدة، كلّ يوم.",
    "Persian": "چرا می‌خواهید به همسایه کمک کنید؟",
    "Korean": "왜 이웃을 도와야 하나요? 우리는 서로 돕고 살아야 합니다.",
    "Tamil": "அண்டை வீட்டாருக்கு உதவுவது ஏன் முக்கியம்?",
    "Khmer": "ហេតុអ្វីបានជាការជួយអ្នកជិតខាងមានសារៈសំខាន់?",
    "Amharic": "ለምን ጎረቤትን መርዳት አስፈላጊ ነው?",
    "Hebrew": "למה חשוב לעזור לשכנים? כי כולנו צריכים עזרה.",
    "Greek": "Γιατί είναι σημαντικό να βοηθάμε;",
    "French, decomposed": unicodedata.normalize("NFD", "Café crème à la carte, s’il vous plaît."),
}


def completion(prompt: str, text: str) -> Completion:
    return Completion(prompt, Tokens((1,), (2,)), text, 0.0, True)


@pytest.mark.parametrize("language", TEXTS)
def test_ordinary_text_has_no_odd_characters_and_is_odd_after_another_script_s_prompt(language):
    text = TEXTS[language]
    assert odd_share(completion(text, text)) == 0
    if "French" not in language:
        assert odd_share(completion("Why is that?", text)) > 0.6


@pytest.mark.parametrize(
    ("prompt", "text", "share"),
    [
        ("Why?", "a\u0301b", 0),
        ("Why?", "\u0301a", 0.5),
        ("Why?", "你\u0301", 1),
        ("क्यों", "abcd", 1),
        ("你为什么", "あ", 1),
        ("为什么", "。", 0),
        ("Why?", "。", 1),
        ("Why?", "\u200d", 1),
    ],
)
def test_a_mark_goes_with_its_letter_and_punctuation_with_its_script(prompt, text, share):
    assert odd_share(completion(prompt, text)) == share


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Don’t stop — it's FINE.", ["don't", "stop", "it's", "fine"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("你好 world", ["你", "好", "world"]),
        ("Ça va?", ["ça", "va"]),
        ("'quoted'", ["quoted"]),
        ("’é’", ["é"]),
        ("…", []),
        ("می‌خواهید", ["می‌خواهید"]),
    ],
)
def test_words_of_a_text(text, found):
    assert words(text) == found


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("a calm friend who greets every guest", 7, 7),
        (TEXTS["Hindi"], 21, 27),
        ("一位热情欢迎每位客人的温暖朋友", 6, 10),
        ("เพื่อนที่อบอุ่นซึ่งต้อนรับแขกทุกคนด้วยชื่อ", 7, 13),
        ("你好 world", 2, 2),
        ("", 0, 0),
        ("。。。", 1, 1),
    ],
)
def test_scripts_without_spaces_are_counted_about_as_a_segmenter_would(text, low, high):
    assert low <= count_words(text) <= high


def test_loops_are_seen_without_spaces():
    assert spoken("你好。 OK then") == ["你", "好。", "ok", "then"]


def test_a_leak_is_found_in_a_script_without_spaces_and_common_phrases_are_none():
    text = "如果邻居的孩子在雨里哭泣，你会怎么做？"
    assert leaks({"a": text}, {"b": f"请问{text}"})
    assert not leaks({"a": "你会怎么对待一只迷路的狗？"}, {"b": "你会怎么对待生病的同事和朋友？"})
