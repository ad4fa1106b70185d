"""The shapes on the wire: money, time, text, names of fields."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schema.chats import CreateChatRequest, SendMessageRequest
from schema.events import DeltaEvent, DoneEvent
from schema.turns import IfBusy, TurnStatus
from schema.usage import TokenUsage
from schema.wire import format_time, format_usd, make_storable


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "0"),
        ("0E-10", "0"),
        ("0.0004200000", "0.00042"),
        ("1E-10", "0.0000000001"),
        ("100", "100"),
        ("1E+3", "1000"),
        ("12.50", "12.5"),
    ],
)
def test_money_is_a_plain_decimal(amount: str, text: str) -> None:
    assert format_usd(Decimal(amount)) == text


@given(st.decimals(min_value=0, max_value=10**9, places=10))
def test_money_keeps_its_value(amount: Decimal) -> None:
    assert Decimal(format_usd(amount)) == amount


def test_times_are_in_utc_with_microseconds() -> None:
    summer_in_rome = timezone(timedelta(hours=2))

    assert format_time(datetime(2026, 7, 1, 12, 0, tzinfo=summer_in_rome)) == (
        "2026-07-01T10:00:00.000000Z"
    )
    assert format_time(datetime(2026, 1, 31, 9, 0, 0, 5, tzinfo=UTC)).endswith(":00.000005Z")


@given(st.text(st.characters(exclude_categories=())))
def test_storable_text_keeps_its_length_and_can_be_encoded(text: str) -> None:
    storable = make_storable(text)

    assert len(storable) == len(text)
    assert b"\x00" not in storable.encode()
    assert make_storable(storable) == storable


def test_storable_text_is_unchanged() -> None:
    assert make_storable("a \U0001f642 \u2028 é") == "a \U0001f642 \u2028 é"
    assert make_storable("a\x00b\ud800c") == "a\ufffdb\ufffdc"


@pytest.mark.parametrize("title", ["", "x" * 201, "a\x00", "a\ud800", 7])
def test_an_unstorable_title_is_rejected(title: object) -> None:
    with pytest.raises(ValidationError):
        CreateChatRequest.model_validate({"title": title})


def test_requests_are_strict_and_know_their_fields() -> None:
    request = SendMessageRequest.model_validate({"content": "a", "ifBusy": "enqueue"})

    assert request.if_busy is IfBusy.ENQUEUE
    for wrong in ({"stream": "true"}, {"unknown": 1}, {"ifBusy": "later"}):
        with pytest.raises(ValidationError):
            SendMessageRequest.model_validate({"content": "a", **wrong})


def test_events_are_one_line_of_camel_case_json_without_absent_fields() -> None:
    done = DoneEvent(status=TurnStatus.CANCELLED, usage=TokenUsage(), cost_usd=Decimal("0.10"))
    delta = DeltaEvent(step=1, attempt=2, text="line\nbreak")

    assert json.loads(done.to_json()) == {
        "status": "cancelled",
        "usage": dict.fromkeys(
            ("inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens"), 0
        ),
        "costUsd": "0.1",
    }
    assert "\n" not in delta.to_json()
    assert json.loads(delta.to_json())["text"] == "line\nbreak"


def test_usage_adds_up() -> None:
    one = TokenUsage(input_tokens=1, output_tokens=2, cache_read_tokens=3, cache_write_tokens=4)

    assert one + one == TokenUsage(
        input_tokens=2, output_tokens=4, cache_read_tokens=6, cache_write_tokens=8
    )
