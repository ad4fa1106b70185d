"""What messages show of a turn: parts, citations, model, usage, cost, and why it ended."""

from typing import Any
from uuid import UUID

from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.contexts import remember
from tests.fixtures.event_stream import OUTPUT_CHARS, named
from tests.fixtures.gate_tool import GATE_TOOL
from tests.fixtures.library import add_ready_document
from tests.fixtures.stack import Stack

Row = dict[str, Any]


async def one(user: ApiUser, message_id: str) -> Row:
    response = await user.request("GET", f"/messages/{message_id}")
    assert response.status_code == 200, response.text
    message: Row = response.json()["data"]
    return message


def tool_calls(message: Row) -> list[Row]:
    return [part for part in message["parts"] if part["type"] == "tool_call"]


async def test_an_answer_shows_its_texts_and_tool_calls_in_order(
    user: ApiUser, stack: Stack
) -> None:
    question, chat = unique(), await user.create_chat()
    calls = (
        ToolCall(id="sum", name="calculator", input={"expression": "6 * 7"}),
        ToolCall(id="bad", name="calculator", input={"expression": "6 *"}),
    )
    stack.model.add(Script(match=question, text="Let me see. ", tool_calls=calls))
    stack.model.add(Script(match=question, text="It is 42. 答えは42です。"))

    answer = await user.ask(chat, question)

    message, turn = answer["assistantMessage"], answer["turn"]
    assert [part["type"] for part in message["parts"]] == ["text", "tool_call", "tool_call", "text"]
    before, good, bad, after = message["parts"]
    assert (before["text"], after["text"]) == ("Let me see. ", "It is 42. 答えは42です。")
    assert message["content"] == before["text"] + after["text"]
    assert (good["toolCallId"], good["step"], good["status"]) == ("sum", 1, "completed")
    assert (good["input"], good["output"]) == ({"expression": "6 * 7"}, "42")
    assert (good["error"], good["outputTruncated"], good["costUsd"]) == (None, False, "0")
    assert good["startedAt"] <= good["endedAt"]
    assert (bad["status"], bad["error"]) == ("failed", bad["output"])
    assert (message["model"], message["stopReason"]) == (stack.settings.default_model, "end_turn")
    assert (message["usage"], message["costUsd"]) == (turn["usage"], turn["costUsd"])
    assert (message["startedAt"], message["finishedAt"]) == (turn["startedAt"], turn["finishedAt"])
    assert (message["citations"], message["error"]) == ([], None)
    asked = answer["userMessage"]
    assert asked["parts"] == [{"type": "text", "text": question}]
    assert (asked["model"], asked["usage"], asked["costUsd"]) == (None, None, None)
    listed = await user.messages(chat)
    assert listed == [asked, message]
    single = await one(user, message["id"])
    assert single.pop("siblingIds") == [message["id"]]
    assert single == message
    await user.check_whole(chat, await user.events(turn["id"]))


async def test_an_answer_cites_what_was_quoted_for_it(user: ApiUser, stack: Stack) -> None:
    subject = unique("zebra")
    memory_id = await remember(user, f"My favourite animal is the {subject}.")
    document_id = await add_ready_document(user, f"The {subject} has stripes.", "On stripes")
    question, chat = f"What do you know of the {subject}?", await user.create_chat()
    stack.model.add(Script(match=question, text="Much."))

    events = await user.events_of(chat, question)
    _, answer = await user.messages(chat)

    await user.check_whole(chat, events)
    cited = {citation["type"]: citation for citation in answer["citations"]}
    memory, passage = cited["memory"], cited["passage"]
    assert (memory["id"], memory["documentId"], memory["version"]) == (memory_id, None, None)
    assert memory["title"] == f"My favourite animal is the {subject}."
    passages = await stack.inspection.rows(
        "SELECT id FROM passages WHERE document_id = $1", UUID(document_id)
    )
    assert UUID(passage["id"]) in [row["id"] for row in passages]
    assert (passage["documentId"], passage["version"]) == (document_id, 1)
    assert passage["title"] == "On stripes"
    assert min(memory["score"], passage["score"]) > 0

    assert (await user.request("DELETE", f"/memories/{memory_id}")).status_code == 204

    later = (await one(user, answer["id"]))["citations"]
    assert [(c["type"], c["title"]) for c in later] == [("memory", None), ("passage", "On stripes")]


async def test_citations_of_early_releases_have_the_title_of_today(
    user: ApiUser, stack: Stack
) -> None:
    document_id = await add_ready_document(user, "Nothing.", "Of today")
    question = unique()
    stack.model.add(Script(match=question, text="Yes."))
    answer = await user.ask(await user.create_chat(), question)
    await stack.inspection.execute(
        "UPDATE turn_contexts SET sources = jsonb_build_array(jsonb_build_object("
        "'type', 'document', 'id', $2::text, 'version', 1, 'score', 0.5)) WHERE turn_id = $1",
        UUID(answer["turn"]["id"]),
        document_id,
    )

    message = await one(user, answer["assistantMessage"]["id"])

    assert message["citations"] == [
        {
            "type": "passage",
            "id": None,
            "documentId": document_id,
            "version": 1,
            "title": "Of today",
            "score": 0.5,
        }
    ]


async def test_a_stopped_turn_shows_its_tool_calls_even_without_a_word(
    user: ApiUser, stack: Stack
) -> None:
    question, chat = unique(), await user.create_chat()
    call = ToolCall(id="gate", name=GATE_TOOL, input={"gate": unique("gate")})
    stack.model.add(Script(match=question, tool_calls=(call,)))

    async with user.stream(chat, question) as stream:
        await stream.until(
            lambda event: event.name == "tool_call" and event.data["status"] == "running"
        )
        await user.cancel(stream.turn_id)
        events = await stream.all()

    await user.check_whole(chat, events)
    answer = await user.answer_of(chat, stream.turn_id)
    assert answer is not None
    assert (answer["content"], answer["status"]) == ("", "cancelled")
    (shown,) = tool_calls(answer)
    assert (shown["toolCallId"], shown["status"]) == ("gate", "failed")
    assert shown["error"]


async def test_a_turn_that_is_stopped_in_thought_shows_the_thought(
    user: ApiUser, stack: Stack
) -> None:
    question, chat = unique(), await user.create_chat()
    stack.model.add(
        Script(match=question, thinking="Hm, so. " * 20, text="No.", hold=question, hold_after=8)
    )

    async with user.stream(chat, question, thinking="on") as stream:
        await stream.until_named("thinking")
        await user.cancel(stream.turn_id)
        events = await stream.all()

    await user.check_whole(chat, events)
    answer = await user.answer_of(chat, stream.turn_id)
    assert answer is not None
    assert (answer["content"], answer["stopReason"]) == ("", None)
    (part,) = answer["parts"]
    assert part["type"] == "thinking"
    assert part["text"].startswith("Hm, so. ")


async def test_a_question_without_an_answer_shows_why(user: ApiUser, stack: Stack) -> None:
    question, chat = unique(), await user.create_chat()
    stack.model.add(Script(match=question, status=400, message="No."))

    response = await user.post(chat, question)
    (asked,) = await user.messages(chat)

    error = response.json()["error"]
    assert error["code"] == "MODEL_REJECTED"
    assert asked["error"] == {name: error[name] for name in ("code", "message", "retryable")}
    assert asked["parts"] == [{"type": "text", "text": question}]


async def test_long_inputs_and_outputs_are_bounded(user: ApiUser, stack: Stack) -> None:
    question, chat = unique(), await user.create_chat()
    call = ToolCall(id="sum", name="calculator", input={"expression": "1 + 1"})
    stack.model.add(Script(match=question, tool_calls=(call,)))
    stack.model.add(Script(match=question, text="Long."))
    answer = await user.ask(chat, question)
    await stack.inspection.execute(
        "UPDATE tool_calls SET output = repeat('ä', 10000), "
        "input = jsonb_build_object('expression', repeat('1', 40000)) WHERE turn_id = $1",
        UUID(answer["turn"]["id"]),
    )

    (shown,) = tool_calls(await one(user, answer["assistantMessage"]["id"]))

    assert (shown["output"], shown["outputTruncated"]) == ("ä" * OUTPUT_CHARS, True)
    assert (shown["input"], shown["inputBytes"]) == (None, 40_018)
    whole = await user.request("GET", f"/turns/{answer['turn']['id']}/tool-calls/sum")
    assert len(whole.json()["data"]["output"]) == 10_000


async def test_an_answer_without_steps_is_shown_as_one_text(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Imported."))
    answer = await user.ask(await user.create_chat(), question)
    await stack.inspection.execute(
        "DELETE FROM steps WHERE turn_id = $1", UUID(answer["turn"]["id"])
    )

    message = await one(user, answer["assistantMessage"]["id"])

    assert message["parts"] == [{"type": "text", "text": "Imported."}]
    assert message["model"] == stack.settings.default_model


async def test_what_a_tool_costs_is_shown_with_its_call(user: ApiUser, stack: Stack) -> None:
    asked, deep, chat = unique(), unique(), await user.create_chat()
    call = ToolCall(id="deep", name="deep_reasoning", input={"question": deep})
    stack.model.add(Script(match=asked, tool_calls=(call,)))
    stack.model.add(Script(match=deep, text="Because."))

    events = await user.events_of(chat, asked)
    _, answer = await user.messages(chat)

    spent = {usage.data.get("toolCallId"): usage.data for usage in named(events, "usage")}
    (shown,) = tool_calls(answer)
    assert shown["costUsd"] == spent["deep"]["costUsd"] != "0"


async def test_data_of_a_client_is_shown_however_deep_it_is(user: ApiUser) -> None:
    deep: Row = {}
    for _ in range(250):
        deep = {"in": deep}

    sent = await user.ask(await user.create_chat(), unique(), metadata=deep)

    assert (await one(user, sent["userMessage"]["id"]))["metadata"] == deep
