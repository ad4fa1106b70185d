"""A person signs up, chats and gets answers, from HTTP to the model and back."""

import re
import shutil
from pathlib import Path

import pytest

from tests.running_everturn.checks import assert_stream_is_whole
from tests.running_everturn.client import PASSWORD, Client, names
from tests.running_everturn.model import ModelControl
from tests.running_everturn.process import EVERTURN, EverturnDev, run


async def test_an_answer_is_streamed_while_the_model_writes_it(
    client: Client, model: ModelControl
) -> None:
    await model.script(
        match="streamed", pieces=["One, ", "two, ", "three."], hold="s", hold_after=2
    )

    async with client.ask("streamed") as stream:
        await stream.until_text("One, two, ")
        await model.release("s")
        events = await stream.to_end()

    assert await assert_stream_is_whole(client, stream.turn_id, events) == "One, two, three."
    assert (events[0].name, events[0].status) == ("turn", "queued")
    assert names(events)[-2:] == ["usage", "done"]
    (request,) = await model.requests("streamed")
    assert events[-1].data["usage"]["inputTokens"] == request["usage"]["input_tokens"]
    assert events[-1].data["usage"]["outputTokens"] == request["usage"]["output_tokens"]


async def test_the_next_message_of_a_chat_knows_the_one_before(
    client: Client, everturn: EverturnDev
) -> None:
    chat_id = await client.new_chat()
    await client.send(chat_id, "Remember me.")

    answer = (await client.send(chat_id, "What did I say?"))["assistantMessage"]["content"]

    assert "I can see 2 earlier messages." in answer
    roles = [message["role"] for message in await client.messages(chat_id)]
    assert roles == ["user", "assistant", "user", "assistant"]


@pytest.mark.parametrize(
    ("question", "tool", "said"),
    [
        ("What is 123456789 * 987654321?", "calculator", "121932631112635269"),
        ("What time is it in Asia/Tokyo?", "datetime", ":"),
    ],
)
async def test_a_tool_answers_what_the_model_asks_it(
    client: Client, question: str, tool: str, said: str
) -> None:
    async with client.ask(question) as stream:
        events = await stream.to_end()

    # Models group digits in different ways.
    answer = await assert_stream_is_whole(client, stream.turn_id, events)
    assert said in re.sub(r"(?<=\d)[,._ ](?=\d)", "", answer)
    calls = [event for event in events if event.name == "tool_call"]
    assert [(call.data["name"], call.status) for call in calls] == [
        (tool, "requested"),
        (tool, "running"),
        (tool, "completed"),
    ]
    assert [event.data["step"] for event in events if event.name == "step"] == [1, 2]


async def test_without_a_stream_the_whole_answer_is_returned(client: Client) -> None:
    chat_id = await client.new_chat()

    answer = await client.send(chat_id, "What is 6 * 7?")

    assert answer["userMessage"]["content"] == "What is 6 * 7?"
    assert "42" in answer["assistantMessage"]["content"]
    assert answer["turn"]["status"] == "completed"
    assert await client.messages(chat_id) == [answer["userMessage"], answer["assistantMessage"]]


async def test_a_client_that_goes_away_stops_nothing(client: Client, model: ModelControl) -> None:
    await model.script(match="left alone", pieces=["Still ", "here."], hold="left", hold_after=1)
    async with client.ask("left alone") as stream:
        await stream.until_text("Still ")
    seen, last_id = stream.events, stream.last_id
    await model.release("left")

    rest = await client.events(stream.turn_id, after=last_id)

    assert await assert_stream_is_whole(client, stream.turn_id, [*seen, *rest]) == "Still here."


async def test_everturn_chat_prints_the_answer(
    client: Client, everturn: EverturnDev, folder: Path
) -> None:
    ended = await run(
        *(EVERTURN, "chat", "--url", everturn.addresses["api"], "--message", "What is 6 * 7?"),
        folder=folder,
        HOME=str(folder),
        XDG_CONFIG_HOME=str(folder),
        EVERTURN_EMAIL=client.email,
        EVERTURN_PASSWORD=PASSWORD,
    )

    assert (ended.exit_code, ended.output) == (
        0,
        "The demo model's tools say: 6 * 7 = 42.\n",
    )
    (chat,) = await client.api.chats.list().first(2)
    _, answer = await client.messages(chat.id)
    assert ended.output == f"{answer['content']}\n"


async def test_the_printed_curl_lines_work_as_pasted_and_pasted_again(
    everturn: EverturnDev, folder: Path
) -> None:
    assert shutil.which("curl"), "this test pastes curl lines: install curl"
    _, _, after_api = everturn.output.partition("\napi=")
    pasted = "api=" + after_api.partition("\n\n")[0]

    for _ in range(2):
        ended = await run("bash", "-c", pasted, folder=folder)

        assert (ended.exit_code, ended.errors) == (0, "")
        assert "event: tool_call\n" in ended.output
        assert "6 * 7 = 42" in ended.output
        assert ended.output.count("event: done\n") == 1


async def test_everturn_chat_edits_asks_again_and_changes_branches(
    client: Client, everturn: EverturnDev, folder: Path
) -> None:
    commands = (
        *("What is 1 + 1?", "/edit What is 2 + 2?", "/again", "/branches", "/branch 3"),
        *("What is 3 + 3?", "/rename Sums", "/model no-such-model", "What is 4 + 4?", "/branch 9"),
    )
    ended = await run(
        *(EVERTURN, "chat", "--url", everturn.addresses["api"], "--new"),
        folder=folder,
        typed="\n".join(commands),
        HOME=str(folder),
        XDG_CONFIG_HOME=str(folder),
        EVERTURN_EMAIL=client.email,
        EVERTURN_PASSWORD=PASSWORD,
    )

    said = [f"The demo model's tools say: {sum_}." for sum_ in ("1 + 1 = 2", "2 + 2 = 4")]
    sixth = "The demo model's tools say: 3 + 3 = 6."
    assert ended.output.splitlines() == [*said, said[1], sixth], ended
    assert f"  1  {said[1]} (current)\n  2  {said[1]}\n  3  {said[0]}\n" in ended.errors
    call = '⚙ calculator {"expression": "1 + 1"} · completed · 2'
    assert f"> What is 1 + 1?\n{call}\n{said[0]}\n" in ended.errors
    assert "Unknown model." in ended.errors
    assert "Use /branch N, with a number from /branches." in ended.errors
    chats = [chat async for chat in client.api.chats.list(search="Sums")]
    messages = await client.messages(chats[0].id)
    assert [message["content"] for message in messages] == [
        *("What is 1 + 1?", said[0], "What is 3 + 3?", sixth)
    ]
