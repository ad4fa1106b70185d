"""Answers as values: what is asked for, checked, corrected once, and told where it does not fit."""

from typing import Any

from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.event_stream import Event, named, rebuild, turn_id_of
from tests.fixtures.stack import Stack

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "city": {"type": "string", "minLength": 2}},
    "required": ["reason", "city"],
}
ROME = '{"reason": "All roads.", "city": "Rome"}'
SHORT = '{"reason": "All roads.", "city": "R"}'


def notices(events: list[Event]) -> list[str]:
    return [event.data["code"] for event in named(events, "notice")]


def bodies(stack: Stack, question: str) -> list[dict[str, Any]]:
    return [record.body or {} for record in stack.model.requests_matching(question)]


async def structured(user: ApiUser, chat: str) -> Any:  # noqa: ANN401 -- any JSON
    return (await user.messages(chat))[-1]["structured"]


async def test_an_answer_comes_as_a_value_that_fits_the_schema(user: ApiUser, stack: Stack) -> None:
    question = unique()
    call = ToolCall(name="calculator", input={"expression": "1 + 1"})
    stack.model.add(Script(match=question, thinking="Hm.", text="Let me see.", tool_calls=(call,)))
    stack.model.add(Script(match=question, thinking="So.", text=ROME))
    chat = await user.create_chat()

    events = await user.events_of(chat, question, responseSchema=CITY, thinking="on")

    await user.check_whole(chat, events)
    assert rebuild(events) == f"Let me see.{ROME}"
    assert await structured(user, chat) == {"reason": "All roads.", "city": "Rome"}
    assert events[-1].data["assistantMessage"]["structured"]["city"] == "Rome"
    for body in bodies(stack, question):
        schema = body["output_config"]["format"]["schema"]
        assert list(schema["properties"]) == ["reason", "city"]
    assert notices(events) == []


async def test_an_answer_that_does_not_fit_is_corrected_in_a_further_step(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, thinking="Short.", text=SHORT))
    stack.model.add(Script(match="does not fit the JSON schema", text=f"```json\n{ROME}\n```"))
    chat = await user.create_chat()

    events = await user.events_of(chat, question, responseSchema=CITY, thinking="on")

    await user.check_whole(chat, events)
    assert rebuild(events) == f"```json\n{ROME}\n```"
    assert (await structured(user, chat))["city"] == "Rome"
    assert [event.data["step"] for event in named(events, "step")] == [1, 1, 2]
    assert notices(events) == []
    *_, rejected, correction = bodies(stack, "does not fit the JSON schema")[-1]["messages"]
    assert [block["type"] for block in rejected["content"]] == ["thinking", "text"]
    assert "`city`" in correction["content"][0]["text"]
    charges = await stack.inspection.charges(turn_id_of(events))
    assert [(charge["step"], charge["status"]) for charge in charges] == [
        (1, "settled"),
        (2, "settled"),
    ]
    from_database = await user.events(turn_id_of(events), query="0-1")
    assert rebuild(from_database) == f"```json\n{ROME}\n```"


async def test_an_answer_that_never_fits_completes_the_turn_with_a_notice(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Rome."))
    stack.model.add(Script(match="does not fit the JSON schema", text="I said Rome."))
    chat = await user.create_chat()

    events = await user.events_of(chat, question, responseSchema=CITY)

    await user.check_whole(chat, events)
    assert (rebuild(events), events[-1].data["status"]) == ("I said Rome.", "completed")
    assert notices(events) == ["VALIDATION"]
    assert await structured(user, chat) is None


async def test_an_answer_that_was_cut_off_is_not_asked_for_again(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, text=ROME))
    chat = await user.create_chat()

    events = await user.events_of(chat, question, responseSchema=CITY, maxTokens=3)

    await user.check_whole(chat, events)
    assert sorted(notices(events)) == ["VALIDATION", "max_tokens"]
    assert len(bodies(stack, question)) == 1
    assert await structured(user, chat) is None


async def test_a_turn_without_a_step_to_spare_is_not_corrected(tight: Stack) -> None:
    user = await tight.sign_up()
    question = unique()
    call = ToolCall(name="calculator", input={"expression": "1 + 1"})
    tight.model.add(Script(match=question, tool_calls=(call,)))
    tight.model.add(Script(match=question, text="Two."))
    chat = await user.create_chat()

    events = await user.events_of(chat, question, responseSchema=CITY)

    await user.check_whole(chat, events)
    assert (rebuild(events), events[-1].data["status"]) == ("Two.", "completed")
    assert notices(events) == ["VALIDATION"]


async def test_a_correction_that_fails_ends_the_turn_as_any_step(tight: Stack) -> None:
    user = await tight.sign_up()
    question = unique()
    tight.model.add(Script(match=question, text="Rome."))
    tight.model.add(Script(match="does not fit", status=401))
    chat = await user.create_chat()

    events = await user.events_of(chat, question, responseSchema=CITY, model="claude-opus-5-5")

    await user.check_whole(chat, events)
    assert events[-1].data["status"] == "failed"


async def test_a_schema_that_the_provider_does_not_take_is_asked_for_in_words(
    user: ApiUser, stack: Stack
) -> None:
    question, odd = unique(), unique()
    sizes = {"type": "object", "additionalProperties": {"type": "number"}}
    refusal = "output_config.format.schema: not supported"
    stack.model.add(Script(match=question, status=400, message=refusal))
    stack.model.add(Script(match=question, text=ROME))
    stack.model.add(Script(match=odd, text='{"Größe in cm": 180}'))
    chat = await user.create_chat()

    events = await user.events_of(chat, question, responseSchema=CITY, model="claude-sonnet-5-5")
    await user.events_of(chat, odd, responseSchema=sizes)

    await user.check_whole(chat, events)
    assert (rebuild(events), notices(events)) == (ROME, [])
    assert "format" not in (bodies(stack, question)[1].get("output_config") or {})
    for body in (bodies(stack, question)[1], *bodies(stack, odd)):
        assert "JSON schema" in body["system"][-1]["text"]
    assert await structured(user, chat) == {"Größe in cm": 180}
