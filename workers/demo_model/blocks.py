"""Owns the blocks of an answer, each already cut into the deltas that will carry it."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal
from uuid import uuid4

from workers.demo_model.tokens import CHARS_PER_TOKEN, split_pieces


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
        """How many characters the block is billed for."""
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
