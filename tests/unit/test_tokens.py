"""Estimates of tokens, against counts of a real tokenizer that are kept beside the texts.

The counts are those of Anthropic's published tokenizer: `countTokens` of npm's
`@anthropic-ai/tokenizer` 0.0.4. The texts were written for this test; no cost was fitted to them.
`pytest -s` prints the table.
"""

import json
from math import ceil
from pathlib import Path
from statistics import mean
from typing import Final, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.prompts.tokens import exact_tokens, start_of, tokens_of, written_tokens


class Counted(NamedTuple):
    """A text, and how many tokens it has."""

    name: str
    tokens: int
    text: str


COUNTED: Final = [
    Counted(**found)
    for found in json.loads(Path("tests/fixtures/token_counts.json").read_text("utf-8"))
]
LEAST_RATIO: Final = 0.9
MOST_RATIO: Final = 1.35


@pytest.mark.parametrize("counted", COUNTED, ids=lambda counted: counted.name)
def test_an_estimate_is_close_to_the_tokenizers_count(counted: Counted) -> None:
    ratio = exact_tokens(counted.text) / counted.tokens

    assert LEAST_RATIO <= ratio <= MOST_RATIO


def test_estimates_are_slightly_high_on_average_as_the_table_shows() -> None:
    ratios = {text.name: exact_tokens(text.text) / text.tokens for text in COUNTED}

    print(f"\n{'text':24}{'counted':>8}{'estimate':>10}{'error':>8}")
    for text in sorted(COUNTED, key=lambda text: ratios[text.name]):
        estimate = ceil(exact_tokens(text.text))
        print(f"{text.name:24}{text.tokens:8}{estimate:10}{ratios[text.name] - 1:+8.0%}")
    print(f"{'mean':24}{mean(ratios.values()) - 1:+26.0%}")
    assert len(ratios) == len(COUNTED) >= 45
    assert 1.0 <= mean(ratios.values()) <= 1.15
    assert mean(abs(ratio - 1) for ratio in ratios.values()) <= 0.15


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("x", 1, 2),
        ("the " * 1000, 700, 1600),
        ("th" * 1000, 300, 1000),
        ("1" * 1000, 50, 1000),
        ("\u0434" * 400, 200, 450),
        ("\u5b57" * 400, 400, 800),
        ("\U0001f600" * 100, 200, 450),
        ("\ud800", 1, 4),
        ("\x00\x01", 0, 4),
        (" \n" * 100, 50, 150),
    ],
    ids=ascii,
)
def test_odd_texts_have_plausible_estimates(text: str, least: int, most: int) -> None:
    assert least <= written_tokens(text) <= most


@given(st.text())
def test_a_message_has_tokens_for_its_framing_unless_it_is_empty(text: str) -> None:
    assert tokens_of(text) == (written_tokens(text) + 4 if text else 0)
    assert written_tokens(text) >= 0


@given(st.text(max_size=60), st.text(max_size=60))
def test_estimates_of_parts_add_up_to_no_less_than_that_of_the_whole(one: str, two: str) -> None:
    assert exact_tokens(one) + exact_tokens(two) >= exact_tokens(f"{one}{two}") - 4


@given(st.text(), st.integers(-5, 100))
def test_the_start_of_a_text_fits(text: str, tokens: int) -> None:
    start = start_of(text, tokens=tokens)

    assert text.startswith(start)
    assert not start or tokens_of(start) <= tokens
    assert start == text or tokens_of(text) > tokens or tokens < 5


def test_the_start_of_a_long_text_is_nearly_all_that_fits() -> None:
    text = COUNTED[0].text * 20

    assert 480 <= tokens_of(start_of(text, tokens=500)) <= 500
