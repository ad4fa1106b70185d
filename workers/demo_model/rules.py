"""Owns what the demo model says of its own: a few rules, and the plain word that it is a demo."""

import json
import re
from collections.abc import Iterator
from textwrap import shorten

from workers.demo_model.arithmetic import find_arithmetic
from workers.demo_model.blocks import Block, text_block, tool_use_block
from workers.demo_model.clock import find_clock_question
from workers.demo_model.commands import WantedCall, find_call, find_phrase
from workers.demo_model.prompt import Prompt, ToolOutcome

_WRAPPED = re.compile(r"\s*<([\w-]+)[^>]*>\s*(.*?)\s*</\1>\s*", re.DOTALL)
_QUOTED_CHARS = 200


def blocks_by_rules(prompt: Prompt) -> tuple[Block, ...]:
    """Return the answer: from the tool results if there are any, else tool calls, else a text."""
    if prompt.outcomes:
        return (text_block(_report(prompt.outcomes)),)
    if wanted := find_call(prompt.question, offered=prompt.tools):
        return (_called(wanted, prompt),)
    return tuple(_tool_calls(prompt)) or (text_block(_introduction(prompt)),)


def _called(wanted: WantedCall, prompt: Prompt) -> Block:
    if wanted.name not in prompt.tools:
        offered = ", ".join(sorted(prompt.tools)) or "none"
        return text_block(f"The tool {wanted.name} is not offered. Those that are: {offered}.")
    if wanted.input is None:
        return text_block(f"What stands behind “call {wanted.name}” is no JSON object.")
    return tool_use_block(wanted.name, wanted.input)


def _tool_calls(prompt: Prompt) -> Iterator[Block]:
    wanted = find_phrase(prompt.question, offered=prompt.tools)
    if wanted is not None and wanted.input is not None:
        yield tool_use_block(wanted.name, wanted.input)
        return
    if "calculator" in prompt.tools and (expression := find_arithmetic(prompt.question)):
        yield tool_use_block("calculator", {"expression": expression})
    if "datetime" in prompt.tools and (zone := find_clock_question(prompt.question)):
        yield tool_use_block("datetime", {"operation": "now", "timezone": zone})


def _introduction(prompt: Prompt) -> str:
    return (
        "I am the demo model: I follow a few rules and am no language model. "
        f"{_what_was_written(prompt.question)} "
        f"{_what_came_before(prompt.earlier_messages)} "
        "Set ANTHROPIC_API_KEY and start Everturn again to talk to a real one."
    )


def _what_was_written(question: str) -> str:
    if not question.strip():
        return "You wrote no text."
    return f"You wrote “{_quoted(question)}”."


def _what_came_before(earlier_messages: int) -> str:
    if earlier_messages == 0:
        return "I can see no earlier message."
    return f"I can see {earlier_messages} earlier message{'s' * (earlier_messages > 1)}."


def _report(outcomes: tuple[ToolOutcome, ...]) -> str:
    return f"By its tools the demo model knows: {'; '.join(map(_finding, outcomes))}."


def _finding(outcome: ToolOutcome) -> str:
    said = _quoted(_unwrapped(outcome.output)).rstrip(".")
    if outcome.failed:
        return f"{outcome.name} failed with “{said}”"
    match outcome.name, outcome.input:
        case "calculator", {"expression": expression}:
            return f"{expression} = {said}"
        case "datetime", {"timezone": zone}:
            return f"in {zone} it is {said}"
        case _:
            return f"{outcome.name} answered “{said}”"


def _unwrapped(output: str) -> str:
    """Take a tool's result out of the marks and the JSON object that it may be wrapped in."""
    wrapped = _WRAPPED.fullmatch(output)
    inner = wrapped[2] if wrapped else output
    try:
        parsed = json.loads(inner)
    except ValueError:
        return inner
    return str(parsed["result"]) if isinstance(parsed, dict) and "result" in parsed else inner


def _quoted(text: str) -> str:
    return shorten(text, _QUOTED_CHARS, placeholder=" …")
