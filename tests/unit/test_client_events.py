"""How the client parses events and derives a turn's state."""

import json

import pytest

from everturn_client import EventParser, TurnState, UnexpectedResponseError, parse_event
from everturn_client.events import ServerSentEvent, UnknownEvent
from tests.fakes.scripted_api import ScriptedEvent, delta, done, step, tool_call


def parse(*chunks: bytes, last_event_id: str = "") -> list[ServerSentEvent]:
    parser = EventParser(last_event_id=last_event_id)
    return [event for chunk in chunks for event in parser.feed(chunk)]


STREAM = (
    '\ufeff: hello\n\nid: 1\nevent: delta\ndata: {"text":"žluť 🙂"}\n\n'
    "id: 2\r\ndata:first\r\ndata:  second\r\n\r\n"
    "event: done\rdata\rdata: x: y\r\rretry: 10\nunknown: 1\n\n"
).encode()
EVENTS = [
    ServerSentEvent("delta", '{"text":"žluť 🙂"}', "1"),
    ServerSentEvent("message", "first\n second", "2"),
    ServerSentEvent("done", "\nx: y", "2"),
]


def test_every_kind_of_line_end_ends_a_line() -> None:
    assert parse(STREAM) == EVENTS


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_chunks_may_end_anywhere(size: int) -> None:
    chunks = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    assert parse(*chunks) == EVENTS


def test_every_single_cut_gives_the_same_events() -> None:
    for cut in range(len(STREAM) + 1):
        assert parse(STREAM[:cut], STREAM[cut:]) == EVENTS


def test_an_empty_chunk_between_a_carriage_return_and_its_line_feed_changes_nothing() -> None:
    expected = [ServerSentEvent("message", "a\nb", "")]
    assert parse(b"data: a\r", b"", b"\ndata: b\n\n") == expected


def test_an_id_with_a_nul_is_ignored() -> None:
    events = parse(b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n")
    assert [event.last_event_id for event in events] == ["1", "1"]


def test_an_empty_id_resets_the_last_one() -> None:
    assert parse(b"id\ndata: a\n\n", last_event_id="9") == [ServerSentEvent("message", "a", "")]


def test_an_event_without_data_is_skipped_but_its_id_counts() -> None:
    parser = EventParser()
    assert parser.feed(b"id: 5\nevent: step\n\ndata: x\n\n") == [
        ServerSentEvent("message", "x", "5")
    ]
    assert parser.last_event_id == "5"


def test_a_truncated_event_has_neither_data_nor_id() -> None:
    parser = EventParser(last_event_id="3")
    assert parser.feed(b"id: 4\ndata: half\n") == []
    assert parser.last_event_id == "3"


def test_unicode_separators_do_not_end_lines() -> None:
    assert parse("data: a\u2028b\x85c\x0bd\n\n".encode()) == [
        ServerSentEvent("message", "a\u2028b\x85c\x0bd", "")
    ]


def test_a_second_byte_order_mark_is_text() -> None:
    assert parse("\ufeffdata: \ufeff\n\n".encode()) == [ServerSentEvent("message", "\ufeff", "")]


def test_invalid_utf_8_becomes_replacement_characters() -> None:
    assert parse(b"data: \xff\n\n") == [ServerSentEvent("message", "\ufffd", "")]


def state_of(*events: ScriptedEvent) -> TurnState:
    state = TurnState()
    for name, data in events:
        state.apply(parse_event(ServerSentEvent(name, json.dumps(data), "7-0")))
    return state


def test_the_message_is_the_text_of_the_steps_in_their_order() -> None:
    state = state_of(step(2), delta(2, "42."), step(1), delta(1, "It "), delta(1, "is "))
    assert state.text == "It is 42."


def test_a_new_attempt_clears_its_step_and_no_other() -> None:
    events = [step(1), delta(1, "a"), step(2), delta(2, "b"), step(2, attempt=2)]
    assert state_of(*events).text == "a"
    assert state_of(*events, delta(2, "c", attempt=2)).text == "ac"


def test_the_same_attempt_again_clears_its_step() -> None:
    assert state_of(step(1), delta(1, "ab"), step(1), delta(1, "abc")).text == "abc"


def test_an_older_attempt_does_not_count() -> None:
    late = [step(1, attempt=1), delta(1, "old", attempt=1)]
    assert state_of(step(1, attempt=2), delta(1, "new", attempt=2), *late).text == "new"


def test_text_of_a_newer_attempt_clears_even_without_its_step() -> None:
    assert state_of(step(1), delta(1, "a"), delta(1, "b", attempt=2)).text == "b"


def test_the_stored_message_stands_where_it_differs() -> None:
    state = state_of(step(1), delta(1, "heard"), done("stored"))
    assert (state.streamed_text, state.text) == ("heard", "stored")


def test_a_turn_that_ends_without_a_message_keeps_the_received_text() -> None:
    state = state_of(step(1), delta(1, "part"), ("done", {"status": "failed"}))
    assert state.text == "part"


def test_a_tool_call_keeps_its_input_and_its_latest_status() -> None:
    last = ("tool_call", {"toolCallId": "call-1", "name": "calculator", "status": "completed"})
    state = state_of(step(1), tool_call(1, "requested"), last)
    [call] = state.tool_calls.values()
    assert (call.input, call.status) == ({"expression": "6*7"}, "completed")


def test_a_new_attempt_retracts_its_tool_calls_and_a_snapshot_does_not() -> None:
    requested = [step(1), tool_call(1, "requested")]
    assert state_of(*requested, step(1, attempt=2)).tool_calls == {}
    assert len(state_of(*requested, step(1)).tool_calls) == 1


def test_a_repeated_notice_is_stored_once() -> None:
    notice: ScriptedEvent = ("notice", {"code": "FALLBACK", "message": "Another model."})
    assert len(state_of(notice, notice).notices) == 1


@pytest.mark.parametrize("data", ['{"mood": "fine"}', "7", "no JSON", ""])
def test_events_of_a_newer_server_pass_through(data: str) -> None:
    event = parse_event(ServerSentEvent("weather", data, "7-1"))

    assert isinstance(event, UnknownEvent)
    assert (event.type, event.id) == ("weather", "7-1")
    assert state_of(step(1), ("weather", {})).text == ""


def test_fields_of_a_newer_server_are_kept() -> None:
    sent = ServerSentEvent("step", '{"step": 1, "attempt": 1, "mood": "fine"}', "7-1")

    assert parse_event(sent).model_extra == {"mood": "fine"}


@pytest.mark.parametrize("data", ['{"step": "one"}', "7", "no JSON", "[" * 100_000])
def test_an_event_that_does_not_fit_its_name_is_named_in_the_error(data: str) -> None:
    with pytest.raises(UnexpectedResponseError, match="`delta`"):
        parse_event(ServerSentEvent("delta", data, "7-1"))


def test_the_model_is_that_of_the_steps_not_one_that_a_tool_asked() -> None:
    of_tool = {"step": 1, "attempt": 1, "model": "claude-opus-5-5", "toolCallId": "call-1"}
    assert state_of(step(1), ("usage", of_tool)).model == "scripted-model"
