"""Turns stored messages, steps and tool results into the messages of a model call.

The order is from stable to changing: a summary of what is no longer sent, the history, and the
turn's own message, which begins with what was found for it. Earlier turns are sent the same way
each time, without what was found for them and without their thoughts.

A request may have four cache marks. A mark is found again by a request that has it in the same
place, or another at most 20 blocks behind it. One ends what is stable for the user
(`services/prompts/layers.py`); one the history. The first call of a turn marks where the turn
before it found the history's end, which may be many blocks of tools away; later calls the newest
tool results, the older of which the previous call wrote.
Source: https://platform.claude.com/docs/en/build-with-claude/prompt-caching
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast

from schema.files import Attachment
from schema.ids import MessageId, TurnId
from schema.turns import ToolCallStatus
from services.prompts.attachments import attachment_blocks, image_block
from services.prompts.quotes import QUOTED_BY_THEMSELVES, as_data, cut

if TYPE_CHECKING:
    # At run time it would import the whole SDK.
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
_BRIEF: Final = "[Result of {} ({}, {:,} bytes): left out, since it is of an earlier turn.]"
_LONGEST_INPUT: Final = 1_000
_LONGEST_VALUE: Final = 200
_UNUSABLE: Final = re.compile(r"[^a-zA-Z0-9_-]")

_Blocks: TypeAlias = list[dict[str, Any]]
_Turn: TypeAlias = tuple[str, _Blocks]


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
    made of the model's. `size` is the output's length, where this is not read; `images` stand in
    the blocks at their positions.
    """

    step: int
    tool_call_id: str
    status: str
    output: str | None
    blocks: Sequence[Mapping[str, Any]] | None = None
    edited_input: Mapping[str, Any] | None = None
    size: int | None = None
    images: tuple[Attachment, ...] = ()


class ToolWork(NamedTuple):
    """What an earlier turn said and did with tools, in place of its answer's text.

    `is_brief` shortens each result to a line. Units: `tokens` is the estimate of calls and results.
    """

    steps: Sequence[EarlierStep]
    calls: Sequence[EarlierCall]
    is_brief: bool = False
    tokens: int = 0


class SaidMessage(NamedTuple):
    """A message of the conversation; the estimated tokens of its text, where they are known.

    With a `joined_step` it joined the turn of the answer behind it before that step.
    """

    role: str
    content: str
    tokens: int | None = None
    work: ToolWork | None = None
    joined_step: int | None = None
    attachments: tuple[Attachment, ...] = ()


_Joined: TypeAlias = tuple[int, SaidMessage]


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


def conversation(
    material: PromptMaterial, *, summary: str = "", context: str = ""
) -> "list[MessageParam]":
    """Return the messages of a model call: the history, the new message, this turn's steps so far.

    What joined a turn stands before the step that it joined, behind the results of tools.
    Neighbours of one role are joined, as after an answer that never came.
    """
    turns: list[_Turn] = [("user", [_text(summary)])] if summary.strip() else []
    before_last, names, joined = 0, UniqueIds(), list[_Joined]()
    for said in material.messages[:-1]:
        if said.joined_step is not None:
            joined.append((said.joined_step, said))
            continue
        if said.role == "user":
            before_last = len(turns)
        turns += _said(said, names, joined)
        joined = []
    turns += _spoken(joined)
    history = len(turns)
    attached = [*_attached(*material.messages[-1:])]
    own = [context, *(said.content for said in material.messages[-1:])]
    turns.append(("user", [*attached, *(_text(part) for part in own if part.strip())]))
    joined = [(message.step, message.said) for message in material.joined]
    turns += _worked(material.steps, material.calls, joined, names)
    _mark(turns[:history])
    if not material.steps:
        _mark(turns[:before_last])
    results = [turn for turn in turns[history + 1 :] if _has_results(turn)]
    for turn in results[-MARKED_RESULTS:]:
        _mark([turn])
    return _joined(turns)


def turns_of_work(
    work: ToolWork, joined: Sequence[_Joined] = (), names: "UniqueIds | None" = None
) -> list[_Turn]:
    """Return what an earlier turn's answer sends: its texts, its tool calls and their results."""
    steps = [_without_thoughts(step, is_brief=work.is_brief) for step in work.steps]
    turns = _worked(steps, work.calls, joined, names or UniqueIds(), is_brief=work.is_brief)
    return [(role, blocks) for role, blocks in turns if blocks]


class UniqueIds:
    """Ids of tool calls, each used once in a request: those of some models are so in an answer."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def unique(self, tool_call_id: str) -> str:
        """Return the id, or another if it has been returned before."""
        found, number = tool_call_id, 1
        while found in self._seen:
            number += 1
            found = f"{tool_call_id}_{number}"
        self._seen.add(found)
        return found


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _said(said: SaidMessage, names: UniqueIds, joined: Sequence[_Joined]) -> list[_Turn]:
    turns = [] if said.work is None else turns_of_work(said.work, joined, names)
    return turns or [*_spoken(joined), *_of_message(said)]


def _spoken(said: Iterable[_Joined]) -> Iterator[_Turn]:
    for _, message in said:
        yield from _of_message(message)


def _of_message(said: SaidMessage) -> Sequence[_Turn]:
    blocks = [_text(said.content)] if said.content.strip() else []
    if said.attachments:
        blocks = [*_attached(said), *blocks]
    return ((said.role, blocks),) if blocks else ()


def _attached(*messages: SaidMessage) -> Iterator[dict[str, Any]]:
    for message in messages:
        yield from attachment_blocks(message.attachments)


def _has_results(turn: _Turn) -> bool:
    return any(block["type"] == "tool_result" for block in turn[1])


def _mark(turns: Sequence[_Turn]) -> None:
    """Mark the end of these turns."""
    if turns:
        turns[-1][1][-1]["cache_control"] = CACHE_MARK


def _without_thoughts(step: EarlierStep, *, is_brief: bool) -> EarlierStep:
    """Return what later turns send of a step: no thoughts, nor what a provider's own tools said."""
    said: list[dict[str, Any]] = []
    for block in step.blocks:
        match block:
            case {"type": "text", "text": str(text)} if text.strip():
                said.append(_text(text))
            case {"type": "tool_use", "id": tool_call_id, "name": name, "input": asked}:
                call = {"type": "tool_use", "id": tool_call_id, "name": _UNUSABLE.sub("_", name)}
                said.append({**call, "input": _brief_input(asked) if is_brief else asked})
    return EarlierStep(step.step, said)


def _brief_input(asked: dict[str, Any]) -> dict[str, Any]:
    """Return an input without what is long in it."""
    if len(json.dumps(asked, ensure_ascii=False)) <= _LONGEST_INPUT:
        return asked
    short = {
        name: cut(value, limit=_LONGEST_VALUE) if isinstance(value, str) else value
        for name, value in asked.items()
    }
    return short if len(json.dumps(short, ensure_ascii=False)) <= _LONGEST_INPUT else {}


def _worked(
    steps: Iterable[EarlierStep],
    calls: Iterable[EarlierCall],
    joined: Sequence[_Joined],
    names: UniqueIds,
    *,
    is_brief: bool = False,
) -> Iterator[_Turn]:
    """Yield what each step said and the results of its calls, behind what joined it."""
    by_step: dict[int, dict[str, EarlierCall]] = {}
    for call in calls:
        by_step.setdefault(call.step, {})[call.tool_call_id] = call
    waiting = list(joined)
    for step in steps:
        while waiting and waiting[0][0] <= step.step:
            yield from _spoken([waiting.pop(0)])
        asked = [block for block in step.blocks if block["type"] == "tool_use"]
        results = _results(asked, by_step.get(step.step, {}), is_brief=is_brief)
        said = list(step.blocks)
        if step.problem is not None and not any(block["type"] == "text" for block in said):
            # Thoughts alone are no message.
            said = []
        for use, result in zip(asked, results, strict=True):
            if (unique := names.unique(use["id"])) != use["id"]:
                said = [{**use, "id": unique} if block is use else block for block in said]
                result["tool_use_id"] = unique
        yield "assistant", said
        if results:
            yield "user", results
        if step.problem is not None:
            yield "user", [_text(_CORRECTION.format(step.problem))]
    yield from _spoken(waiting)


def _results(
    asked: Iterable[Mapping[str, Any]], calls: Mapping[str, EarlierCall], *, is_brief: bool
) -> _Blocks:
    return [dict(_result(block, calls.get(block["id"]), is_brief=is_brief)) for block in asked]


def _result(
    asked: Mapping[str, Any], call: EarlierCall | None, *, is_brief: bool
) -> "ToolResultBlockParam":
    quote = str if asked.get("name") in QUOTED_BY_THEMSELVES else as_data
    is_error = call is None or call.status != ToolCallStatus.COMPLETED
    return {
        "type": "tool_result",
        "tool_use_id": asked["id"],
        "content": _in_brief(asked, call) if is_brief else _content(call, quote),
        "is_error": is_error,
    }


def _in_brief(asked: Mapping[str, Any], call: EarlierCall | None) -> str:
    if call is None or (call.size is None and call.output is None):
        return _NO_RESULT
    size = len((call.output or "").encode()) if call.size is None else call.size
    return _BRIEF.format(asked["name"], call.status, size)


def _content(call: EarlierCall | None, quote: Callable[[str], str]) -> Any:  # noqa: ANN401 -- text, or the wire's own blocks
    if call is None or call.output is None:
        return _NO_RESULT
    images = {image.position: image_block(image) for image in call.images if not image.is_left_out}
    blocks = [
        images.get(position)
        or ({**block, "text": quote(block["text"])} if block["type"] == "text" else block)
        for position, block in enumerate(call.blocks or ())
    ]
    if call.edited_input is None:
        return blocks or quote(call.output)
    edited = _EDITED.format(json.dumps(call.edited_input, ensure_ascii=False))
    if blocks:
        return [{"type": "text", "text": edited}, *blocks]
    return f"{edited}\n\n{quote(call.output)}"


def _joined(turns: Iterable[_Turn]) -> "list[MessageParam]":
    joined: list[_Turn] = []
    for role, blocks in turns:
        if not blocks:
            continue
        if joined and joined[-1][0] == role:
            joined[-1][1].extend(blocks)
        else:
            joined.append((role, blocks))
    if joined and joined[-1][0] == "assistant":
        paused = _continuable(joined.pop()[1])
        joined += [("assistant", paused)] if paused else []
    messages = [{"role": role, "content": blocks} for role, blocks in joined]
    # The blocks are in the wire's own shape: they came from it, or were made for it above.
    return cast("list[MessageParam]", messages)


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
