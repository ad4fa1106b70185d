"""Limits on a stdio server's output: lines, answers, and the amount between two answers."""

import asyncio
import json
from pathlib import Path

import pytest
from mcp_types import JSONRPCRequest, JSONRPCResponse

from services.mcp.addresses import HomeDirectories
from services.mcp.errors import McpServerError
from services.mcp.limits import MAX_BYTES, TOO_LONG, Line, Part, TokenBucket, Traffic, bounded_lines


async def read(*chunks: bytes, max_bytes: int = 1_000) -> list[Line]:
    stream = asyncio.StreamReader()
    for chunk in chunks:
        stream.feed_data(chunk)
    stream.feed_eof()
    pieces = [piece async for piece in bounded_lines(stream, max_bytes=max_bytes)]
    assert sum(piece.size for piece in pieces) == sum(map(len, chunks))
    return [piece for piece in pieces if not isinstance(piece, Part)]


async def test_lines_are_read_however_they_come() -> None:
    lines = await read(b"one\ntw", b"o\n", b"\n", b"unfinished")

    assert [line.text for line in lines] == [b"one", b"two", b""]


async def test_a_line_that_is_too_long_keeps_its_ends() -> None:
    long = b"begin" + b"x" * 300_000 + b"end"

    first, second = await read(long, b"\nnext\n")

    assert first.is_too_long
    assert (first.text, first.head[:5], first.tail[-3:]) == (b"", b"begin", b"end")
    assert len(first.head) + len(first.tail) <= 1_024
    assert second.text == b"next"


def asked(*numbers: int) -> Traffic:
    traffic = Traffic()
    for number in numbers:
        traffic.note_sent(JSONRPCRequest(jsonrpc="2.0", id=number, method="tools/call"))
    return traffic


def answer(number: int | str) -> JSONRPCResponse:
    return JSONRPCResponse(jsonrpc="2.0", id=number, result={})


def test_an_answer_is_delivered_once() -> None:
    traffic = asked(1)

    assert [traffic.is_expected(answer(1)), traffic.is_expected(answer(1))] == [True, False]
    assert not traffic.is_expected(answer(99))


def test_answers_that_were_waited_for_allow_more() -> None:
    traffic = asked(1, 2)
    traffic.count_received(MAX_BYTES - 10)
    traffic.is_expected(answer(77))
    traffic.is_expected(answer(1))
    traffic.count_received(MAX_BYTES - 10)

    with pytest.raises(McpServerError, match="without answering"):
        traffic.count_received(MAX_BYTES)


def test_stray_lines_are_forgiven_up_to_a_number() -> None:
    traffic = Traffic()
    for _ in range(1_000):
        traffic.count_stray_line()

    with pytest.raises(McpServerError, match="non-MCP output"):
        stray_often(traffic)


def stray_often(traffic: Traffic) -> None:
    for _ in range(100):
        traffic.count_stray_line()


@pytest.mark.parametrize(
    ("head", "tail"),
    [
        (b'{"jsonrpc":"2.0","id":7,"result":{', b"x"),
        (b'{"id": 7, "jsonrpc": "2.0", "result"', b"x"),
        (b'{"result":{', b'x"}]},"jsonrpc":"2.0","id":7}'),
        (b'{"result":{', b'x"}]},"id":7,"jsonrpc":"2.0"}\r'),
    ],
)
def test_an_answer_that_is_too_long_fails_the_call_that_it_answers(
    head: bytes, tail: bytes
) -> None:
    error = asked(7).oversized_answer(Line(b"", 10, head, tail))

    assert (error.id, error.error.message) == (7, TOO_LONG)


async def test_a_line_of_too_many_items_is_too_long_and_one_with_many_commas_is_not() -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(b'{"a": "' + b"a,b[{" * 50_000 + b'"}\n{"a": [' + b"[]," * 60_000 + b"0]}\n")
    stream.feed_eof()

    lines = [
        piece
        async for piece in bounded_lines(stream, max_bytes=MAX_BYTES)
        if isinstance(piece, Line)
    ]

    assert [line.is_too_long for line in lines] == [False, True]


@pytest.mark.parametrize("number", [8, "x"])
def test_a_line_that_is_too_long_and_answers_nothing_ends_the_connection(number: object) -> None:
    head = json.dumps({"jsonrpc": "2.0", "id": number, "result": {}}).encode()

    with pytest.raises(McpServerError, match="a line of more than"):
        asked(7).oversized_answer(Line(b"", 10, head, b"x"))


def test_an_allowance_recovers_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("services.mcp.limits.monotonic", lambda: now)
    allowance = TokenBucket(100, refill_s=10)
    assert allowance.take(100)
    assert not allowance.take(1)

    now = 5.0

    assert allowance.take(49)
    assert not allowance.take(49)


def test_a_home_is_private_and_stays(tmp_path: Path) -> None:
    homes = HomeDirectories(tmp_path / "homes")
    (homes.create("a") / "kept").touch()
    homes.create("a").chmod(0o755)

    home = homes.create("a")

    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "kept").exists()


def test_a_home_that_is_a_link_is_refused(tmp_path: Path) -> None:
    homes = HomeDirectories(tmp_path / "homes")
    homes.create("a")
    (tmp_path / "homes" / "b").symlink_to(tmp_path)

    with pytest.raises(McpServerError, match="home directory can't be used"):
        homes.create("b")
