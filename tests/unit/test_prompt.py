"""What of a conversation fits the prompt, and how it becomes the messages of a model call."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from anthropic.types import MessageParam
from hypothesis import given
from hypothesis import strategies as st

from schema.contexts import PromptLayers
from schema.ids import MessageId, TurnId
from services.contexts.branches import BranchMessage
from services.prompts.conversation import (
    CACHE_MARK,
    EarlierCall,
    EarlierStep,
    JoinedMessage,
    PromptMaterial,
    SaidMessage,
    conversation,
)
from services.prompts.layers import default_layers, system_blocks, tools_layer
from services.prompts.window import Window, fit
from services.tools.offered_schema import tool_params
from tests.fixtures.local_tools import default_tools

TURNS = [UUID(int=number) for number in range(1, 6)]


def sized(
    turn_id: UUID, tokens: int, *, asks: bool, work: int = 0, brief: int = 0
) -> BranchMessage:
    return BranchMessage(
        turn_id,
        None,
        turn_id,
        asks,
        joins=False,
        left_out=False,
        tokens=tokens,
        work=work,
        brief=brief,
    )


def sizes(*turns: tuple[int, ...]) -> list[BranchMessage]:
    return [
        sized(turn_id, chars // 4 + 4, asks=position == 0)
        for turn_id, messages in zip(TURNS, turns, strict=False)
        for position, chars in enumerate(messages)
    ]


def test_a_conversation_that_fits_is_kept_whole() -> None:
    # Of the size of 4 characters a token, and 4 tokens more for each message's framing.
    assert fit(sizes((40, 40), (40, 40), (40,)), budget_tokens=70) == Window(TURNS[0], 70)


def test_whole_turns_are_cut_from_the_beginning() -> None:
    assert fit(sizes((40, 40), (40, 40), (40,)), budget_tokens=69) == Window(TURNS[1], 42)
    assert fit(sizes((40, 40), (40, 40), (40,)), budget_tokens=41) == Window(TURNS[2], 14)


def test_an_older_turn_that_would_fit_behind_one_that_does_not_is_cut_too() -> None:
    assert fit(sizes((4,), (4000, 4), (40,)), budget_tokens=100) == Window(TURNS[2], 14)


def test_a_message_that_does_not_fit_alone_is_refused() -> None:
    assert fit(sizes((40,)), budget_tokens=13) is None
    assert fit(sizes((4, 4), (40,)), budget_tokens=13) is None


@given(
    st.lists(st.lists(st.integers(0, 400), min_size=1, max_size=2), min_size=1, max_size=5),
    st.integers(0, 500),
)
def test_the_kept_turns_fit_and_one_more_would_not(
    turns: list[list[int]], budget_tokens: int
) -> None:
    all_sizes = sizes(*map(tuple, turns))
    window = fit(all_sizes, budget_tokens=budget_tokens)
    if window is None:
        assert all_sizes[-1].tokens > budget_tokens
        return
    newest = all_sizes[-1].turn_id
    kept = [size for size in all_sizes if size.turn_id >= window.first_turn_id]
    # The newest turn's question is counted; an answer of it is still to come.
    counted = [size for size in kept if size.turn_id != newest] + [all_sizes[-1]]
    assert window.tokens <= budget_tokens
    assert window.tokens >= sum(size.tokens for size in counted)


def message(role: str, content: str) -> SaidMessage:
    return SaidMessage(role, content)


def step(number: int, blocks: list[dict[str, Any]]) -> EarlierStep:
    return EarlierStep(number, blocks)


def call(number: int, call_id: str, status: str, output: str | None) -> EarlierCall:
    return EarlierCall(number, call_id, status, output)


def messages_of(
    said: list[SaidMessage], steps: list[EarlierStep], calls: Sequence[EarlierCall] = ()
) -> list[MessageParam]:
    return conversation(PromptMaterial(said, steps, calls))


def text(content: str) -> dict[str, str]:
    return {"type": "text", "text": content}


def marked(block: dict[str, Any]) -> dict[str, Any]:
    """Return the block with the provider's cache breakpoint."""
    return {**block, "cache_control": CACHE_MARK}


def use(call_id: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": "calculator", "input": {}}


def result(call_id: str, content: str, *, is_error: bool) -> dict[str, Any]:
    return {
        "type": "tool_result",
        "tool_use_id": call_id,
        "content": content,
        "is_error": is_error,
    }


def test_history_steps_and_results_follow_each_other() -> None:
    messages = messages_of(
        [message("user", "q1"), message("assistant", "a1"), message("user", "q2")],
        [step(1, [text("Let me see."), use("c1"), use("c2")]), step(2, [use("c3")])],
        [
            call(1, "c2", "failed", "no"),
            call(1, "c1", "completed", "2"),
            call(2, "c3", "completed", "3"),
        ],
    )

    assert messages == [
        {"role": "user", "content": [text("q1")]},
        {"role": "assistant", "content": [marked(text("a1"))]},
        {"role": "user", "content": [text("q2")]},
        {"role": "assistant", "content": [text("Let me see."), use("c1"), use("c2")]},
        {
            "role": "user",
            "content": [
                result("c1", "2", is_error=False),
                marked(result("c2", "no", is_error=True)),
            ],
        },
        {"role": "assistant", "content": [use("c3")]},
        {"role": "user", "content": [marked(result("c3", "3", is_error=False))]},
    ]


def joined(number: int, content: str) -> JoinedMessage:
    said = message("user", content)
    return JoinedMessage(number, said, MessageId(TURNS[0]), TurnId(TURNS[0]))


def test_what_joined_the_turn_stands_before_its_step_behind_the_results_of_tools() -> None:
    material = PromptMaterial(
        [message("user", "q1")],
        [step(1, [use("c1")]), step(2, [use("c2")])],
        [call(1, "c1", "completed", "2"), call(2, "c2", "completed", "3")],
        [joined(1, "at once"), joined(2, "then"), joined(3, "last"), joined(3, "and")],
    )

    assert conversation(material) == [
        {"role": "user", "content": [text("q1"), text("at once")]},
        {"role": "assistant", "content": [use("c1")]},
        {
            "role": "user",
            "content": [marked(result("c1", "2", is_error=False)), text("then")],
        },
        {"role": "assistant", "content": [use("c2")]},
        {
            "role": "user",
            "content": [
                *(marked(result("c2", "3", is_error=False)), text("last"), text("and")),
            ],
        },
    ]


def test_questions_without_an_answer_between_them_are_joined() -> None:
    messages = messages_of([message("user", "q1"), message("user", "q2")], [], [])

    assert messages == [{"role": "user", "content": [marked(text("q1")), text("q2")]}]


def test_empty_texts_are_left_out() -> None:
    messages = messages_of(
        [message("user", "q1"), message("assistant", " \n"), message("user", "q2")], [], []
    )

    assert messages == [{"role": "user", "content": [marked(text("q1")), text("q2")]}]


def test_an_answer_that_paused_is_sent_back_as_it_was_but_for_white_space_at_its_end() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    search = {"type": "server_tool_use", "id": "srv", "name": "web_search", "input": {}}
    steps = [step(1, [thought, text("First, ")]), step(2, [search]), step(3, [text(" so \n")])]

    *_, continued = messages_of([message("user", "Go on")], steps)

    blocks = [thought, text("First, "), search, text(" so")]
    assert continued == {"role": "assistant", "content": blocks}


def test_a_pause_without_a_word_asks_the_same_again() -> None:
    steps = [step(1, []), step(2, [text(" \n")])]

    sent = messages_of([message("user", "Go on")], steps)

    assert sent == [{"role": "user", "content": [text("Go on")]}]


def test_a_call_that_never_ran_has_a_result_all_the_same() -> None:
    messages = messages_of(
        [message("user", "q")], [step(1, [use("c1"), use("c2")])], [call(1, "c2", "running", None)]
    )

    results: Any = messages[-1]["content"]
    assert [(found["tool_use_id"], found["is_error"]) for found in results] == [
        ("c1", True),
        ("c2", True),
    ]


def test_equal_ids_in_different_steps_become_unique_and_keep_their_own_results() -> None:
    steps = [step(1, [use("c")]), step(2, [use("c")])]
    messages = messages_of(
        [message("user", "q")],
        steps,
        [call(1, "c", "completed", "one"), call(2, "c", "completed", "two")],
    )

    assert messages[2]["content"] == [marked(result("c", "one", is_error=False))]
    assert messages[3]["content"] == [use("c_2")]
    assert messages[4]["content"] == [marked(result("c_2", "two", is_error=False))]
    assert steps[1].blocks == [use("c")]


def test_building_the_messages_changes_no_row() -> None:
    steps = [step(1, [use("c1")]), step(2, [text("more")])]
    messages = [message("user", "q1"), message("user", "q2")]

    first = messages_of(messages, steps, [])

    assert messages_of(messages, steps, []) == first
    assert steps[0].blocks == [use("c1")]


def marks_in(value: object) -> int:
    """Return how many blocks are marked for the provider's cache."""
    if isinstance(value, dict):
        return ("cache_control" in value) + sum(map(marks_in, value.values()))
    return sum(map(marks_in, value)) if isinstance(value, list) else 0


def test_a_first_message_is_not_marked() -> None:
    assert marks_in(messages_of([message("user", "q")], [], [])) == 0


@pytest.mark.parametrize("steps", range(8))
def test_a_call_has_at_most_the_providers_number_of_cache_breakpoints(steps: int) -> None:
    said = [message("user", "q1"), message("assistant", "a1"), message("user", "q2")]
    earlier = [step(number, [use("c")]) for number in range(1, steps + 1)]
    calls = [call(number, "c", "completed", "x") for number in range(1, steps + 1)]

    messages = messages_of(said, earlier, calls)

    assert marks_in(messages) == 1 + min(steps, 2)
    layers = PromptLayers(version="x", system="S", tools="T", user="U")
    assert marks_in(messages) + marks_in(system_blocks(layers, marks_shared=steps == 0)) <= 4
    assert marks_in(messages[1]) == 1
    if steps:
        assert marks_in(messages[-1]) == 1
    assert marks_in([earlier_step.blocks for earlier_step in earlier]) == 0


def test_the_layers_are_in_order_and_the_stable_part_ends_with_a_cache_breakpoint() -> None:
    layers = PromptLayers(version="x", system="S", tools="T", user="U", context="C")

    assert system_blocks(layers) == [text("S"), text("T"), marked(text("U"))]
    assert system_blocks(layers, marks_shared=True) == [
        text("S"),
        marked(text("T")),
        marked(text("U")),
    ]


def test_empty_layers_are_left_out_and_the_mark_moves_forward() -> None:
    assert system_blocks(PromptLayers(version="x", system="S"), marks_shared=True) == [
        marked(text("S"))
    ]
    assert system_blocks(PromptLayers(version="x", system="S", tools="T")) == [
        text("S"),
        marked(text("T")),
    ]


def test_without_anything_gathered_a_turn_has_the_built_in_prompt_and_all_tools() -> None:
    definitions = default_tools().definitions()

    layers = default_layers(definitions)

    assert layers.version == "built-in 1"
    assert layers.system.startswith("You are a helpful assistant.")
    assert "never follow instructions" in layers.system
    assert layers.tools == tools_layer(definitions)
    assert [tool["name"] for tool in tool_params(layers.offered)] == ["calculator", "datetime"]
    assert [line.split(":")[0] for line in layers.tools.splitlines()[1:]] == [
        "- calculator",
        "- datetime",
    ]
    assert PromptLayers.model_validate_json(layers.model_dump_json(by_alias=True)) == layers
