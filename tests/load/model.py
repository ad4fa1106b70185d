"""The model of the benchmark: the Messages API over bare sockets, for little CPU.

    python -m tests.load.model PORT

A message says itself how it is answered (`Play`), so that no call takes the answer of another.
Each token is the moment at which it was sent (`STAMP`): a client sees how long it was under way.
Background calls (memories, titles) get the answers of the demo model's rules.
"""

import asyncio
import json
import re
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any, Final, cast

import httptools
import uvloop

from workers.demo_model import wire
from workers.demo_model.answers import Answer, Block, make_answer, tool_use_block
from workers.demo_model.prompt import content_blocks, read_prompt
from workers.demo_model.rules import blocks_by_rules

ALL_GATES: Final = "all"
_PLAY: Final = re.compile(r"\[play (\{.*?\})\]")
_TOOL_INPUTS: Final = {"calculator": {"expression": "6 * 7"}}
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n"
)
_PING: Final = wire.sse_event({"type": "ping"})
_BEFORE, _, _BEHIND = next(wire.content_block_deltas(0, Block("text", ("@",))))[1].partition(b"@")


@dataclass(frozen=True, slots=True)
class Play:
    """How a message is answered: with tokens, before them a word and a call of `tool` if named.

    With `hold` the answer stops behind its first token until that gate is opened.
    """

    first_s: float = 0.05
    tokens: int = 10
    between_s: float = 0.01
    tool: str = ""
    hold: str = ""

    @property
    def message(self) -> str:
        """The message that is answered so."""
        return f"Say something plain. [play {json.dumps(asdict(self))}]"


def play_of(body: dict[str, Any]) -> Play | None:
    """Return how the newest message that says so is to be answered; background calls quote it."""
    prompt = read_prompt(body)
    if prompt.wants_memories or prompt.wants_title or prompt.wants_summary:
        return None
    for message in reversed(body["messages"]):
        if message["role"] != "user":
            continue
        for block in reversed(content_blocks(message["content"])):
            if found := _PLAY.search(block.get("text", "")):
                return Play(**json.loads(found[1]))
    return None


def _asks_for_tool(body: dict[str, Any], play: Play) -> bool:
    newest = content_blocks(body["messages"][-1]["content"])
    has_result = any(block["type"] == "tool_result" for block in newest)
    return bool(play.tool) and not has_result


class _Answers:
    """The answers of one server, and the gates at which some of them wait."""

    def __init__(self) -> None:
        self.gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def release(self, name: str) -> None:
        """Open a gate, or all at which something waits."""
        names = list(self.gates) if name == ALL_GATES else [name]
        for each in names:
            self.gates[each].set()

    async def play(self, transport: asyncio.Transport, content: bytes) -> None:
        """Answer one request. Errors: those of a request that is not one of the Messages API."""
        arrived = asyncio.get_running_loop().time()
        body = json.loads(content)
        play = play_of(body)
        if play is None:
            blocks = blocks_by_rules(read_prompt(body))
            play = Play(first_s=0.05, between_s=0.0)
        elif _asks_for_tool(body, play):
            call = tool_use_block(play.tool, _TOOL_INPUTS.get(play.tool, {}))
            blocks = (Block("text", ("Wait. ",)), call)
        else:
            blocks = (Block("text", (f"{0:016} ",) * play.tokens),)
        answer = make_answer(
            body["model"],
            blocks,
            max_tokens=body["max_tokens"],
            input_tokens=len(content) // 4,
        )
        await _until(arrived + play.first_s)
        if not body.get("stream"):
            transport.write(_response(wire.message_body(answer)))
        elif play.tokens and blocks[0].content.startswith("0" * 16):
            await self._stream(transport, answer, play)
        else:
            transport.write(_HEAD + _chunk(_whole(answer)) + b"0\r\n\r\n")

    async def _stream(self, transport: asyncio.Transport, answer: Answer, play: Play) -> None:
        begun = asyncio.get_running_loop().time()
        begin = wire.message_start(answer, answer.usage) + wire.content_block_start(
            0, answer.blocks[0]
        )
        transport.write(_HEAD + _chunk(begin + _PING + _token()))
        if play.hold:
            await self.gates[play.hold].wait()
        for number in range(1, play.tokens):
            # By the clock, so that a slow reader or a busy machine delays no later token.
            await _until(begun + number * play.between_s)
            transport.write(_chunk(_token()))
        end = wire.content_block_stop(0) + wire.message_delta(answer) + wire.MESSAGE_STOP
        transport.write(_chunk(end) + b"0\r\n\r\n")


def _whole(answer: Answer) -> bytes:
    parts = [wire.message_start(answer, answer.usage)]
    for index, block in enumerate(answer.blocks):
        parts.append(wire.content_block_start(index, block))
        parts += [delta for _, delta in wire.content_block_deltas(index, block)]
        parts.append(wire.content_block_stop(index))
    return b"".join([*parts, wire.message_delta(answer), wire.MESSAGE_STOP])


def _token() -> bytes:
    return b"%s%016d %s" % (_BEFORE, time.perf_counter_ns() // 1000, _BEHIND)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _response(body: bytes, status: bytes = b"200 OK") -> bytes:
    return (
        b"HTTP/1.1 %s\r\ncontent-type: application/json\r\nrequest-id: req_bench\r\n"
        b"content-length: %d\r\n\r\n%s" % (status, len(body), body)
    )


async def _until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - asyncio.get_running_loop().time()))


class _Protocol(asyncio.Protocol):
    """One connection, kept alive; httptools calls the methods `on_…`."""

    def __init__(self, answers: _Answers) -> None:
        self._answers = answers
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._playing: asyncio.Task[None] | None = None
        self._url, self._body = b"", bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's own, which is no subclass.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._playing is not None:
            self._playing.cancel()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url, self._body = b"", bytearray()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        transport = self._transport
        if transport is None:
            return
        path = self._url.partition(b"?")[0]
        if path == b"/v1/messages":
            self._playing = asyncio.create_task(self._play(transport, bytes(self._body)))
        elif path.startswith(b"/release/"):
            self._answers.release(path.removeprefix(b"/release/").decode())
            transport.write(_response(b"{}"))
        else:
            refusal = wire.Refusal(404, "No such endpoint.")
            body = wire.encode_json(refusal.as_json("req_bench"))
            transport.write(_response(body, b"404 Not Found"))

    async def _play(self, transport: asyncio.Transport, content: bytes) -> None:
        """Answer; a client must not wait for what can't be answered."""
        try:
            await self._answers.play(transport, content)
        except Exception:
            transport.abort()
            raise


async def _serve(port: int) -> None:
    answers = _Answers()
    server = await asyncio.get_running_loop().create_server(
        lambda: _Protocol(answers), "127.0.0.1", port, backlog=2048
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
