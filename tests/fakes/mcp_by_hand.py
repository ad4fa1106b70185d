"""An MCP server over stdio without the SDK, that does what no SDK would let it do.

It takes a mode: `python mcp_by_hand.py twice`. It imports nothing but the standard library, so
that it is there at once.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

INFO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "by hand", "version": "1"},
}


TOOLS: list[Any] = [
    {"name": "right", "inputSchema": {"type": "object"}},
    {"name": "vow", "inputSchema": {"type": "object"}, "outputSchema": "a number"},
    {"name": "odd", "inputSchema": {"type": "object", "properties": {"a": 7}}},
    {"name": "bare"},
    {"name": "loud", "description": 7, "inputSchema": {"type": "object"}},
    7,
]


def say(message: dict[str, Any]) -> None:
    """Write a message."""
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def answer(request: Any, words: object) -> None:  # noqa: ANN401 -- an id
    """Answer a call."""
    say({"id": request, "result": {"content": [{"type": "text", "text": str(words)}]}})


def _twice(request: Any) -> None:  # noqa: ANN401 -- an id
    for words in ("the first", "the second"):
        answer(request, words)


def _unknown(request: Any) -> None:  # noqa: ANN401 -- an id
    answer(987654, "to nobody")
    answer("no number", "to nobody")
    answer(request, "to somebody")


def _no_json(request: Any) -> None:  # noqa: ANN401 -- an id
    sys.stdout.write("Traceback: {not json\n\xff\n\n")
    answer(request, "after all")


def _id_last(request: Any) -> None:  # noqa: ANN401 -- an id
    text = json.dumps([{"type": "text", "text": "x" * 6_000_000}])
    sys.stdout.write(f'{{"result":{{"content":{text}}},"jsonrpc":"2.0","id":{request}}}\n')
    sys.stdout.flush()


def _half_a_pair(request: Any) -> None:  # noqa: ANN401 -- an id
    answer(request, "cut in half \ud83d")


def _deep(request: Any) -> None:  # noqa: ANN401 -- an id
    deep = "[" * 5_000 + "]" * 5_000
    result = f'{{"content":[],"structuredContent":{{"a":{deep}}}}}'
    sys.stdout.write(f'{{"jsonrpc":"2.0","id":{request},"result":{result}}}\n')
    sys.stdout.flush()


def _notify(_: Any) -> None:  # noqa: ANN401 -- an id
    while True:
        say({"method": "notifications/message", "params": {"level": "info", "data": "x"}})


def _endless_line(_: Any) -> None:  # noqa: ANN401 -- an id
    while True:
        sys.stdout.write("x" * 65536)


MISBEHAVIOUR: dict[str, Callable[[Any], object]] = {
    "twice": _twice,
    "unknown": _unknown,
    "no_json": _no_json,
    "no_result": lambda request: say({"id": request, "result": {"content": "not a list"}}),
    "id_last": _id_last,
    "half_a_pair": _half_a_pair,
    "deep": _deep,
    "notify": _notify,
    "endless_line": _endless_line,
    "die": lambda _: os._exit(5),
    "pid": lambda request: answer(request, os.getpid()),
    "silence": lambda _: Path("silent").touch(),
    "where": lambda request: answer(
        request, json.dumps({"cwd": str(Path.cwd()), "env": dict(os.environ)})
    ),
}


def main(mode: str) -> None:
    """Serve until the input ends; some modes are deaf to that, or crash now and then."""
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("method") == "initialize":
            if mode == "mute":
                time.sleep(3600)
            say({"id": message["id"], "result": INFO})
        elif message.get("method") == "tools/list":
            say({"id": message["id"], "result": {"tools": TOOLS}})
        elif message.get("method") == "tools/call":
            tool = message["params"]["name"]
            MISBEHAVIOUR[mode if tool == "misbehave" else tool](message["id"])


if __name__ == "__main__":
    main(*sys.argv[1:])
