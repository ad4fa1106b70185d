"""The client of our own against the real API: every group, a stream, its end."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import everturn_client as everturn
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import PASSWORD, ApiUser, unique
from tests.fixtures.stack import Stack
from tests.running_everturn.waiting import eventually


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[everturn.AsyncEverturn]:
    async with everturn.AsyncEverturn(stack.origin) as client:
        await client.auth.signup(email=f"{uuid4().hex}@example.com", password=PASSWORD)
        yield client


async def test_a_message_is_answered_as_events_as_text_and_whole(
    client: everturn.AsyncEverturn, stack: Stack
) -> None:
    question = unique()
    for _ in range(3):
        stack.model.add(Script(match=question, pieces=("It ", "is ", "42.")))
    chat = await client.chats.create(title="Numbers")

    async with client.messages.stream(chat.id, content=question) as stream:
        events = [event async for event in stream]
        result = await stream.final()
    async with client.messages.stream(chat.id, content=question) as stream:
        text = "".join([piece async for piece in stream.text_stream])
    answer = await client.messages.create(chat.id, content=question)

    assert events[0].type == "turn"
    assert not [event for event in events if isinstance(event, everturn.UnknownEvent)]
    assert stream.state.streamed_text == result.text == text == "It is 42."
    assert answer.assistant_message is not None
    assert answer.assistant_message.content == "It is 42."
    messages = [message async for message in client.messages.list(chat.id, limit=2)]
    assert [message.role for message in messages] == ["user", "assistant"] * 3
    assert result.message is not None
    assert messages[1].id == result.message.id
    assert result.message.parts is None
    assert messages[1].parts == [everturn.TextPart(text=result.text)]
    turn = await client.turns.get(result.turn_id)
    assert (turn.status, turn.cost_usd) == ("completed", result.cost_usd)


async def test_a_stream_is_resumed_after_any_of_its_events_to_the_same_end(
    client: everturn.AsyncEverturn, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="It is 42."))
    chat = await client.chats.create(title="A chat")
    async with client.messages.stream(chat.id, content=question) as stream:
        events = [event async for event in stream]

    for number, event in enumerate(events[:-1], start=1):
        async with client.turns.events(stream.turn_id, after=event.id) as resumed:
            assert [rest.id async for rest in resumed] == [rest.id for rest in events[number:]]


async def test_cancelling_ends_the_stream_with_the_text_so_far(
    client: everturn.AsyncEverturn, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, pieces=("Once ", "upon"), hold=question, hold_after=1))
    chat = await client.chats.create(title="A chat")

    async with client.messages.stream(chat.id, content=question) as stream:
        async for event in stream:
            if isinstance(event, everturn.DeltaEvent):
                await stream.cancel()
        result = await stream.final()

    assert (result.status, result.text) == ("cancelled", "Once ")


async def test_a_busy_chat_and_a_failed_turn_have_their_own_errors(
    client: everturn.AsyncEverturn, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, pieces=("One", "two"), hold=question, hold_after=1))
    refused = unique()
    stack.model.add(Script(match=refused, status=400))
    chat = await client.chats.create(title="A chat")

    async with client.messages.stream(chat.id, content=question) as stream:
        with pytest.raises(everturn.TurnInProgressError) as busy:
            await client.messages.create(chat.id, content="And this?")
        stack.model.release(question)
        await stream.final()
    async with client.messages.stream(chat.id, content=refused) as stream:
        with pytest.raises(everturn.TurnFailedError) as failed:
            await stream.final()

    assert (busy.value.status_code, busy.value.request_id is not None) == (409, True)
    assert (failed.value.code, failed.value.retryable) == ("MODEL_REJECTED", False)


async def test_the_error_of_an_awaited_answer_names_its_failed_turn(
    client: everturn.AsyncEverturn, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, status=400))
    chat = await client.chats.create(title="A chat")

    with pytest.raises(everturn.ModelRejectedError) as failed:
        await client.messages.create(chat.id, content=question)

    assert failed.value.turn_id is not None
    assert (await client.turns.get(failed.value.turn_id)).status == "failed"


async def test_a_tool_call_is_decided_about(client: everturn.AsyncEverturn, stack: Stack) -> None:
    await client.users.set_preferences({"tool_approvals": {"calculator": "ask"}})
    question = unique()
    call = ToolCall(id="call", name="calculator", input={"expression": "6*7"})
    stack.model.add(Script(match=question, tool_calls=(call,)))
    stack.model.add(Script(match=question, text="Done."))
    chat = await client.chats.create(title="A chat")

    async with client.messages.stream(chat.id, content=question) as stream:
        async for event in stream:
            if isinstance(event, everturn.ToolCallEvent) and event.status == "awaiting_approval":
                await client.turns.decide(
                    stream.turn_id, event.tool_call_id, "approve", input={"expression": "6*8"}
                )

    assert [call.output for call in stream.state.tool_calls.values()] == ["48"]


async def test_chats_memories_documents_keys_and_the_account(
    client: everturn.AsyncEverturn, stack: Stack
) -> None:
    chat = await client.chats.create(title="Rivers")
    renamed = await client.chats.update(chat.id, title="Seas", if_version=chat.version)
    with pytest.raises(everturn.PreconditionFailedError):
        await client.chats.update(chat.id, title="Lakes", if_version=chat.version)
    assert [found.title async for found in client.chats.list()] == [renamed.title] == ["Seas"]

    memory = await client.memories.create(content="Sails a boat", kind="fact")
    assert [hit.id for hit in await client.memories.search("sailing")] == [memory.id]
    await client.memories.delete(memory.id)
    with pytest.raises(everturn.NotFoundError):
        await client.memories.get(memory.id)

    document = await client.knowledge.create(title="Harbours", content="It closes at dusk.")
    uploaded = await client.knowledge.upload(b"Quays.", filename="quays.txt")
    assert (uploaded.title, uploaded.content_type) == ("quays.txt", "text/plain")

    async def status() -> str:
        return (await client.knowledge.get(document.id)).ingestion.status

    await eventually(status, lambda seen: seen == "ready")
    (hit, *_) = await client.knowledge.search("When does it close?")
    assert hit.document_id == document.id
    published = await client.knowledge.publish(document.id)
    assert published.published_version == 1

    key = await client.api_keys.create(name="Script", permissions=["chats:read"])
    assert key.key is not None
    async with everturn.AsyncEverturn(stack.origin, api_key=key.key) as script:
        assert (await script.chats.get(chat.id)).id == chat.id
        with pytest.raises(everturn.PermissionDeniedError):
            await script.chats.create(title="A chat")

    tools = {tool.name async for tool in client.tools.list()}
    assert "calculator" in tools
    assert (await client.subscription.get()).plan.name
    assert (await client.subscription.usage()).memories.used == 0
    assert b"Harbours" in await client.users.export()
    assert (await client.users.update(display_name="Ada")).display_name == "Ada"


async def test_administrators_read_what_others_cannot(
    client: everturn.AsyncEverturn, stack: Stack, admin: ApiUser
) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="Yes."))
    chat = await client.chats.create(title="A chat")
    answer = await client.messages.create(chat.id, content=question)

    with pytest.raises(everturn.PermissionDeniedError, match="admin:read"):
        await client.admin.turns.get(answer.turn.id)
    async with everturn.AsyncEverturn(stack.origin) as administrator:
        await administrator.auth.login(email=admin.email, password=PASSWORD)
        inspected = await administrator.admin.turns.get(answer.turn.id)
        found = await administrator.admin.users.list(limit=1).first(1)
        totals = [row async for row in administrator.admin.usage(group_by="model")]
        entries = await administrator.admin.audit(resource_id=answer.turn.id).first(1)
        plans = [plan async for plan in administrator.admin.plans.list()]
        alerts = await administrator.admin.alerts().first(1)
        tested = await administrator.admin.tools.test("calculator", {"expression": "6*7"})

    assert [message.content for message in inspected.messages] == [question, "Yes."]
    assert len(found) == 1
    assert totals
    assert [entry.action for entry in entries] == ["turn.read"]
    assert any(plan.is_default for plan in plans)
    assert len(alerts) <= 1
    assert tested.output == "42"


async def test_the_blocking_client_chats_in_a_thread(stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="It is 42."))

    def chat() -> tuple[str, list[str]]:
        with everturn.Everturn(stack.origin) as client:
            client.auth.signup(email=f"{uuid4().hex}@example.com", password=PASSWORD)
            created = client.chats.create(title="Numbers")
            with client.messages.stream(created.id, content=question) as stream:
                text = "".join(stream.text_stream)
            return text, [found.title or "" for found in client.chats.list()]

    assert await asyncio.to_thread(chat) == ("It is 42.", ["Numbers"])


async def test_the_samples_of_the_documentation_work(
    stack: Stack, user: ApiUser, capsys: pytest.CaptureFixture[str]
) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="It is 42."))
    page = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
    _, about_clients = page.split("## A client\n")
    (sample,) = re.findall(r"```python\n(.*?)```", about_clients, re.DOTALL)
    names: dict[str, Any] = {}
    exec(sample, names)

    def ask() -> str:
        with everturn.Everturn(stack.origin, token=user.session["accessToken"]) as client:
            return str(names["ask"](client, client.chats.create(title="A chat").id, question))

    assert await asyncio.to_thread(ask) == "It is 42."
    assert "It is 42." in capsys.readouterr().out
