"""Turns stored messages, steps and tool results into the messages of a model call.

A request may have four cache marks: one ends what is stable for the user, one the history, and two
stand in the newest tool results, the older of which the previous call wrote.
Source: the Messages API's documentation of prompt caching.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from schema.ids import MessageId, TurnId
from schema.turns import ToolCallStatus
from services.prompts.quotes import QUOTED_BY_THEMSELVES, as_data

if TYPE_CHECKING:
    # At run time it would import the whole SDK: see services.models.gateway.load_sdk.
    from anthropic.types import CacheControlEphemeralParam, MessageParam, ToolResultBlockParam

CACHE_MARK: "Final[CacheControlEphemeralParam]" = {"type": "ephemeral"}
"""The mark in the block that ends a cached part."""

MARKED_RESULTS: Final = 2
"""How many of the newest steps have their tools' results marked."""


_THINKING: Final = frozenset({"thinking", "redacted_thinking"})

_CORRECTION: Final = (
    "Your answer does not fit the JSON schema that it must fit: {}. Give the whole answer again, "
    "corrected, as JSON alone."
)

_NO_RESULT: Final = "This call was not run."
_EDITED: Final = "The user changed the input of this call to {} before it was run."


class SaidMessage(NamedTuple):
    """A message of the conversation; its estimated tokens, where they are known."""

    role: str
    content: str
    tokens: int | None = None


class EarlierStep(NamedTuple):
    """A completed step of this turn, as the blocks of the model's answer.

    `problem` is why its answer does not fit the schema that it should.
    """

    step: int
    blocks: list[dict[str, Any]]
    problem: str | None = None

    @property
    def begins_with_thinking(self) -> bool:
        """Whether the model's thoughts stand first."""
        return bool(self.blocks) and self.blocks[0]["type"] in _THINKING

    def without_thinking(self) -> "EarlierStep":
        """Return the step without the model's thoughts."""
        return self._replace(
            blocks=[block for block in self.blocks if block["type"] not in _THINKING]
        )


class EarlierCall(NamedTuple):
    """A tool call of an earlier step; without an output it was not run.

    `blocks` take the place of an output that is more than text; `edited_input` is what a person
    made of the model's.
    """

    step: int
    tool_call_id: str
    status: str
    output: str | None
    blocks: Sequence[Mapping[str, Any]] | None = None
    edited_input: Mapping[str, Any] | None = None


class JoinedMessage(NamedTuple):
    """A message that the user sent while the turn ran, which joined it before `step`.

    `turn_id` is the turn that it was sent with.
    """

    step: int
    said: SaidMessage
    message_id: MessageId
    turn_id: TurnId


class PromptMaterial(NamedTuple):
    """The parts of a model call's conversation, each in its order.

    Units: `layer_tokens` is the estimate of the layers before it.
    """

    messages: Sequence[SaidMessage]
    steps: Sequence[EarlierStep] = ()
    calls: Sequence[EarlierCall] = ()
    joined: Sequence[JoinedMessage] = ()
    layer_tokens: int = 0

    @property
    def blocks(self) -> list[list[dict[str, Any]]]:
        """What the model has said in this turn, by step."""
        return [step.blocks for step in self.steps]


def conversation(material: PromptMaterial) -> "list[MessageParam]":
    """Return the messages of a model call: the history, then the steps of this turn so far.

    What joined the turn stands before the step that it joined, behind the results of tools.
    Neighbours of one role are joined, as after an answer that never came. What later calls will
    send again is marked for the provider's cache: the history up to the new message, and behind
    the first step everything.
    """
    turns = [_said(message) for message in material.messages if message.content.strip()]
    if len(turns) > 1:
        _mark(turns[-2][1])
    by_step: dict[int, dict[str, EarlierCall]] = {}
    for call in material.calls:
        by_step.setdefault(call.step, {})[call.tool_call_id] = call
    answered: list[list[dict[str, Any]]] = []
    joined = list(material.joined)
    for step in material.steps:
        while joined and joined[0].step <= step.step:
            turns.append(_said(joined.pop(0).said))
        is_answer = step.problem is None or any(block["type"] == "text" for block in step.blocks)
        turns.append(("assistant", step.blocks if is_answer else []))
        if step.problem is not None:
            turns.append(("user", [{"type": "text", "text": _CORRECTION.format(step.problem)}]))
        results = _results(step.blocks, by_step.get(step.step, {}))
        if results:
            turns.append(("user", results))
            answered.append(results)
    turns += [_said(message.said) for message in joined]
    for results in answered[-MARKED_RESULTS:]:
        _mark(results)
    return _joined(turns)


def _said(message: SaidMessage) -> tuple[str, list[dict[str, Any]]]:
    return message.role, [{"type": "text", "text": message.content}]


def _mark(blocks: list[dict[str, Any]]) -> None:
    blocks[-1]["cache_control"] = CACHE_MARK


def _results(
    blocks: Iterable[Mapping[str, Any]], calls: Mapping[str, EarlierCall]
) -> list[dict[str, Any]]:
    wanted = [block for block in blocks if block["type"] == "tool_use"]
    return [dict(_result(block, calls.get(block["id"]))) for block in wanted]


def _result(asked: Mapping[str, Any], call: EarlierCall | None) -> "ToolResultBlockParam":
    quote = str if asked.get("name") in QUOTED_BY_THEMSELVES else as_data
    is_error = call is None or call.status != ToolCallStatus.COMPLETED
    return {
        "type": "tool_result",
        "tool_use_id": asked["id"],
        "content": _content(call, quote),
        "is_error": is_error,
    }


def _content(call: EarlierCall | None, quote: Callable[[str], str]) -> Any:  # noqa: ANN401 -- text, or the wire's own blocks
    if call is None or call.output is None:
        return _NO_RESULT
    blocks = [
        {**block, "text": quote(block["text"])} if block["type"] == "text" else block
        for block in call.blocks or ()
    ]
    if call.edited_input is None:
        return blocks or quote(call.output)
    edited = _EDITED.format(json.dumps(call.edited_input, ensure_ascii=False))
    if blocks:
        return [{"type": "text", "text": edited}, *blocks]
    return f"{edited}\n\n{quote(call.output)}"


def _joined(turns: Iterable[tuple[str, list[dict[str, Any]]]]) -> "list[MessageParam]":
    joined: list[tuple[str, list[dict[str, Any]]]] = []
    for role, blocks in turns:
        if not blocks:
            continue
        if joined and joined[-1][0] == role:
            joined[-1][1].extend(blocks)
        else:
            joined.append((role, list(blocks)))
    if joined and joined[-1][0] == "assistant":
        paused = _continuable(joined.pop()[1])
        joined += [("assistant", paused)] if paused else []
    # The blocks are in the wire's own shape: they came from it, or were made for it above.
    return [cast("MessageParam", {"role": role, "content": blocks}) for role, blocks in joined]


def _continuable(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the blocks of an answer that paused: as they were, but for white space at the end.

    The API continues no message that ends in it.
    """
    while blocks and blocks[-1]["type"] == "text":
        *before, last = blocks
        if text := last["text"].rstrip():
            return [*before, {**last, "text": text}]
        blocks = before
    return blocks
