"""A request as the rules see it: what the user wrote, what was found for it, what tools said."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from typing import Any, Literal, TypeAlias

from workers.demo_model.answers import input_tokens_of

JsonObject: TypeAlias = dict[str, Any]

# As `services/contexts/rendering.py` writes them.
_NAMED = re.compile(r'The image "(.*)":')
_ATTACHED_TEXT = re.compile(r'<attachment name="([^"]*)">\n(.*)\n</attachment>', re.DOTALL)
_SOURCE = re.compile(r'<(memory|passage)(?: title="([^"]*)")? [^>]*>\n(.*?)\n</\1>', re.DOTALL)

# As `services/turns/structured_answers.py` writes it.
_SCHEMA_BEHIND = "It must fit this JSON schema:\n"


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What a tool answered to the call that the newest message reports on."""

    name: str
    input: JsonObject
    output: str
    failed: bool


@dataclass(frozen=True, slots=True)
class Attached:
    """A file that the newest message has attached. Units: `size` is in bytes of what was sent."""

    name: str
    kind: str
    size: int


@dataclass(frozen=True, slots=True)
class Source:
    """A memory or a passage of a document that the prompt quotes; a memory has no title."""

    title: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request as the rules and the scripts see it.

    `user_text` is all text of the newest user message that has any, `question` its last block,
    `sources` are what the system prompt and the blocks before the question quote;
    `wants_memories` is whether the question is to be read for memories, `wants_title` whether the
    conversation is to be named; `thinking` is whether thoughts are asked for, and shown. `schema`
    is what the answer has to fit.
    """

    model: str
    max_tokens: int
    user_text: str
    question: str
    sources: tuple[Source, ...]
    wants_memories: bool
    wants_title: bool
    tools: frozenset[str]
    outcomes: tuple[ToolOutcome, ...]
    earlier_messages: int
    input_tokens: int
    thinking: Literal["no", "shown", "hidden"] = "no"
    wants_summary: bool = False
    schema: JsonObject | None = None
    attached: tuple[Attached, ...] = ()


def read_prompt(body: JsonObject) -> Prompt:
    """Return the prompt of a request that was found valid."""
    messages = body["messages"]
    texts = _newest_user_texts(messages)
    return Prompt(
        model=body["model"],
        max_tokens=body["max_tokens"],
        user_text="\n".join(texts),
        question=texts[-1] if texts else "",
        sources=tuple(_sources("\n".join((*_texts(body.get("system") or []), *texts[:-1])))),
        wants_memories=_wants_memories(body),
        wants_title=_begins(body, "You name conversations"),
        wants_summary=_begins(body, "You keep the minutes"),
        tools=_offered_tools(body),
        outcomes=tuple(_outcomes(messages)),
        earlier_messages=len(messages) - 1,
        input_tokens=input_tokens_of(body),
        thinking=_thinking(body),
        schema=_schema(body),
        attached=tuple(_attached(content_blocks(messages[-1]["content"]))),
    )


def content_blocks(content: str | list[JsonObject]) -> list[JsonObject]:
    """Return content as blocks; a string is one text block."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _newest_user_texts(messages: list[JsonObject]) -> list[str]:
    for message in reversed(messages):
        if message["role"] == "user" and (texts := _texts(message["content"])):
            return texts
    return []


def _attached(blocks: list[JsonObject]) -> Iterator[Attached]:
    name = "an image"
    for block in blocks:
        match block:
            case {"type": "text", "text": str(text)}:
                if named := _NAMED.fullmatch(text):
                    name = unescape(named[1])
                elif found := _ATTACHED_TEXT.fullmatch(text):
                    yield Attached(unescape(found[1]), "text file", len(found[2].encode()))
            case {"type": "image", "source": {"media_type": media_type, "data": data}}:
                kind = f"{media_type.removeprefix('image/').upper()} image"
                yield Attached(name, kind, len(data) * 3 // 4)
            case {"type": "document", "source": {"data": data}, "title": str(title)}:
                yield Attached(unescape(title), "PDF", len(data) * 3 // 4)
            case _:
                pass


def _sources(text: str) -> Iterator[Source]:
    for _, title, content in _SOURCE.findall(text):
        yield Source(title=unescape(title), content=unescape(content))


def _texts(content: str | list[JsonObject]) -> list[str]:
    return [block["text"] for block in content_blocks(content) if block["type"] == "text"]


def _wants_memories(body: JsonObject) -> bool:
    """Whether the answer is to have the schema of `services/memory_extraction/prompt.py`."""
    return "memories" in ((_schema(body) or {}).get("properties") or {})


def _schema(body: JsonObject) -> JsonObject | None:
    """Return the schema of a structured answer, asked for as such or in words."""
    wanted = (body.get("output_config") or {}).get("format") or {}
    if isinstance(schema := wanted.get("schema"), dict):
        return schema
    for text in _texts(body.get("system") or []):
        _, found, written = text.partition(_SCHEMA_BEHIND)
        if found:
            schema = json.loads(written)
            return schema if isinstance(schema, dict) else None
    return None


def _begins(body: JsonObject, words: str) -> bool:
    """Whether the system prompt is that of `services/titles.py` or `services/compaction.py`."""
    return any(text.startswith(words) for text in _texts(body.get("system") or []))


def _offered_tools(body: JsonObject) -> frozenset[str]:
    if (body.get("tool_choice") or {}).get("type") == "none":
        return frozenset()
    return frozenset(tool["name"] for tool in body.get("tools") or ())


def _thinking(body: JsonObject) -> Literal["no", "shown", "hidden"]:
    wanted = body.get("thinking") or {}
    match wanted.get("type"):
        case "enabled":
            return "shown"
        case "adaptive":
            return "shown" if wanted.get("display") == "summarized" else "hidden"
        case _:
            return "no"


def _outcomes(messages: list[JsonObject]) -> Iterator[ToolOutcome]:
    calls = {
        block["id"]: block
        for message in messages[:-1]
        for block in content_blocks(message["content"])
        if block["type"] == "tool_use"
    }
    for block in content_blocks(messages[-1]["content"]):
        if block["type"] == "tool_result":
            call = calls[block["tool_use_id"]]
            yield ToolOutcome(
                name=call["name"],
                input=call["input"],
                output="\n".join(_texts(block.get("content") or [])),
                failed=bool(block.get("is_error")),
            )
