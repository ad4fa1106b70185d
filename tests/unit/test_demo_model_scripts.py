"""How scripts are queued, and what answer they and the limits of a request make."""

import pytest
from pydantic import ValidationError

from tests.fakes.scripted_model.answers import scripted_answer
from tests.fakes.scripted_model.scripts import Script, ScriptedUsage, ScriptQueue, ToolCall
from workers.demo_model.answers import Answer, input_tokens_of, split_pieces, tokens_of
from workers.demo_model.prompt import JsonObject, read_prompt


def answer(script: Script, *, max_tokens: int = 1000, **more: object) -> Answer:
    body: JsonObject = {
        "model": "claude-demo",
        "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": "Hello, you!"}],
        **more,
    }
    return scripted_answer(read_prompt(body), script)


def test_scripts_are_used_in_the_order_they_came() -> None:
    queue = ScriptQueue()
    first, second = Script(text="1"), Script(text="2")
    queue.add(first)
    queue.add(second)

    assert [first, second, None] == [queue.take("a"), queue.take("b"), queue.take("c")]


def test_a_script_waits_for_the_text_that_it_matches() -> None:
    queue = ScriptQueue()
    script = Script(match="blue", text="sky")
    queue.add(script)

    assert [None, script] == [queue.take("red"), queue.take("a blue one")]


def test_a_repeated_script_is_used_that_often() -> None:
    queue = ScriptQueue()
    script = Script(repeat=2)
    queue.add(script)

    assert len(queue) == 2
    assert [script, script, None] == [queue.take(""), queue.take(""), queue.take("")]


def test_a_cleared_queue_is_empty() -> None:
    queue = ScriptQueue()
    queue.add(Script(repeat=3))

    queue.clear()

    assert (len(queue), queue.take("")) == (0, None)


def test_an_unknown_field_in_a_script_is_an_error() -> None:
    with pytest.raises(ValidationError, match="dealy"):
        Script.model_validate({"dealy": 1})


@pytest.mark.parametrize(
    ("thinking", "kinds", "is_shown"),
    [
        ({"type": "adaptive", "display": "summarized"}, ["thinking", "text"], True),
        ({"type": "adaptive"}, ["thinking", "text"], False),
        ({"type": "disabled"}, ["text"], True),
    ],
)
def test_the_rules_think_first_where_they_are_asked_to(
    thinking: JsonObject, kinds: list[str], *, is_shown: bool
) -> None:
    blocks = answer(Script(), thinking=thinking).blocks

    assert [block.kind for block in blocks] == kinds
    assert bool(blocks[0].content) is is_shown


def test_blocks_are_ordered_thinking_text_tools() -> None:
    script = Script(
        thinking="Hm.",
        pieces=("He", "llo"),
        tool_calls=(ToolCall(name="clock", input={"zone": "UTC"}, id="toolu_7"),),
    )

    thinking, text, call = answer(script).blocks

    assert (thinking.kind, thinking.content) == ("thinking", "Hm.")
    assert text.pieces == ("He", "llo")
    assert (
        call.tool_name,
        call.tool_use_id,
        call.content,
    ) == ("clock", "toolu_7", '{"zone": "UTC"}')


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (Script(text="Hello"), "end_turn"),
        (Script(tool_calls=(ToolCall(name="clock"),)), "tool_use"),
        (Script(text="Hello", stop_reason="refusal"), "refusal"),
    ],
)
def test_an_answer_has_a_stop_reason(script: Script, reason: str) -> None:
    assert reason == answer(script).stop_reason


def test_a_script_that_writes_no_answer_leaves_it_to_the_rules() -> None:
    (block,) = answer(Script(delay_between_s=1)).blocks

    assert block.content.startswith("I am the demo model")


def test_an_answer_is_cut_at_max_tokens() -> None:
    cut = answer(Script(text="abc defgh ijk"), max_tokens=2)

    assert (
        cut.blocks[0].content,
        cut.stop_reason,
        cut.usage.output_tokens,
    ) == ("abc defg", "max_tokens", 2)


def test_blocks_beyond_max_tokens_are_left_out() -> None:
    cut = answer(Script(text="abcd", tool_calls=(ToolCall(name="clock"),)), max_tokens=1)

    assert ([block.kind for block in cut.blocks], cut.stop_reason) == (["text"], "max_tokens")


def test_an_answer_that_just_fits_is_whole() -> None:
    assert answer(Script(text="abcdefgh"), max_tokens=2).stop_reason == "end_turn"


def test_usage_is_counted_unless_scripted() -> None:
    counted = answer(Script(text="abcde")).usage
    scripted = answer(
        Script(text="abcde", usage=ScriptedUsage(input_tokens=0, cache_read_input_tokens=900))
    ).usage

    assert tuple(counted.as_json().values()) == (3, 2, 0, 0)
    assert tuple(scripted.as_json().values()) == (0, 2, 0, 900)


@pytest.mark.parametrize(("chars", "tokens"), [(0, 1), (1, 1), (4, 1), (5, 2), (8, 2)])
def test_four_characters_are_a_token(chars: int, tokens: int) -> None:
    assert tokens == tokens_of(chars)


def test_input_tokens_count_system_tools_and_messages() -> None:
    call = {"type": "tool_use", "id": "t", "name": "n", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}]}
    body: JsonObject = {
        "system": [{"type": "text", "text": "s" * 40, "cache_control": {"type": "ephemeral"}}],
        "tools": [{"name": "n"}],
        "messages": [
            {"role": "user", "content": "u" * 36},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
        ],
    }

    assert tokens_of(40 + len('{"name": "n"}') + 36 + len(str(call)) + 1) == input_tokens_of(body)


@pytest.mark.parametrize("text", ["", " ", "a  b\n\nc ", "x" * 30, "日本語のとても長い文章です。"])
def test_pieces_joined_are_the_text(text: str) -> None:
    assert text == "".join(split_pieces(text))
