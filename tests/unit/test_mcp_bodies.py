"""What MCP servers write that the SDK's parser would refuse."""

import json

import pytest

from services.mcp.bodies import RepairedLines, repaired


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (rb'"cut \ud83d"', "cut \ufffd"),
        (rb'"\ude00 cut"', "\ufffd cut"),
        (rb'"\uDE00\uD83D"', "\ufffd\ufffd"),
        (rb'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"),
        (rb'"\ud83d\ude00 \\ud83d \\\ud83d"', "\U0001f600 \\ud83d \\\ufffd"),
        (b'\xef\xbb\xbf"marked"', "marked"),
        (rb'"\n\\"', "\n\\"),
    ],
)
def test_json_is_repaired(written: bytes, read: str) -> None:
    assert json.loads(repaired(written)) == read


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_a_stream_is_repaired_however_it_is_cut(size: int, end: bytes) -> None:
    stream = end.join([b"\xef\xbb\xbfdata: {}", b"", rb'data: "\ud83d\ude00 \ud83d"', b"", b""])
    lines = RepairedLines()

    passed_on = b"".join(
        lines.feed(stream[start : start + size]) for start in range(0, len(stream), size)
    )

    assert passed_on == end.join([b"data: {}", b"", rb'data: "\ud83d\ude00 \ufffd"', b"", b""])


def test_a_line_without_end_is_not_held() -> None:
    lines = RepairedLines()

    passed_on = sum(len(lines.feed(b"x" * 10_000)) for _ in range(1_000))

    assert passed_on > 8_000_000
