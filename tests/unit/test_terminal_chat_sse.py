import pytest

from workers.terminal_chat.sse import EventParser, ServerSentEvent


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


def test_an_event_without_data_is_not_given_out_but_its_id_counts() -> None:
    parser = EventParser()
    assert parser.feed(b"id: 5\nevent: step\n\ndata: x\n\n") == [
        ServerSentEvent("message", "x", "5")
    ]
    assert parser.last_event_id == "5"


def test_an_event_that_is_cut_short_gives_neither_data_nor_id() -> None:
    parser = EventParser(last_event_id="3")
    assert parser.feed(b"id: 4\ndata: half\n") == []
    assert parser.last_event_id == "3"


def test_separators_of_unicode_are_no_line_ends() -> None:
    assert parse("data: a\u2028b\x85c\x0bd\n\n".encode()) == [
        ServerSentEvent("message", "a\u2028b\x85c\x0bd", "")
    ]


def test_a_second_byte_order_mark_is_text() -> None:
    assert parse("\ufeffdata: \ufeff\n\n".encode()) == [ServerSentEvent("message", "\ufeff", "")]


def test_bytes_that_are_no_utf_8_become_replacement_characters() -> None:
    assert parse(b"data: \xff\n\n") == [ServerSentEvent("message", "\ufffd", "")]
