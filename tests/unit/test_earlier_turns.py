"""What a model is sent of earlier turns: their tool calls and results, within a budget."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contexts.branches import BranchMessage
from services.prompts.conversation import (
    CACHE_MARK,
    EarlierCall,
    EarlierStep,
    PromptMaterial,
    SaidMessage,
    ToolWork,
    conversation,
    turns_of_work,
)
from services.prompts.fitting import capped, fitted, tokens_in, work_tokens
from services.prompts.window import fit
from tests.fakes.scripted_model.validation import find_refusal

Block = dict[str, Any]

TURNS = [UUID(int=number) for number in range(1, 100)]
PICTURE: Block = {"type": "image", "source": {"type": "base64", "data": "aGk="}}
THOUGHT: Block = {"type": "thinking", "thinking": "Hm.", "signature": "s"}


def text(content: str) -> Block:
    return {"type": "text", "text": content}


def use(call_id: str, name: str = "web_search", **asked: object) -> Block:
    return {"type": "tool_use", "id": call_id, "name": name, "input": asked}


def call(
    step: int, call_id: str, output: str | None = "found", *, status: str = "completed"
) -> EarlierCall:
    return EarlierCall(step, call_id, status, output)


def work(*steps: list[Block], calls: tuple[EarlierCall, ...] = (), brief: bool = False) -> ToolWork:
    numbered = [EarlierStep(number, blocks) for number, blocks in enumerate(steps, 1)]
    return ToolWork(numbered, calls, is_brief=brief)


def sent(*works: ToolWork, own: str = "And the second hit?") -> list[Any]:
    """Return the messages of a call behind turns of this work."""
    said: list[SaidMessage] = []
    for number, done in enumerate(works):
        said += [SaidMessage("user", f"q{number}"), SaidMessage("assistant", "a", work=done)]
    messages: list[Any] = conversation(PromptMaterial([*said, SaidMessage("user", own)]))
    return messages


def refusal_of(messages: list[Any]) -> object:
    body = {"model": "claude-haiku-5-5", "max_tokens": 10, "messages": messages}
    return find_refusal(body)


def kinds(messages: list[Any]) -> list[tuple[str, list[str]]]:
    return [
        (message["role"], [block["type"] for block in message["content"]]) for message in messages
    ]


def test_calls_and_results_stand_where_they_were_made() -> None:
    done = work(
        [THOUGHT, text("Let me see."), use("c1"), use("c2")],
        [text("One more."), use("c3")],
        [text("Here it is.")],
        calls=(call(1, "c1", "one"), call(1, "c2", "two"), call(2, "c3", "three")),
    )

    messages = sent(done)

    assert kinds(messages) == [
        ("user", ["text"]),
        ("assistant", ["text", "tool_use", "tool_use"]),
        ("user", ["tool_result", "tool_result"]),
        ("assistant", ["text", "tool_use"]),
        ("user", ["tool_result"]),
        ("assistant", ["text"]),
        ("user", ["text"]),
    ]
    assert [block["content"] for block in messages[2]["content"]] == ["one", "two"]
    assert "thinking" not in str(messages)


CASES: dict[str, ToolWork] = {
    "a call without a result": work([use("c1")], [text("Well.")]),
    "a call that was never run": work([use("c1")], calls=(call(1, "c1", None, status="failed"),)),
    "a turn that was stopped while a tool ran": work(
        [text("Let me see."), use("c1"), use("c2")],
        calls=(call(1, "c1"), call(1, "c2", "The turn ended before.", status="failed")),
    ),
    "a turn that broke off behind its results": work([use("c1")], [], calls=(call(1, "c1"),)),
    "a denied call": work([use("c1")], calls=(call(1, "c1", "No.", status="denied"),)),
    "a tool that no longer exists": work([use("c1", "gone__tool")], calls=(call(1, "c1"),)),
    "a name that no provider takes": work([use("c1", "what is this?")], calls=(call(1, "c1"),)),
    "an image": work(
        [use("c1")],
        [text("A picture.")],
        calls=(call(1, "c1")._replace(blocks=[text("Seen:"), PICTURE]),),
    ),
    "blank texts": work([text(" \n"), use("c1")], [text(" ")], calls=(call(1, "c1"),)),
    "only thoughts": work([THOUGHT], [use("c1")], calls=(call(2, "c1"),)),
    "a provider's own tool": work(
        [{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}, use("c1")],
        calls=(call(1, "c1"),),
    ),
    "an edited input": work(
        [use("c1", query="a")], calls=(call(1, "c1")._replace(edited_input={"query": "b"}),)
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("brief", [False, True])
def test_whatever_became_of_a_call_the_provider_takes_it(case: str, *, brief: bool) -> None:
    done = CASES[case]._replace(is_brief=brief)

    # Ids repeat: some models number the calls of each answer.
    messages = sent(done, done, CASES["a call without a result"])

    assert refusal_of(messages) is None
    uses = [block["id"] for each in messages for block in each["content"] if "input" in block]
    assert len(set(uses)) == len(uses) > 0


def test_older_results_are_a_line_that_names_the_tool_its_status_and_its_size() -> None:
    done = work(
        [use("c1", query="x" * 5_000, page=2)],
        [text("Done.")],
        calls=(call(1, "c1", None)._replace(size=12_345),),
    )

    messages = sent(done._replace(is_brief=True))

    (result,) = messages[2]["content"]
    assert result["content"] == (
        "[Result of web_search (completed, 12,345 bytes): left out, since it is of an earlier "
        "turn.]"
    )
    asked = messages[1]["content"][0]["input"]
    assert asked["page"] == 2
    assert len(asked["query"]) <= 200


def test_what_was_found_for_the_question_stands_before_it_and_the_summary_before_all() -> None:
    said = [SaidMessage("user", "q1"), SaidMessage("assistant", "a1"), SaidMessage("user", "q2")]

    messages: Any = conversation(PromptMaterial(said), summary="S", context="C")

    assert kinds(messages) == [
        ("user", ["text", "text"]),
        ("assistant", ["text"]),
        ("user", ["text", "text"]),
    ]
    assert [block["text"] for block in messages[0]["content"]] == ["S", "q1"]
    assert messages[1]["content"] == [{**text("a1"), "cache_control": CACHE_MARK}]
    assert messages[2]["content"] == [text("C"), text("q2")]


def test_the_first_call_of_a_turn_marks_the_end_of_the_history_now_and_a_turn_ago() -> None:
    messages = sent(work([use("c1")], [text("b")]), work([use("c1")], [text("c")]))

    marks = [
        block.get("text")
        for message in messages
        for block in message["content"]
        if "cache_control" in block
    ]
    assert marks == ["b", "c"]


def test_what_joined_an_earlier_turn_stands_before_the_step_that_it_joined() -> None:
    done = work([use("c1")], [use("c2")], [text("Done.")], calls=(call(1, "c1"), call(2, "c2")))
    said = [
        SaidMessage("user", "q"),
        SaidMessage("user", "Be quick.", joined_step=2),
        SaidMessage("user", "And short.", joined_step=3),
        SaidMessage("assistant", "a", work=done),
        SaidMessage("user", "Thanks."),
    ]

    messages: Any = conversation(PromptMaterial(said))

    assert kinds(messages)[2::2] == [
        ("user", ["tool_result", "text"]),
        ("user", ["tool_result", "text"]),
        ("user", ["text"]),
    ]
    assert messages[2]["content"][1] == text("Be quick.")
    assert refusal_of(messages) is None


def test_results_of_one_turn_are_cut_to_their_limit() -> None:
    done = work([use("c1"), use("c2")], calls=(call(1, "c1", "word " * 5_000), call(1, "c2")))
    done = done._replace(tokens=work_tokens(done))

    less = capped(done, limit_tokens=500)

    assert work_tokens(less) <= 500
    assert less.calls[1] == done.calls[1]
    assert capped(done, limit_tokens=100_000) is done


def test_tokens_of_calls_and_results_count_and_go_with_their_answer() -> None:
    done = work([use("c1")], calls=(call(1, "c1", "word " * 500),))
    done = done._replace(tokens=work_tokens(done))
    said = [SaidMessage("user", "q", 10), SaidMessage("assistant", "a", 10, done)]
    material = PromptMaterial([*said, SaidMessage("user", "q", 10)])

    assert tokens_in(material) == 30 + done.tokens
    assert fitted(material, limit_tokens=100).messages == [material.messages[-1]]
    assert work_tokens(done._replace(is_brief=True)) < 100 < done.tokens


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


def history(turns: int, *, tokens: int = 100, work: int = 0) -> list[BranchMessage]:
    """Return the sizes of a conversation of turns with a question and an answer each."""
    sizes: list[BranchMessage] = []
    for turn in TURNS[:turns]:
        answer = sized(turn, tokens, asks=False, work=work, brief=20)
        sizes += [sized(turn, tokens, asks=True), answer]
    return [*sizes, sized(TURNS[turns], 10, asks=True)]


def test_results_stay_whole_until_their_room_is_full_and_then_many_are_shortened_at_once() -> None:
    whole_from, changes = None, []
    for turns in range(1, 40):
        window = fit(
            history(turns, work=100),
            budget_tokens=100_000,
            result_tokens=1_000,
            whole_from=whole_from,
        )
        assert window is not None
        if window.whole_from != whole_from:
            changes.append(turns)
        whole_from = window.whole_from
        shown = [turn for turn in TURNS[:turns] if whole_from is None or turn >= whole_from]
        assert len(shown) * 100 <= 1_000
        assert window.tokens == 10 + turns * 200 + len(shown) * 100 + (turns - len(shown)) * 20

    assert changes == [11, 17, 23, 29, 35]


def test_the_newest_results_stay_whole_even_if_they_fill_their_room_alone() -> None:
    window = fit(history(3, work=5_000), budget_tokens=100_000, result_tokens=1_000)

    assert window is not None
    assert window.whole_from == TURNS[2]
    assert window.tokens == 10 + 600 + 1_000 + 2 * 20


def test_the_beginning_stays_the_same_for_many_turns_and_is_then_cut_in_a_large_step() -> None:
    first, begins = 0, []
    for turns in range(1, 90):
        window = fit(history(turns)[2 * first :], budget_tokens=2_010)
        assert window is not None
        assert window.tokens <= 2_010
        if TURNS[first] != window.first_turn_id:
            begins.append(turns)
        first = TURNS.index(window.first_turn_id)

    assert len(begins) <= 25
    assert begins[0] == 11


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 900)), max_size=20),
    st.integers(0, 3_000),
    st.integers(0, 1_500),
)
def test_a_window_fits_and_begins_with_a_question(
    turns: list[tuple[int, int]], budget: int, results: int
) -> None:
    sizes = [
        size
        for turn, (tokens, work) in zip(TURNS, turns, strict=False)
        for size in (
            sized(turn, tokens, asks=True),
            sized(turn, tokens, asks=False, work=work, brief=min(work, 20)),
        )
    ]
    sizes.append(sized(TURNS[-1], 10, asks=True))

    window = fit(sizes, budget_tokens=budget, result_tokens=results)

    assert (window is None) == (budget < 10)
    if window is not None:
        assert window.tokens <= budget
        assert window.first_turn_id in {size.turn_id for size in sizes if size.asks}


def test_the_work_of_a_turn_is_the_same_at_each_rebuilding() -> None:
    done = CASES["an image"]

    first = turns_of_work(done)
    sent(done)

    assert turns_of_work(done) == first
