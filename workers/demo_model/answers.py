"""Answers: blocks already cut into the deltas that will carry them, and what they cost.

Tokens are counted by a convention (four characters each), not by a tokenizer.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal
from uuid import uuid4

CHARS_PER_TOKEN = 4
_CHARS_OF_FILE = 1_600 * CHARS_PER_TOKEN
_PIECE = re.compile(r"\s*\S{1,12}|\s+")


def tokens_of(chars: int) -> int:
    """Return the tokens of a number of characters: a quarter, rounded up, at least one."""
    return max(1, -(-chars // CHARS_PER_TOKEN))


def split_pieces(text: str) -> tuple[str, ...]:
    """Split text into word-like pieces which, joined, are the text again."""
    return tuple(_PIECE.findall(text))


def input_tokens_of(body: dict[str, Any]) -> int:
    """Return the tokens of a request: its system prompt, its tools and its messages."""
    contents = [message.get("content") for message in body["messages"]]
    return tokens_of(
        chars_of(body.get("system")) + chars_of(body.get("tools")) + chars_of(contents)
    )


def chars_of(value: object) -> int:
    """Return the characters of a part of a request that count: texts alone, or its JSON."""
    match value:
        case None:
            return 0
        case str():
            return len(value)
        case {"type": "text", "text": str(text)}:
            return len(text)
        case {"type": "tool_result", **rest}:
            return chars_of(rest.get("content"))
        case Sequence():
            return sum(chars_of(item) for item in value)
        case _:
            is_file = isinstance(value, dict) and value.get("type") in {"image", "document"}
            return _CHARS_OF_FILE if is_file else len(json.dumps(value, ensure_ascii=False))


@dataclass(frozen=True, slots=True)
class Block:
    """One content block; the pieces of a `tool_use` are the JSON of its input."""

    kind: Literal["text", "thinking", "tool_use"]
    pieces: tuple[str, ...]
    tool_use_id: str = ""
    tool_name: str = ""

    @property
    def content(self) -> str:
        """The pieces, joined."""
        return "".join(self.pieces)

    @property
    def chars(self) -> int:
        """The number of characters that the block is billed for."""
        return sum(map(len, self.pieces))


def text_block(text: str) -> Block:
    """Return a text block in word-like pieces."""
    return Block("text", split_pieces(text))


def thinking_block(text: str) -> Block:
    """Return a thinking block in word-like pieces."""
    return Block("thinking", split_pieces(text))


def tool_use_block(
    name: str, tool_input: dict[str, Any], *, tool_use_id: str = "", written: str | None = None
) -> Block:
    """Return a call of the tool, with a new id unless one is given.

    `written` takes the place of the JSON of its input.
    """
    return Block(
        "tool_use",
        split_pieces(json.dumps(tool_input, ensure_ascii=False) if written is None else written),
        tool_use_id=tool_use_id or f"toolu_{uuid4().hex[:24]}",
        tool_name=name,
    )


def cut_blocks(blocks: Iterable[Block], *, max_tokens: int) -> tuple[Block, ...]:
    """Return as much of the blocks as `max_tokens` pay for; what is left of a block stays whole."""
    return tuple(_within(blocks, max_tokens * CHARS_PER_TOKEN))


def _within(blocks: Iterable[Block], chars_left: int) -> Iterator[Block]:
    for block in blocks:
        if chars_left <= 0:
            return
        yield (
            block
            if block.chars <= chars_left
            else replace(block, pieces=tuple(_head(block.pieces, chars_left)))
        )
        chars_left -= block.chars


def _head(pieces: tuple[str, ...], chars_left: int) -> Iterator[str]:
    for piece in pieces:
        if chars_left <= 0:
            return
        yield piece[:chars_left]
        chars_left -= len(piece)


@dataclass(slots=True)
class Usage:
    """The tokens that a request is billed for."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0

    def as_json(self) -> dict[str, int]:
        """Return the counts under their names on the wire."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer before it is sent; `usage` is that of the answer sent to its end."""

    id: str
    model: str
    blocks: tuple[Block, ...]
    stop_reason: str
    usage: Usage


def make_answer(
    model: str,
    whole: tuple[Block, ...],
    *,
    max_tokens: int,
    input_tokens: int,
    stop_reason: str | None = None,
    usage: Usage | None = None,
) -> Answer:
    """Return the answer of these blocks, cut where it reaches `max_tokens`.

    The stop reason and the usage follow from the blocks unless they are given.
    """
    sent = cut_blocks(whole, max_tokens=max_tokens)
    output_tokens = tokens_of(sum(block.chars for block in sent))
    return Answer(
        id=f"msg_{uuid4().hex[:24]}",
        model=model,
        blocks=sent,
        stop_reason=stop_reason or _stop_reason(whole, sent),
        usage=usage or Usage(input_tokens=input_tokens, output_tokens=output_tokens),
    )


def _stop_reason(whole: tuple[Block, ...], sent: tuple[Block, ...]) -> str:
    if sent != whole:
        return "max_tokens"
    return "tool_use" if any(block.kind == "tool_use" for block in whole) else "end_turn"
