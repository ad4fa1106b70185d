"""A chat is a tree: edits and new answers are branches, of which one is the current one."""

from typing import Any

import httpx
import pytest

from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.stack import Stack

Row = dict[str, Any]


async def said(user: ApiUser, chat: str, **query: str) -> list[Row]:
    response = await user.request("GET", f"/chats/{chat}/messages", params=query)
    assert response.status_code == 200, response.text
    messages: list[Row] = response.json()["data"]
    return messages


def texts(messages: list[Row]) -> list[str]:
    return [message["content"] for message in messages]


async def choose(user: ApiUser, chat: str, message: str) -> httpx.Response:
    return await user.request("PUT", f"/chats/{chat}/leaf", json={"messageId": message})


async def exchange(
    user: ApiUser, stack: Stack, chat: str, answer: str, **body: str | None
) -> tuple[str, Row]:
    """Ask and return the question and the data of its answer."""
    question = unique()
    stack.model.add(Script(match=question, text=answer))
    response = await user.request(
        "POST", f"/chats/{chat}/messages", json={"content": question, **body}
    )
    assert response.status_code == 200, response.text
    return question, response.json()["data"]


def sent(stack: Stack, question: str) -> str:
    """Return the conversation that the model was last sent for a question."""
    body = stack.model.requests_matching(question)[-1].body
    assert body is not None
    return str(body["messages"])


async def test_an_edited_question_is_a_branch_beside_the_first(user: ApiUser, stack: Stack) -> None:
    chat = await user.create_chat()
    begin, first = await exchange(user, stack, chat, "One.")
    old, second = await exchange(user, stack, chat, "Two.")

    new, edited = await exchange(
        user, stack, chat, "Other.", parentId=second["userMessage"]["parentId"]
    )

    assert edited["userMessage"]["parentId"] == first["assistantMessage"]["id"]
    assert "One." in sent(stack, new)
    assert "Two." not in sent(stack, new)
    assert old not in sent(stack, new)
    current = await said(user, chat, siblings="true")
    assert texts(current) == [begin, "One.", new, "Other."]
    assert current[2]["siblingIds"] == [second["userMessage"]["id"], edited["userMessage"]["id"]]
    assert current[3]["siblingIds"] == [current[3]["id"]]
    assert len(await said(user, chat, branch="all")) == 6
    earlier = await said(user, chat, branch=second["assistantMessage"]["id"])
    assert texts(earlier) == [begin, "One.", old, "Two."]
    assert texts(await said(user, chat, sort="-createdAt", limit="2")) == ["Other.", new]


async def test_the_conversation_continues_on_the_branch_that_was_chosen(
    user: ApiUser, stack: Stack
) -> None:
    chat = await user.create_chat()
    begin, first = await exchange(user, stack, chat, "One.")
    await exchange(user, stack, chat, "Two.")
    again, _ = await exchange(user, stack, chat, "Root.", parentId=None)
    assert texts(await said(user, chat)) == [again, "Root."]

    chosen = await choose(user, chat, first["userMessage"]["id"])
    follow_up, answer = await exchange(user, stack, chat, "Three.")

    assert chosen.status_code == 200, chosen.text
    assert chosen.json()["data"]["leafId"] == answer["userMessage"]["parentId"]
    assert texts(await said(user, chat))[0] == begin
    assert texts(await said(user, chat))[3:] == ["Two.", follow_up, "Three."]
    assert "Two." in sent(stack, follow_up)
    assert "Root." not in sent(stack, follow_up)


async def test_a_branch_chosen_while_a_turn_runs_stays_the_current_one(
    user: ApiUser, stack: Stack
) -> None:
    chat = await user.create_chat()
    begin, first = await exchange(user, stack, chat, "One.")
    question = unique()
    stack.model.add(Script(match=question, pieces=("Sl", "ow."), hold=question, hold_after=1))
    async with user.stream(chat, question, parentId=first["assistantMessage"]["id"]) as stream:
        await stream.until_text("Sl")
        other, _ = begin, await choose(user, chat, first["assistantMessage"]["id"])
        leaf = (await said(user, chat))[-1]
        stack.model.release(question)
        await stream.all()

    # The newest branch through the first answer is that of the question that is being answered.
    assert leaf["content"] == question
    assert texts(await said(user, chat)) == [other, "One.", question, "Slow."]


async def test_a_queued_question_follows_the_answer_that_it_waited_for(
    user: ApiUser, stack: Stack
) -> None:
    chat, slow, queued = await user.create_chat(), unique(), unique()
    stack.model.add(Script(match=slow, pieces=("Sl", "ow."), hold=slow, hold_after=1))
    stack.model.add(Script(match=queued, text="Next."))
    async with user.stream(chat, slow) as stream:
        await stream.until_text("Sl")
        async with user.stream(chat, queued, ifBusy="enqueue") as waiting:
            assert texts(await said(user, chat)) == [slow, queued]
            stack.model.release(slow)
            await stream.all()
            await waiting.all()

    messages = await said(user, chat)
    assert texts(messages) == [slow, "Slow.", queued, "Next."]
    assert [message["parentId"] for message in messages[1:]] == [
        message["id"] for message in messages[:-1]
    ]
    assert "Slow." in sent(stack, queued)


async def test_what_was_interrupted_stays_before_the_question_that_interrupted_it(
    user: ApiUser, stack: Stack
) -> None:
    chat, slow, dropped, urgent = await user.create_chat(), unique(), unique(), unique()
    stack.model.add(Script(match=slow, pieces=("Half", " whole."), hold=slow, hold_after=1))
    stack.model.add(Script(match=urgent, text="Now."))
    async with user.stream(chat, slow) as stream:
        await stream.until_text("Half")
        async with user.stream(chat, dropped, ifBusy="enqueue") as waiting:
            await user.events_of(chat, urgent, ifBusy="interrupt")
            await stream.all()
            await waiting.all()

    assert texts(await said(user, chat)) == [slow, "Half", dropped, urgent, "Now."]
    assert "Half" in sent(stack, urgent)
    assert dropped not in sent(stack, urgent)


async def test_a_message_is_deleted_with_all_that_follows_it(user: ApiUser, stack: Stack) -> None:
    chat = await user.create_chat()
    begin, first = await exchange(user, stack, chat, "One.")
    old, second = await exchange(user, stack, chat, "Two.")
    parent = first["assistantMessage"]["id"]
    _, third = await exchange(user, stack, chat, "Other.", parentId=parent)
    await exchange(user, stack, chat, "More.")

    deleted = await user.request("DELETE", f"/messages/{third['userMessage']['id']}")

    assert deleted.status_code == 204, deleted.text
    assert texts(await said(user, chat)) == [begin, "One.", old, "Two."]
    assert len(await said(user, chat, branch="all")) == 4
    assert (await user.request("GET", f"/turns/{third['turn']['id']}")).status_code == 404
    kept = await stack.inspection.value(
        "SELECT count(*) FROM ledger WHERE turn_id = $1", third["turn"]["id"]
    )
    assert kept == 1
    entries = await stack.inspection.value(
        "SELECT count(*) FROM audit_log WHERE action = 'message.deleted' AND resource_id = $1",
        third["userMessage"]["id"],
    )
    assert entries == 1
    for message in (second["userMessage"], first["userMessage"]):
        await user.request("DELETE", f"/messages/{message['id']}")
    assert await said(user, chat) == []
    again, _ = await exchange(user, stack, chat, "Again.")
    assert texts(await said(user, chat)) == [again, "Again."]


async def test_a_question_whose_answer_was_deleted_can_be_answered_again(
    user: ApiUser, stack: Stack
) -> None:
    chat = await user.create_chat()
    question, data = await exchange(user, stack, chat, "Secret words.")
    turn = data["turn"]["id"]

    await user.request("DELETE", f"/messages/{data['assistantMessage']['id']}")

    assert texts(await said(user, chat)) == [question]
    assert (await user.turn(turn))["assistantMessageId"] is None
    assert "Secret" not in "".join(str(event.data) for event in await user.events(turn))
    stack.model.add(Script(match=question, text="Public words."))
    again = await user.request("POST", f"/turns/{turn}/regenerate", json={})
    assert again.status_code == 200, again.text
    assert texts(await said(user, chat)) == [question, "Public words."]
    answer = again.json()["data"]["assistantMessage"]["id"]
    await user.request("DELETE", f"/messages/{answer}")
    assert texts(await said(user, chat)) == [question]


async def test_a_branch_is_not_deleted_while_a_turn_runs_on_it(user: ApiUser, stack: Stack) -> None:
    chat = await user.create_chat()
    _, first = await exchange(user, stack, chat, "One.")
    question = unique()
    stack.model.add(Script(match=question, pieces=("Sl", "ow."), hold=question, hold_after=1))
    async with user.stream(chat, question) as stream:
        await stream.until_text("Sl")
        refused = await user.request("DELETE", f"/messages/{first['userMessage']['id']}")
        stack.model.release(question)
        await stream.all()

    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "TURN_IN_PROGRESS"
    assert texts(await said(user, chat))[2:] == [question, "Slow."]


async def test_messages_of_other_chats_and_users_are_no_parents_or_branches(
    user: ApiUser, other_user: ApiUser, stack: Stack
) -> None:
    chat, elsewhere = await user.create_chat(), await user.create_chat()
    theirs = await other_user.create_chat()
    _, mine = await exchange(user, stack, elsewhere, "Mine.")
    _, others = await exchange(other_user, stack, theirs, "Theirs.")

    for data in (mine, others):
        message = data["assistantMessage"]["id"]
        sent_to = await user.request(
            "POST", f"/chats/{chat}/messages", json={"content": "Hello", "parentId": message}
        )
        assert sent_to.status_code == 400
        assert sent_to.json()["error"]["details"][0]["path"] == "body.parentId"
        chosen = await choose(user, chat, message)
        assert chosen.status_code == 400
        assert chosen.json()["error"]["details"][0]["path"] == "body.messageId"
        assert await said(user, chat, branch=message) == []
    message = others["assistantMessage"]["id"]
    for method in ("GET", "DELETE"):
        assert (await user.request(method, f"/messages/{message}")).status_code == 403
    assert texts(await said(other_user, theirs))[1:] == ["Theirs."]


@pytest.mark.parametrize("answers", [True, False], ids=["answered", "failed"])
async def test_messages_of_processes_that_know_no_parents_join_the_branch(
    user: ApiUser, stack: Stack, *, answers: bool
) -> None:
    """While a deployment replaces them, the release before inserts messages without a place."""
    chat = await user.create_chat()
    _, data = await exchange(user, stack, chat, "One.")
    turn = data["turn"]["id"]
    copy = """
        WITH turn AS (
            INSERT INTO turns (id, chat_id, user_id, user_message_id, active, model, status)
            SELECT gen_random_uuid(), chat_id, user_id, gen_random_uuid(), false, model, 'failed'
            FROM turns WHERE id = $1 RETURNING *
        )
        INSERT INTO messages (id, chat_id, user_id, turn_id, role, content)
        SELECT user_message_id, chat_id, user_id, id, 'user', 'asked' FROM turn RETURNING turn_id
    """
    old = await stack.inspection.value(copy, turn)
    if answers:
        await stack.inspection.execute(
            "INSERT INTO messages (id, chat_id, user_id, turn_id, role, content) "
            "SELECT gen_random_uuid(), chat_id, user_id, id, 'assistant', 'said' "
            "FROM turns WHERE id = $1",
            old,
        )

    ids = {message["content"]: message for message in await said(user, chat, branch="all")}
    leaf = (await user.request("GET", f"/chats/{chat}")).json()["data"]["leafId"]

    assert ids["asked"]["parentId"] == data["assistantMessage"]["id"]
    assert leaf == ids["said" if answers else "asked"]["id"]
    if answers:
        assert ids["said"]["parentId"] == ids["asked"]["id"]
