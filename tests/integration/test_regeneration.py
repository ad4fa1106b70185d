"""Regeneration: a new turn answers a question again, beside the answer that it has."""

import asyncio

import httpx

from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.stack import Stack


async def regenerate(
    user: ApiUser, turn: str, *, key: str | None = None, **body: object
) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await user.request("POST", f"/turns/{turn}/regenerate", json=body, headers=headers)


async def answered(user: ApiUser, stack: Stack, *answers: str) -> tuple[str, str, str]:
    """Return a chat, its one turn and the question, for which further answers are scripted."""
    question = unique()
    for answer in answers:
        stack.model.add(Script(match=question, text=answer))
    chat = await user.create_chat()
    return chat, (await user.ask(chat, question))["turn"]["id"], question


async def test_a_new_answer_replaces_the_old_one(user: ApiUser, stack: Stack) -> None:
    chat, turn, question = await answered(user, stack, "First.", "Second.")

    response = await regenerate(user, turn)

    assert response.status_code == 200, response.text
    data = response.json()["data"]
    assert data["turn"]["regenerates"] == turn
    assert data["turn"]["id"] != turn
    messages = await user.messages(chat)
    assert [message["content"] for message in messages] == [question, "Second."]
    assert [message["turnId"] for message in messages] == [turn, data["turn"]["id"]]
    assert data["userMessage"]["id"] == messages[0]["id"] == messages[1]["parentId"]
    assert (await user.turn(turn))["status"] == "completed"


async def test_the_model_is_not_shown_the_answer_that_was_replaced(
    user: ApiUser, stack: Stack
) -> None:
    chat, turn, question = await answered(user, stack, "Old words.", "New words.")
    await regenerate(user, turn)
    follow_up = unique()
    stack.model.add(Script(match=follow_up, text="Fine."))

    await user.ask(chat, follow_up)

    (again,) = stack.model.requests_matching(question)[1:2]
    (after,) = stack.model.requests_matching(follow_up)
    assert again.body is not None
    assert after.body is not None
    assert "Old words." not in str(again.body["messages"])
    assert "Old words." not in str(after.body["messages"])
    assert "New words." in str(after.body["messages"])


async def test_a_new_answer_can_be_streamed_and_asked_of_another_model(
    user: ApiUser, stack: Stack
) -> None:
    chat, turn, _ = await answered(user, stack, "First.", "Second.")

    response = await regenerate(user, turn, stream=True, model="claude-sonnet-5-5")

    assert response.headers["content-type"].startswith("text/event-stream")
    messages = await user.messages(chat)
    assert messages[-1]["content"] == "Second."
    assert (await user.turn(messages[-1]["turnId"]))["model"] == "claude-sonnet-5-5"


async def test_a_failed_turn_can_be_regenerated(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, status=400))
    stack.model.add(Script(match=question, text="Now it works."))
    chat = await user.create_chat()
    events = await user.events_of(chat, question)
    turn = next(event.data["turnId"] for event in events if event.name == "turn")

    response = await regenerate(user, turn)

    assert response.json()["data"]["assistantMessage"]["content"] == "Now it works."


async def test_an_earlier_question_is_answered_again_on_a_branch_of_its_own(
    user: ApiUser, stack: Stack
) -> None:
    chat, turn, question = await answered(user, stack, "First.", "Second.", "Third.")
    follow_up = unique()
    stack.model.add(Script(match=follow_up, text="Fine."))
    await user.ask(chat, follow_up)

    again = [await regenerate(user, turn) for _ in range(2)]

    assert [answer.status_code for answer in again] == [200, 200]
    messages = await user.messages(chat)
    assert [message["content"] for message in messages] == [question, "Third."]
    answer = (await user.request("GET", f"/messages/{messages[1]['id']}")).json()["data"]
    assert len(answer["siblingIds"]) == 3
    everything = (await user.request("GET", f"/chats/{chat}/messages?branch=all")).json()["data"]
    assert [message["content"] for message in everything] == [
        *(question, "First.", follow_up, "Fine.", "Second.", "Third.")
    ]


async def test_a_running_turn_cannot_be_replaced(user: ApiUser, stack: Stack) -> None:
    question = unique()
    stack.model.add(Script(match=question, pieces=("One, ", "two."), hold=question, hold_after=1))
    chat = await user.create_chat()
    async with user.stream(chat, question) as stream:
        await stream.until_text("One, ")
        response = await regenerate(user, stream.turn_id)
        await user.cancel(stream.turn_id)
        await stream.all()

    assert response.status_code == 409
    assert response.json()["error"]["code"] == "TURN_IN_PROGRESS"


async def test_one_of_several_concurrent_requests_answers_at_a_time(
    user: ApiUser, stack: Stack
) -> None:
    question = unique()
    stack.model.add(Script(match=question, text="First."))
    stack.model.add(Script(match=question, pieces=("Sec", "ond."), hold=question, hold_after=1))
    chat = await user.create_chat()
    turn = (await user.ask(chat, question))["turn"]["id"]

    requests = [asyncio.create_task(regenerate(user, turn)) for _ in range(4)]
    refused: list[int] = []
    for next_done in asyncio.as_completed(requests):
        refused.append((await next_done).status_code)
        if len(refused) == 3:
            stack.model.release(question)

    assert refused == [409, 409, 409, 200]
    assert [message["content"] for message in await user.messages(chat)] == [question, "Second."]


async def test_a_key_replaces_an_answer_once(user: ApiUser, stack: Stack) -> None:
    _, turn, _ = await answered(user, stack, "First.", "Second.")

    first = await regenerate(user, turn, key="k")
    second = await regenerate(user, turn, key="k")
    other = await regenerate(user, turn, key="k", model="claude-sonnet-5-5")

    assert first.json()["data"]["turn"]["id"] == second.json()["data"]["turn"]["id"]
    assert other.json()["error"]["code"] == "IDEMPOTENCY_CONFLICT"


async def test_an_unknown_model_is_rejected(user: ApiUser, stack: Stack) -> None:
    _, turn, _ = await answered(user, stack, "First.")

    response = await regenerate(user, turn, model="gpt-0")

    assert response.status_code == 400
    assert response.json()["error"]["details"][0]["path"] == "body.model"


async def test_the_answer_of_another_is_not_replaced(
    user: ApiUser, other_user: ApiUser, stack: Stack
) -> None:
    chat, turn, _ = await answered(user, stack, "First.")

    response = await regenerate(other_user, turn)

    assert response.status_code == 403
    assert (await user.messages(chat))[-1]["content"] == "First."
