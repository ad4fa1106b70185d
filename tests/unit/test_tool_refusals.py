"""Which tools a request goes without after its provider refused some."""

from collections.abc import Collection
from typing import Any, cast

import pytest

from schema.contexts import OfferedTool, PromptLayers
from services.prompts.conversation import EarlierStep
from services.prompts.layers import without_tools
from services.tools.refusals import RefusedTools, ToolTrials, called_tools, left_out_words


def tools(*names: str) -> list[OfferedTool]:
    return [
        OfferedTool(name=name, description="", input_schema={"type": "object"}) for name in names
    ]


OFFERED = tools("calculator", "a__one", "a__two", "b__one", "webhook")


def answered(
    trials: ToolTrials, refused: Collection[str], *, names_them: bool, most: int = 40
) -> int | None:
    """Ask until no tool that the provider refuses is left; return how often it refused, if so."""
    for refusals in range(most):
        sent = [tool.name for tool in trials.offered if tool.name not in trials.left_out]
        wrong = [index for index, name in enumerate(sent) if name in refused]
        if not wrong:
            trials.take_answer()
            return refusals
        if not trials.take_refusal(wrong[0] if names_them else None):
            return None
    return None


@pytest.mark.parametrize("refused", [["a__two"], ["calculator"], ["webhook", "a__one"]])
def test_tools_that_a_provider_names_are_left_out(refused: list[str]) -> None:
    trials = ToolTrials(OFFERED)

    assert answered(trials, refused, names_them=True) == len(refused)
    assert trials.left_out == set(refused)
    assert [tool.name for tool in trials.convicted] == [
        tool.name for tool in OFFERED if tool.name in refused
    ]


@pytest.mark.parametrize(
    ("refused", "refusals"), [("webhook", 1), ("b__one", 2), ("a__one", 4), ("calculator", 5)]
)
def test_one_tool_that_is_not_named_is_found(refused: str, refusals: int) -> None:
    trials = ToolTrials(OFFERED)

    assert answered(trials, [refused], names_them=False) == refusals
    assert trials.left_out == {refused}
    assert [tool.name for tool in trials.convicted] == [refused]


def test_several_that_are_not_named_are_left_out_with_all_of_servers_and_not_convicted() -> None:
    trials = ToolTrials(OFFERED)

    assert answered(trials, ["a__one", "b__one"], names_them=False) is not None
    assert trials.left_out == {"a__one", "a__two", "b__one"}
    assert trials.convicted == []


def test_a_provider_that_takes_no_tools_is_asked_without_any_and_convicts_none() -> None:
    for names_them in (True, False):
        trials = ToolTrials(OFFERED)

        assert answered(trials, [tool.name for tool in OFFERED], names_them=names_them) is not None
        assert trials.left_out == {tool.name for tool in OFFERED}
        assert trials.convicted == []


def test_a_provider_that_refuses_whatever_is_sent_is_asked_a_bounded_number_of_times() -> None:
    for names_them in (True, False):
        trials = ToolTrials(tools(*(f"a__{number}" for number in range(300))))
        refusals = 0
        while trials.take_refusal(0 if names_them else None):
            refusals += 1

        assert refusals <= 27
        assert len(trials.left_out) == 300


def test_a_position_that_no_tool_has_counts_as_none() -> None:
    trials = ToolTrials(OFFERED)

    assert trials.take_refusal(99)
    assert trials.left_out == {"webhook"}


async def test_what_was_refused_is_left_out_of_later_calls_of_that_model() -> None:
    # Without a database: nothing is stored, and the call goes on.
    refused = RefusedTools(cast("Any", None), lambda: None)
    trials = refused.trials("claude-a", OFFERED)
    trials.take_refusal(1)
    trials.take_answer()

    await refused.remember("claude-a", trials)

    assert refused.trials("claude-a", OFFERED).left_out == {"a__one"}
    assert not refused.trials("claude-a", OFFERED).has_new
    assert answered(refused.trials("claude-a", OFFERED), ["webhook"], names_them=False) == 1
    assert refused.trials("claude-b", OFFERED).left_out == frozenset()
    changed = [OFFERED[1].model_copy(update={"description": "Changed."})]
    assert refused.trials("claude-a", changed).left_out == frozenset()


def test_tools_that_were_left_out_before_are_not_convicted_of_a_new_refusal() -> None:
    trials = ToolTrials(OFFERED, known=frozenset({"a__one"}))

    assert answered(trials, ["webhook"], names_them=True) == 1
    assert trials.left_out == {"a__one", "webhook"}
    assert [tool.name for tool in trials.convicted] == ["webhook"]


def test_layers_without_a_tool_do_not_mention_it() -> None:
    text = "Tools that you can call:\n- calculator: For sums.\n- a__one: \n- a__one_more: "
    layers = PromptLayers(version="1", system="s", tools=text, offered=tuple(OFFERED))

    found = without_tools(layers, {"a__one"})

    assert found.tools == "Tools that you can call:\n- calculator: For sums.\n- a__one_more: "
    assert "a__one" not in {tool.name for tool in found.offered}
    assert without_tools(layers, {tool.name for tool in OFFERED}).tools == ""


def test_tools_called_before_are_defined_where_none_are_offered_any_more() -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "a__one", "input": {}}
    odd = call | {"name": "no tool at all"}

    assert called_tools([EarlierStep(1, [{"type": "text", "text": "x"}, call, odd])]) == [
        {"name": "a__one", "input_schema": {"type": "object", "properties": {}}}
    ]


def test_the_notice_names_some_of_the_tools() -> None:
    assert left_out_words(["b", "a"]) == (
        "The model's provider refused some tools; the answer goes without: `a`, `b`."
    )
    assert left_out_words(map(str, range(7))).endswith("`4` and 2 more.")
