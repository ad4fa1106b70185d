"""Measures what a model call sends, and cuts it to what its model takes.

Older messages go first, then large results of tools are cut. Nothing here changes what is stored.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from schema.files import Attachment
from schema.ids import FileId
from services.prompts.attachments import too_many
from services.prompts.conversation import (
    EarlierCall,
    PromptMaterial,
    SaidMessage,
    ToolWork,
    turns_of_work,
)
from services.prompts.tokens import PER_MESSAGE, start_of, tokens_of

_LEFT_OUT: Final = "[Left out: the conversation was too long for the model.]"
_CUT: Final = "\n[Cut here: the conversation was too long for the model.]"
_MARKER_TOKENS: Final = tokens_of(_LEFT_OUT)
_IMAGE_TOKENS: Final = 1_600
_PARTS: Final = 8
"""A conversation is cut by eighths of the limit, so that the next calls mostly cut the same.

What they have in common is in the provider's cache.
"""


def tokens_in(material: PromptMaterial) -> int:
    """Return roughly how many tokens the prompt has, its layers included."""
    steps = sum(sum(map(_block_tokens, step.blocks)) for step in material.steps)
    results = sum(map(_result_tokens, material.calls))
    joined = sum(_said_tokens(message.said) for message in material.joined)
    said = sum(map(_said_tokens, material.messages)) + joined
    return material.layer_tokens + said + steps + results


def fitted(material: PromptMaterial, *, limit_tokens: int) -> PromptMaterial:
    """Return as much of the material as fits, but always the new message and this turn's steps.

    What joined the turn is never cut, either.
    """
    over = tokens_in(material) - limit_tokens
    if over <= 0:
        return material
    part = max(1, limit_tokens // _PARTS)
    to_cut = -(-over // part) * part
    *earlier, newest = material.messages
    while earlier and to_cut > 0:
        to_cut -= _said_tokens(earlier.pop(0))
    material = material._replace(messages=[*_from_a_question(earlier), newest])
    over = tokens_in(material) - limit_tokens
    if over <= 0:
        return material
    return material._replace(calls=_with_cut_results(material.calls, over=over))


def shortened(material: PromptMaterial) -> PromptMaterial | None:
    """Return less of what a provider found too long, or None if nothing is left to cut.

    The older half of the messages before the new one goes, then all of them, then the older results
    of tools.
    """
    *earlier, newest = material.messages
    if earlier:
        left, kept = sum(map(_said_tokens, earlier)) // 2, list[SaidMessage]()
        for said in reversed(earlier):
            left -= _said_tokens(said)
            if left < 0:
                break
            kept.insert(0, said)
        return material._replace(messages=[*_from_a_question(kept), newest])
    long = [call for call in material.calls if len(call.output or "") > len(_LEFT_OUT)]
    half = {(call.step, call.tool_call_id) for call in long[: -(-len(long) // 2)]}
    if not half:
        return None
    calls = [
        call._replace(output=_LEFT_OUT, blocks=None)
        if (call.step, call.tool_call_id) in half
        else call
        for call in material.calls
    ]
    return material._replace(calls=calls)


def work_tokens(work: ToolWork) -> int:
    """Return roughly how many tokens the tool calls and results of an earlier turn have."""
    blocks = [block for _, blocks in turns_of_work(work) for block in blocks]
    return sum(_block_tokens(block) for block in blocks if block["type"] != "text")


def capped(work: ToolWork, *, limit_tokens: int) -> ToolWork:
    """Return the work of an earlier turn, its largest results cut to what fits the limit."""
    if work.is_brief or work.tokens <= limit_tokens:
        return work
    over = work_tokens(work) - limit_tokens
    calls = _with_cut_results(work.calls, over=over) if over > 0 else work.calls
    return work._replace(calls=calls, tokens=limit_tokens)


def with_files(
    material: PromptMaterial, *, takes_files: bool, without: frozenset[FileId]
) -> PromptMaterial:
    """Return the material with those files alone that a request may have.

    `takes_files` is false for a model that takes texts alone; `without` are files that are lost.
    """
    said = [*material.messages, *(message.said for message in material.joined)]
    of_messages = (attachment for message in said for attachment in message.attachments)
    everything = [*of_messages, *(image for call in material.calls for image in call.images)]
    left_out = without | too_many(everything, takes_files=takes_files)
    if not left_out:
        return material

    def marked(attachments: Sequence[Attachment]) -> tuple[Attachment, ...]:
        return tuple(
            attachment.model_copy(update={"left_out": attachment.file_id in left_out})
            for attachment in attachments
        )

    def without_some(message: SaidMessage) -> SaidMessage:
        return message._replace(attachments=marked(message.attachments))

    return material._replace(
        messages=[*map(without_some, material.messages)],
        joined=[joined._replace(said=without_some(joined.said)) for joined in material.joined],
        calls=[call._replace(images=marked(call.images)) for call in material.calls],
    )


def _from_a_question(messages: Sequence[SaidMessage]) -> Sequence[SaidMessage]:
    """Return the messages without answers before the first question."""
    first = next((at for at, said in enumerate(messages) if said.role == "user"), len(messages))
    return messages[first:]


def _with_cut_results(calls: Sequence[EarlierCall], *, over: int) -> list[EarlierCall]:
    """Cut the largest results to the same size; the smaller ones stay whole."""
    sizes = sorted(map(_result_tokens, calls))
    left, size = sum(sizes) - over, 0
    for place, tokens in enumerate(sizes):
        size = left // (len(sizes) - place)
        if tokens > size:
            break
        left -= tokens
    return [
        call if _result_tokens(call) <= size else _cut_result(call, tokens=size) for call in calls
    ]


def _cut_result(call: EarlierCall, *, tokens: int) -> EarlierCall:
    kept = start_of(call.output or "", tokens=tokens - tokens_of(_CUT))
    output = f"{kept}{_CUT}" if kept and tokens > _MARKER_TOKENS else _LEFT_OUT
    return call._replace(output=output, blocks=None)


def _said_tokens(said: SaidMessage) -> int:
    text = tokens_of(said.content) if said.tokens is None else said.tokens
    return text if said.work is None else text + said.work.tokens


def _result_tokens(call: EarlierCall) -> int:
    edited = 0 if call.edited_input is None else _json_tokens(call.edited_input)
    shown = sum(map(_block_tokens, call.blocks)) if call.blocks else tokens_of(call.output or "")
    images = sum(image.tokens for image in call.images) if call.blocks else 0
    return shown + images + edited + PER_MESSAGE


def _block_tokens(block: Mapping[str, Any]) -> int:
    match block["type"]:
        case "text":
            return tokens_of(block["text"])
        case "image":
            return _IMAGE_TOKENS
        case "tool_result" if isinstance(block["content"], str):
            return tokens_of(block["content"]) + PER_MESSAGE
        case "tool_result":
            return sum(map(_block_tokens, block["content"])) + PER_MESSAGE
        case _:
            return _json_tokens(block)


def _json_tokens(value: Mapping[str, Any]) -> int:
    return tokens_of(json.dumps(value, ensure_ascii=False))
