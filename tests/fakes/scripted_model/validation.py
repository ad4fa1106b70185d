"""The rules that a request must keep; wording and order follow the Messages API."""

import re
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from jsonschema_rs import Draft202012Validator

from workers.demo_model.prompt import JsonObject, content_blocks
from workers.demo_model.wire import Refusal

_MAX_CACHE_MARKS = 4
# Models that take something other than `disabled`, or nothing.
_THINKING_OFF = {"claude-sonnet-5-5": "between_tools", "claude-opus-5-5": None}
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_PROPERTY = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_METASCHEMA = Draft202012Validator(
    {"$ref": "https://json-schema.org/draft/2020-12/schema"}, validate_formats=True
)


def find_refusal(body: object, *, needs_max_tokens: bool = True) -> Refusal | None:
    """Return the refusal that a request body earns, or None if it is to be answered."""
    if not isinstance(body, dict):
        return Refusal(400, "The request body is not a JSON object.")
    if fault := next(_faults(body, needs_max_tokens=needs_max_tokens), None):
        return Refusal(400, fault)
    if not body["model"].startswith("claude-"):
        return Refusal(404, f"model: {body['model']}")
    return None


def _faults(body: JsonObject, *, needs_max_tokens: bool) -> Iterator[str]:
    """Yield the problems; later checks rely on the earlier ones, so only the first one counts."""
    yield from _model_faults(body)
    if needs_max_tokens:
        yield from _max_tokens_faults(body)
    yield from _thinking_faults(body.get("thinking"), model=body["model"])
    yield from _effort_faults(body.get("output_config"))
    yield from _tool_faults(body.get("tools"))
    yield from _system_faults(body.get("system"))
    yield from _message_faults(body.get("messages"))
    yield from _pairing_faults(body["messages"])
    yield from _cache_faults(body)


def _model_faults(body: JsonObject) -> Iterator[str]:
    if "model" not in body:
        yield "model: Field required"
    elif not isinstance(body["model"], str) or not body["model"]:
        yield "model: Input should be a valid string"


def _max_tokens_faults(body: JsonObject) -> Iterator[str]:
    if "max_tokens" not in body:
        yield "max_tokens: Field required"
    elif type(body["max_tokens"]) is not int or body["max_tokens"] < 1:
        yield "max_tokens: Input should be a valid integer greater than or equal to 1"


def _thinking_faults(thinking: object, *, model: str) -> Iterator[str]:
    match thinking:
        case None:
            return
        case {"type": "disabled" | "between_tools" as off}:
            taken = _THINKING_OFF.get(model, "disabled")
            if off != taken:
                yield f'"thinking.type.{off}" is not supported for this model.'
        case {"type": "adaptive", **rest}:
            if rest.get("display") not in {None, "summarized", "omitted"}:
                yield "thinking.adaptive.display: Input should be 'summarized' or 'omitted'"
        case {"type": "enabled"}:
            yield (
                '"thinking.type.enabled" is not supported for this model. Use '
                '"thinking.type.adaptive" and "output_config.effort" instead.'
            )
        case _:
            yield "thinking.type: Input should be 'adaptive' or 'disabled'"


def _effort_faults(output: object) -> Iterator[str]:
    match output:
        case None:
            return
        case {**settings}:
            if settings.get("effort") not in {None, *_EFFORTS}:
                yield f"output_config.effort: Input should be one of {', '.join(_EFFORTS)}"
        case _:
            yield "output_config: Input should be a valid dictionary"


def _tool_faults(tools: object) -> Iterator[str]:
    if tools is None:
        return
    if not isinstance(tools, list):
        yield "tools: Input should be a valid list"
        return
    for index, tool in enumerate(tools):
        yield from _one_tool_faults(f"tools.{index}", tool)
    if len({tool["name"] for tool in tools}) < len(tools):
        yield "tools: Tool names must be unique."


def _one_tool_faults(where: str, tool: object) -> Iterator[str]:
    match tool:
        case {"name": str(name), **rest}:
            if not _TOOL_NAME.fullmatch(name):
                yield f"{where}.name: String should match pattern '^{_TOOL_NAME.pattern}$'"
            if rest.get("type", "custom") == "custom":
                yield from _schema_faults(f"{where}.custom", rest.get("input_schema"))
            if not str(rest.get("description", "none given")).strip():
                yield f"{where}.custom.description: String should have at least 1 character"
        case _:
            yield f"{where}.name: Field required"


def _schema_faults(where: str, schema: object) -> Iterator[str]:
    """Yield what the Messages API refuses in a schema, and beyond it what gateways do."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        yield f"{where}.input_schema.type: Input should be 'object'"
        return
    if not {"oneOf", "allOf", "anyOf", "not", "enum"}.isdisjoint(schema):
        yield (
            f"{where}.input_schema: input_schema does not support oneOf, allOf, or anyOf at the "
            "top level"
        )
    if not all(map(_PROPERTY.fullmatch, _property_names(schema))):
        yield (
            f"{where}.input_schema.properties: Property keys should match pattern "
            f"'^{_PROPERTY.pattern}$'"
        )
    if not _METASCHEMA.is_valid(schema):
        yield (
            f"{where}.input_schema: JSON schema is invalid. It must match JSON Schema draft "
            "2020-12 (https://json-schema.org/draft/2020-12)."
        )


def _property_names(schema: object) -> Iterator[str]:
    """Yield the names of all properties; the API looks at the outermost only, gateways at all.

    Patterns of names are refused as well.
    """
    if isinstance(schema, list):
        for part in schema:
            yield from _property_names(part)
    if not isinstance(schema, dict):
        return
    for keyword, said in schema.items():
        if keyword in {"properties", "patternProperties", "$defs"} and isinstance(said, dict):
            yield from said
            for part in said.values():
                yield from _property_names(part)
        elif keyword not in {"enum", "const", "default", "examples"}:
            yield from _property_names(said)


def _system_faults(system: object) -> Iterator[str]:
    match system:
        case None | str():
            return
        case list():
            for index, block in enumerate(system):
                yield from _block_faults(f"system.{index}", block)
        case _:
            yield "system: Input should be a valid string or list"


def _message_faults(messages: object) -> Iterator[str]:
    if messages is None:
        yield "messages: Field required"
    elif not isinstance(messages, list):
        yield "messages: Input should be a valid list"
    elif not messages:
        yield "messages: at least one message is required"
    else:
        for index, message in enumerate(messages):
            yield from _one_message_faults(f"messages.{index}", message)
        if messages[0]["role"] != "user":
            yield 'messages: first message must use the "user" role'
        yield from _last_message_faults(messages[-1])


def _last_message_faults(message: JsonObject) -> Iterator[str]:
    *_, last = content_blocks(message["content"])
    if message["role"] == "assistant" and last.get("text", "") != last.get("text", "").rstrip():
        yield "messages: final assistant content cannot end with trailing whitespace"


def _one_message_faults(where: str, message: object) -> Iterator[str]:
    match message:
        case {"role": "user" | "assistant", "content": str(content)}:
            if not content.strip():
                yield f"{where}: all messages must have non-empty content"
        case {"role": "user" | "assistant", "content": list(blocks)}:
            if not blocks:
                yield f"{where}: all messages must have non-empty content"
            for index, block in enumerate(blocks):
                yield from _block_faults(f"{where}.content.{index}", block)
        case {"role": "user" | "assistant"}:
            yield f"{where}.content: Field required, as a string or a list of blocks"
        case _:
            yield f"{where}.role: Input should be 'user' or 'assistant'"


def _block_faults(where: str, block: object) -> Iterator[str]:
    match block:
        case {"type": "text", "text": str(text)}:
            if not text.strip():
                yield f"{where}: text content blocks must be non-empty"
        case {"type": "tool_use", "id": str(), "name": str(), "input": dict()}:
            return
        case {"type": "tool_result", "tool_use_id": str(), **rest}:
            yield from _result_content_faults(where, rest.get("content"))
        case {"type": "text" | "tool_use" | "tool_result" as kind}:
            yield f"{where}.{kind}: Field required"
        case {"type": str()}:
            return
        case _:
            yield f"{where}.type: Field required"


def _result_content_faults(where: str, content: object) -> Iterator[str]:
    if isinstance(content, list):
        for index, block in enumerate(content):
            yield from _block_faults(f"{where}.content.{index}", block)
    elif content is not None and not isinstance(content, str):
        yield f"{where}.content: Input should be a valid string or list"


def _pairing_faults(messages: list[JsonObject]) -> Iterator[str]:
    """Yield tool calls without results in the next user turn, and results of no call."""
    open_calls: list[str] = []
    for index, (_, turn) in enumerate(groupby(messages, key=itemgetter("role"))):
        blocks = [block for message in turn for block in content_blocks(message["content"])]
        yield from _result_faults(index, blocks, open_calls)
        open_calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
    if open_calls:
        yield _unanswered(len(messages) - 1, open_calls)


def _result_faults(index: int, blocks: list[JsonObject], calls: list[str]) -> Iterator[str]:
    results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
    if strangers := [result for result in results if result not in calls]:
        yield (
            f"messages.{index}: unexpected `tool_use_id` found in `tool_result` blocks: "
            f"{', '.join(strangers)}. Each `tool_result` block must have a corresponding "
            "`tool_use` block in the previous message."
        )
    leading = [block.get("tool_use_id") for block in blocks[: len(calls)]]
    if missing := [call for call in calls if call not in leading]:
        yield _unanswered(index, missing)


def _unanswered(index: int, calls: list[str]) -> str:
    return (
        f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately "
        f"after: {', '.join(calls)}. Each `tool_use` block must have a corresponding "
        "`tool_result` block in the next message."
    )


def _cache_faults(body: JsonObject) -> Iterator[str]:
    marks = sum(1 for block in _markable(body) if block.get("cache_control"))
    if marks > _MAX_CACHE_MARKS:
        yield (
            f"A maximum of {_MAX_CACHE_MARKS} blocks with cache_control may be provided. "
            f"Found {marks}."
        )


def _markable(body: JsonObject) -> Iterator[dict[str, Any]]:
    yield from body.get("tools") or ()
    yield from content_blocks(body.get("system") or [])
    for message in body["messages"]:
        yield from content_blocks(message["content"])
