"""Owns the making of an answer: a script's or the rules' blocks, within the request's limit."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from uuid import uuid4

from workers.demo_model.blocks import (
    Block,
    cut_blocks,
    text_block,
    thinking_block,
    tool_use_block,
)
from workers.demo_model.prompt import Prompt
from workers.demo_model.rules import blocks_by_rules
from workers.demo_model.scripts import Script
from workers.demo_model.tokens import tokens_of

_THOUGHT = "A demo does not think: it looks for a rule that fits the question."


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


def make_answer(prompt: Prompt, script: Script) -> Answer:
    """Return the answer to the prompt, cut where it reaches the request's `max_tokens`."""
    whole = tuple(_scripted_blocks(script) if script.writes_answer else _own_blocks(prompt))
    blocks = cut_blocks(whole, max_tokens=prompt.max_tokens)
    return Answer(
        id=f"msg_{uuid4().hex[:24]}",
        model=prompt.model,
        blocks=blocks,
        stop_reason=script.stop_reason or _stop_reason(whole, blocks),
        usage=_usage(prompt, blocks, script),
    )


def _own_blocks(prompt: Prompt) -> Iterator[Block]:
    """Yield what the rules say, behind a thought where thinking was asked for."""
    if prompt.thinking != "no":
        yield thinking_block(_THOUGHT if prompt.thinking == "shown" else "")
    yield from blocks_by_rules(prompt)


def _scripted_blocks(script: Script) -> Iterator[Block]:
    if script.thinking is not None:
        yield thinking_block(script.thinking)
    if script.pieces is not None:
        yield Block("text", script.pieces)
    elif script.text is not None:
        yield text_block(script.text)
    for call in script.tool_calls:
        yield tool_use_block(call.name, call.input, tool_use_id=call.id or "", written=call.written)


def _stop_reason(whole: tuple[Block, ...], sent: tuple[Block, ...]) -> str:
    if sent != whole:
        return "max_tokens"
    return "tool_use" if any(block.kind == "tool_use" for block in whole) else "end_turn"


def _usage(prompt: Prompt, blocks: tuple[Block, ...], script: Script) -> Usage:
    scripted = script.usage
    counted_output = tokens_of(sum(block.chars for block in blocks))
    return Usage(
        input_tokens=_first_given(scripted.input_tokens, prompt.input_tokens),
        output_tokens=_first_given(scripted.output_tokens, counted_output),
        cache_creation_input_tokens=scripted.cache_creation_input_tokens,
        cache_read_input_tokens=scripted.cache_read_input_tokens,
    )


def _first_given(scripted: int | None, counted: int) -> int:
    return counted if scripted is None else scripted
