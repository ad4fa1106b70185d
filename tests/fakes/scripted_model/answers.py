"""Scripted answers: a script's blocks, or those of the demo model's rules, cut at the limit."""

from collections.abc import Iterator
from dataclasses import replace

from tests.fakes.scripted_model.scripts import Script
from workers.demo_model.answers import (
    Answer,
    Block,
    Usage,
    make_answer,
    text_block,
    thinking_block,
    tool_use_block,
)
from workers.demo_model.prompt import Prompt
from workers.demo_model.rules import blocks_by_rules


def scripted_answer(prompt: Prompt, script: Script, cached: Usage | None = None) -> Answer:
    """Return the answer to the prompt, cut where it reaches the request's `max_tokens`.

    `cached` is what the prompt costs where the model has a cache.
    """
    whole = tuple(_blocks(script)) if script.writes_answer else blocks_by_rules(prompt)
    answer = make_answer(
        prompt.model,
        whole,
        max_tokens=prompt.max_tokens,
        input_tokens=prompt.input_tokens,
        stop_reason=script.stop_reason,
    )
    counted, scripted = answer.usage, script.usage
    prompted = cached or Usage(
        input_tokens=_first_given(scripted.input_tokens, counted.input_tokens),
        cache_creation_input_tokens=scripted.cache_creation_input_tokens,
        cache_read_input_tokens=scripted.cache_read_input_tokens,
    )
    output_tokens = _first_given(scripted.output_tokens, counted.output_tokens)
    usage = replace(prompted, output_tokens=output_tokens)
    return replace(answer, usage=usage)


def _blocks(script: Script) -> Iterator[Block]:
    if script.thinking is not None:
        yield thinking_block(script.thinking)
    if script.pieces is not None:
        yield Block("text", script.pieces)
    elif script.text is not None:
        yield text_block(script.text)
    for call in script.tool_calls:
        yield tool_use_block(call.name, call.input, tool_use_id=call.id or "", written=call.written)


def _first_given(scripted: int | None, counted: int) -> int:
    return counted if scripted is None else scripted
