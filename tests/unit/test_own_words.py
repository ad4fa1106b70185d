"""The user's own words: what is left of a message without code, quotes, mails and pasted texts."""

import pytest

from services.memory_extraction.own_words import (
    contains_passage,
    own_words,
    passage_about,
    says_something,
)

OTHERS = [
    "My friend Bob says: I love jazz",
    "Bob wrote me yesterday:\nI love jazz\nand more of it",
    "She told me “I love jazz and hate rock”.",
    'He said "I love jazz and hate rock", can you believe it?',
    "„Ich love jazz und hasse Rock“, sagte er.",
    "« I love jazz » , dit-il : I love jazz",
    "»Ich love jazz sehr gern« sagt er.",
    "Look at this:\n> I love jazz\n> and rock",
    "```\nI love jazz\n```",
    "~~~\nI love jazz",
    "Run `I love jazz` for me",
    "<document>I love jazz</document>",
    "<email><body>I love jazz</body></email>",
    "Translate this into German: I love jazz.",
    "Übersetze bitte: I love jazz",
    "Traduis en anglais : I love jazz",
    "Is the following sentence correct: I love jazz",
    "翻译成英文\uff1aI love jazz",
    "我朋友说\uff1aI love jazz",
    "What does he want?\n\nOn Mon, 2 Nov 2026 at 09:00, Bob <bob@example.com> wrote:\nI love jazz",
    "Am 2.11.2026 um 9 Uhr schrieb Bob <bob@example.com>:\nI love jazz",
    "-----Original Message-----\nI love jazz",
    "FYI\nFrom: bob@example.com\nSent: Monday\n\nI love jazz",
    "Von: Bob\nBetreff: Musik\n\nI love jazz",
    "Anna: How are you?\nBob: I love jazz\nAnna: Me too",
    "[09:00] Anna: Hello\n[09:01] Bob: I love jazz\n[09:02] Anna: Ah",
]


@pytest.mark.parametrize("message", OTHERS)
def test_others_words_are_left_out(message: str) -> None:
    assert "love jazz" not in own_words(message)


@pytest.mark.parametrize(
    "message",
    [
        "I love jazz",
        "I said: I love jazz",
        "Ich sagte: I love jazz",
        "> hello\n\nI love jazz",
        "```\nprint()\n```\nI love jazz",
        "<document>x</document> I love jazz",
        "I really <b>love</b> it. I love jazz",
        "Name: Ada\nAllergies: nuts\nI love jazz",
        "« Bonjour à tous » I love jazz « Au revoir à tous »",
        "Bob says: hello\nI love jazz",
        "I love jazz. My dog says hello.",
    ],
)
def test_what_users_say_themselves_stays(message: str) -> None:
    assert "love" in own_words(message)
    assert "jazz" in own_words(message)


def test_short_quotes_stay_since_they_may_be_names() -> None:
    assert own_words('My dog is called "Rex".') == 'My dog is called "Rex".'
    assert own_words("我的狗叫「小白」。") == "我的狗叫「小白」。"


@pytest.mark.parametrize(
    "evil",
    [
        "<a>" * 10_000,
        '"' * 32_000,
        "« " * 16_000,
        "Bob says " * 4_000,
        "On " * 10_000,
        "-" * 32_000,
    ],
)
def test_long_messages_of_one_sort_are_read(evil: str) -> None:
    assert isinstance(own_words(evil), str)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("ok", False),
        ("6 * 7", False),
        ("[…]", False),
        ("Translate: […]", False),
        ("I'm vegan", True),
        ("我吃素", True),
        ("Ja, gern", True),
    ],
)
def test_a_word_alone_says_nothing_about_its_user(own: str, *, expected: bool) -> None:
    assert says_something(own) is expected


@pytest.mark.parametrize(
    "passage",
    [
        "I moved to  Lisbon",
        "i MOVED to lisbon",
        "“I moved to Lisbon.”",
        "moved to\nLisbon",
        "don't",
    ],
)
def test_a_passage_may_differ_by_case_spaces_and_marks(passage: str) -> None:
    assert contains_passage("Hi! I moved to Lisbon, I don\u2019t regret it.", passage)


@pytest.mark.parametrize("passage", ["", "I", "…", "oved to Lis", "I moved to Porto", "Lis"])
def test_what_is_not_there_as_whole_words_is_no_passage(passage: str) -> None:
    assert not contains_passage("I moved to Lisbon.", passage)


def test_scripts_without_spaces_have_passages_too() -> None:
    assert contains_passage("我住在上海\uff0c喜欢喝茶。", "喜欢喝茶")
    assert contains_passage("\uff21\uff44\uff41 likes tea", "Ada likes")


def test_a_note_without_a_quote_gets_the_sentence_that_it_was_made_of() -> None:
    own = "Hello there. I moved to Lisbon in spring. What is the weather?"

    assert passage_about(own, "Moved to Lisbon") == "I moved to Lisbon in spring."
    assert passage_about(own, "Plays the violin") is None
