"""Ids of rows, of workflows and of events; results."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.events import DONE_SEQUENCE, EventId, parse_event_id
from schema.ids import TurnId, new_id, turn_workflow_id
from schema.result import Err, Ok, Result


def test_ids_are_unique_and_in_order_of_creation() -> None:
    ids = [new_id() for _ in range(1_000)]

    assert len(set(ids)) == 1_000
    assert ids == sorted(ids)
    assert {made.version for made in ids} == {7}


def test_a_turn_names_its_workflow() -> None:
    turn_id = TurnId(new_id())

    assert turn_workflow_id(turn_id) == f"turn-{turn_id}"


@given(st.integers(0, 10**17), st.integers(0, 10**17))
def test_an_event_id_is_read_as_it_was_written(milliseconds: int, sequence: int) -> None:
    event_id = EventId(milliseconds, sequence)

    assert parse_event_id(str(event_id)) == event_id


@pytest.mark.parametrize(
    "text",
    [
        "1" * 19 + "-0",
        "0-" + "1" * 19,
        "0x1-1",
        "1.0-1",
        "\u00b2-1",
        "",
        "-",
        "1",
        "1-",
        "-1",
        "1-2-3",
        "a-1",
        "1-a",
        " 1-1",
        "1-1 ",
        "+1-1",
        "1_0-1",
        "\u0661-1",
    ],
)
def test_invalid_event_ids_are_not_parsed(text: str) -> None:
    assert parse_event_id(text) is None


def test_event_ids_are_ordered_as_redis_orders_them() -> None:
    texts = ["0-0", "0-1", "0-999999", "5-0", "5-9", "5-10", "10-0", "10-999999"]
    ids = [parse_event_id(text) for text in texts]

    assert ids == sorted(event_id for event_id in ids if event_id is not None)


def test_an_event_id_says_what_it_is() -> None:
    assert EventId(0, 3).is_snapshot
    assert not EventId(7, 3).is_snapshot
    assert EventId(7, DONE_SEQUENCE).is_done
    assert not EventId(7, 0).is_done


def outcomes() -> list[Result[int, int]]:
    return [Ok(1), Err(1), Ok(2)]


def test_results_are_equal_by_kind_and_value() -> None:
    assert outcomes() == outcomes()
    assert len(set(outcomes())) == 3
