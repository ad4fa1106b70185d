"""Requirements on a prompt before it is activated, and how its placeholders are filled in."""

from datetime import UTC, datetime

import pytest

from services.prompts.base_prompts import filled, unknown_placeholders
from services.prompts.service import problems_of

LATE = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)


def test_a_prompt_that_can_be_used_has_no_problems() -> None:
    assert problems_of('Answer as {"a": 1} or {} or {a b}; today is {date}.', max_tokens=100) == ()


@pytest.mark.parametrize("blank", ["", " ", "\n\t\u2003"])
def test_a_blank_prompt_is_a_problem(blank: str) -> None:
    assert problems_of(blank, max_tokens=100) == ("The prompt must not be blank.",)


def test_a_prompt_must_stay_below_its_token_limit() -> None:
    # A letter is about a third of a token, and the layer has 4 more for its framing.
    assert problems_of("x" * 296, max_tokens=100) == ()
    (problem,) = problems_of("x" * 297, max_tokens=100)
    assert problem.startswith("The prompt is about 100 tokens")


def test_each_unknown_placeholder_is_named_once() -> None:
    content = "{user} {date} {Date} {user} {user_name2}"

    assert unknown_placeholders(content) == ["user", "Date", "user_name2"]
    assert problems_of(content, max_tokens=100) == (
        "Unknown placeholder {user}. Known placeholders: {date}.",
        "Unknown placeholder {Date}. Known placeholders: {date}.",
        "Unknown placeholder {user_name2}. Known placeholders: {date}.",
    )


@pytest.mark.parametrize(
    ("time_zone", "expected"),
    [
        (None, "Saturday, 2026-01-31"),
        ("Europe/Berlin", "Sunday, 2026-02-01"),
        ("America/New_York", "Saturday, 2026-01-31"),
        ("Nowhere/Land", "Saturday, 2026-01-31"),
        ("../etc/passwd", "Saturday, 2026-01-31"),
        ("\x00", "Saturday, 2026-01-31"),
        ("", "Saturday, 2026-01-31"),
    ],
)
def test_the_date_is_that_of_the_user(time_zone: str | None, expected: str) -> None:
    assert filled("It is {date}.", now=LATE, time_zone=time_zone) == f"It is {expected}."


def test_text_that_is_not_a_placeholder_is_unchanged() -> None:
    assert filled("{other} {}", now=LATE, time_zone=None) == "{other} {}"
