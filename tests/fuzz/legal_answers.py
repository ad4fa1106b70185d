"""Generates answers of models as the API documents them."""

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from hypothesis import strategies as st

MAX_TOKENS: Final = 1000
REASONS: Final = (
    *("end_turn", "tool_use", "max_tokens", "stop_sequence", "pause_turn", "refusal"),
    *("model_context_window_exceeded", "compaction", "a_new_reason"),
)

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
scalars = (
    words
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.none()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(words, values, max_size=4)
counts = st.integers(0, 500_000)


def utf16_units(text: str) -> str:
    """Return the text with each character beyond the first plane as two halves."""
    units = text.encode("utf-16-le")
    return "".join(chr(units[at] | units[at + 1] << 8) for at in range(0, len(units), 2))


@st.composite
def cut(draw: st.DrawFn, text: str) -> list[str]:
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


class Grown(NamedTuple):
    """A block: how it starts, and what is added to it."""

    start: dict[str, Any]
    deltas: list[dict[str, Any]]


@st.composite
def text_blocks(draw: st.DrawFn) -> Grown:
    first, *others = draw(words.flatmap(lambda text: cut(utf16_units(text))))
    deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": piece} for piece in others]
    citation = st.fixed_dictionaries(
        {"type": st.just("char_location"), "cited_text": words, "document_index": counts}
    )
    for cited in draw(st.lists(citation, max_size=2)):
        deltas.insert(
            draw(st.integers(0, len(deltas))), {"type": "citations_delta", "citation": cited}
        )
    start: dict[str, Any] = {"type": "text", "text": first}
    if draw(st.booleans()):
        start["citations"] = draw(st.sampled_from([None, []]))
    return Grown(start, deltas)


@st.composite
def thinking_blocks(draw: st.DrawFn) -> Grown:
    first, *others = draw(words.flatmap(lambda text: cut(utf16_units(text))))
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in others]
    if signature := draw(words):
        deltas.append({"type": "signature_delta", "signature": signature})
    return Grown({"type": "thinking", "thinking": first, "signature": ""}, deltas)


@st.composite
def call_blocks(
    draw: st.DrawFn, *, kinds: Sequence[str] = ("tool_use", "server_tool_use")
) -> Grown:
    kind = draw(st.sampled_from(kinds))
    call_id = draw(st.from_regex(r"toolu_[a-zA-Z0-9]{8}", fullmatch=True))
    name = draw(st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True))
    start: dict[str, Any] = {"type": kind, "id": call_id, "name": name, "input": {}}
    if kind == "mcp_tool_use":
        start["server_name"] = draw(words)
    elif kind == "server_tool_use" and draw(st.booleans()):
        start["caller"] = draw(callers)
    written = draw(objects)
    if draw(st.booleans()):
        pieces = draw(st.sampled_from([[], [""]]))
        return Grown(start | {"input": written}, _json_deltas(pieces))
    as_text = json.dumps(
        written, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1]))
    )
    return Grown(start, _json_deltas(draw(cut(as_text))))


def _json_deltas(pieces: list[str]) -> list[dict[str, Any]]:
    return [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]


_RESULTS: Final = (
    *("web_search_tool_result", "web_fetch_tool_result", "tool_search_tool_result"),
    *("code_execution_tool_result", "bash_code_execution_tool_result"),
    "text_editor_code_execution_tool_result",
)
callers: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{"type": "direct"}, {"type": "code_execution_20260120", "tool_id": "srvtoolu_1"}]
)
results = st.builds(
    lambda kind, content: Grown(
        {"type": kind, "tool_use_id": "srvtoolu_1", "content": content}, []
    ),
    st.sampled_from(_RESULTS),
    st.fixed_dictionaries({"type": words.map("a_new_{}".format)}, optional={"content": values})
    | st.fixed_dictionaries(
        {
            "type": st.just("code_execution_result"),
            "stdout": words,
            "stderr": words,
            "return_code": st.integers(0, 255),
            "content": st.lists(
                st.fixed_dictionaries({"type": st.just("code_execution_output"), "file_id": words}),
                max_size=2,
            ),
        }
    ),
)
unchanged_blocks = st.one_of(
    results,
    words.map(lambda file: Grown({"type": "container_upload", "file_id": file}, [])),
    words.map(lambda data: Grown({"type": "redacted_thinking", "data": data}, [])),
    st.builds(
        lambda content: Grown(
            {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": content}, []
        ),
        st.lists(st.fixed_dictionaries({"type": st.just("web_search_result"), "title": words})),
    ),
    objects.map(lambda new: Grown({"type": "a_new_block", "new": new}, [])),
)
blocks = st.one_of(text_blocks(), thinking_blocks(), call_blocks(), unchanged_blocks)


@st.composite
def compactions(draw: st.DrawFn) -> Grown:
    start = {"type": "compaction", "content": None, "encrypted_content": None}
    delta = {"type": "compaction_delta", "content": draw(words), "encrypted_content": draw(words)}
    return Grown(start, [delta])


beta_blocks = st.one_of(
    blocks,
    compactions(),
    call_blocks(kinds=("mcp_tool_use",)),
    st.builds(
        lambda texts: Grown(
            {
                "type": "mcp_tool_result",
                "tool_use_id": "mcptoolu_1",
                "is_error": False,
                "content": [{"type": "text", "text": text} for text in texts],
            },
            [],
        ),
        st.lists(words, max_size=2),
    ),
    words.map(
        lambda model: Grown(
            {"type": "fallback", "from": {"model": "m"}, "to": {"model": model}}, []
        )
    ),
)
unheeded: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{"type": "ping"}, {"type": "a_new_event", "index": 0, "new": [1]}]
)


of_the_end: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {},
        {"stop_details": {"type": "refusal", "category": "cyber", "explanation": "No."}},
        {"container": {"id": "container_1", "expires_at": "2026-11-30T00:00:00Z"}},
    ]
)


class Legal(NamedTuple):
    """A stream as the API documents it, but for usage: `None` where it is left out or null."""

    events: list[dict[str, Any]]
    at_start: dict[str, int] | None
    at_end: dict[str, int] | None
    reason: str


@st.composite
def legal_streams(draw: st.DrawFn, *, of: st.SearchStrategy[Grown] = blocks) -> Legal:
    at_start = draw(
        st.none()
        | st.fixed_dictionaries(
            {"input_tokens": counts.map(lambda count: count + 1), "output_tokens": st.just(1)},
            optional={"cache_read_input_tokens": counts, "cache_creation_input_tokens": counts},
        )
    )
    at_end = draw(st.none() | st.fixed_dictionaries({"output_tokens": st.integers(1, MAX_TOKENS)}))
    reason = draw(st.sampled_from(REASONS))
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    events = [
        {"type": "message_start", "message": message | draw(_as_usage(at_start))},
        *draw(_block_events(of)),
        {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None} | draw(of_the_end),
            **draw(st.sampled_from([{}, {"context_management": {"applied_edits": []}}])),
            **draw(_as_usage(at_end)),
        },
        {"type": "message_stop"},
    ]
    for event in draw(st.lists(unheeded, max_size=3)):
        events.insert(draw(st.integers(1, len(events) - 1)), event)
    return Legal(events, at_start, at_end, reason)


def _as_usage(usage: dict[str, int] | None) -> st.SearchStrategy[dict[str, Any]]:
    return st.just({"usage": usage}) if usage else st.sampled_from([{}, {"usage": None}])


@st.composite
def _block_events(draw: st.DrawFn, of: st.SearchStrategy[Grown]) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    for index, block in enumerate(draw(st.lists(of, max_size=4))):
        events.append({"type": "content_block_start", "index": index, "content_block": block.start})
        events += [
            {"type": "content_block_delta", "index": index, "delta": delta}
            for delta in block.deltas
        ]
        events.append({"type": "content_block_stop", "index": index})
    return events


@st.composite
def written(draw: st.DrawFn, events: list[dict[str, Any]]) -> bytes:
    """Return a body with these events."""
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    parts = []
    for event in events:
        # Halves of characters can only be written as escapes.
        data = json.dumps(event, ensure_ascii=True)
        if draw(st.booleans()) and "\\ud" not in data:
            data = json.dumps(event, ensure_ascii=False)
        name = [f"event: {event.get('type')}"] if draw(st.booleans()) else []
        parts.append(end.join([*name, f"data: {data}", "", ""]))
    return "".join(parts).encode(errors="replace")
