"""Feedback on answers: given, replaced, withdrawn, shown, and read by administrators."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.stack import Stack

Row = dict[str, Any]


async def answered(user: ApiUser, stack: Stack) -> Row:
    question = unique()
    stack.model.add(Script(match=question, text="Yes."))
    return await user.ask(await user.create_chat(), question)


async def prompt_version(stack: Stack, answer: Row) -> str:
    version: str = await stack.inspection.value(
        "SELECT prompt ->> 'version' FROM turns WHERE id = $1", UUID(answer["turn"]["id"])
    )
    return version


async def rate(user: ApiUser, message_id: str, **body: object) -> Any:  # noqa: ANN401 -- a response
    return await user.request("PUT", f"/messages/{message_id}/feedback", json=body)


async def shown(user: ApiUser, message_id: str) -> Row | None:
    feedback: Row | None = (await user.request("GET", f"/messages/{message_id}")).json()["data"][
        "feedback"
    ]
    return feedback


async def test_feedback_is_shown_replaced_and_withdrawn(user: ApiUser, stack: Stack) -> None:
    answer = await answered(user, stack)
    message = answer["assistantMessage"]["id"]
    assert answer["assistantMessage"]["feedback"] is None

    first = await rate(user, message, rating="down", reason="inaccurate", text="It isn't. 違う。")
    second = await rate(user, message, rating="up")

    assert (first.status_code, second.status_code) == (200, 200)
    given = first.json()["data"]
    assert (given["rating"], given["reason"]) == ("down", "inaccurate")
    assert given["text"] == "It isn't. 違う。"
    replaced = second.json()["data"]
    assert (replaced["rating"], replaced["reason"], replaced["text"]) == ("up", None, None)
    assert replaced["createdAt"] == given["createdAt"] < replaced["updatedAt"]
    assert await shown(user, message) == replaced
    listed = await user.messages(answer["turn"]["chatId"])
    assert [row["feedback"] for row in listed] == [None, replaced]

    for _ in range(2):
        withdrawn = await user.request("DELETE", f"/messages/{message}/feedback")
        assert withdrawn.status_code == 204
    assert await shown(user, message) is None


async def test_only_ones_own_answers_take_feedback(
    user: ApiUser, other_user: ApiUser, admin: ApiUser, stack: Stack
) -> None:
    answer = await answered(user, stack)
    message, question = answer["assistantMessage"]["id"], answer["userMessage"]["id"]

    assert (await rate(user, question, rating="up")).status_code == 409
    for person in (other_user, admin):
        assert (await rate(person, message, rating="up")).status_code == 403
        path = f"/messages/{message}/feedback"
        assert (await person.request("DELETE", path)).status_code == 403
    assert (await rate(user, str(uuid4()), rating="up")).status_code == 404
    assert await shown(user, message) is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"rating": "good"},
        {"rating": 1},
        {"rating": "up", "reason": ""},
        {"rating": "up", "text": " "},
        {"rating": "up", "text": "x" * 4001},
        {"rating": "up", "text": "\x00"},
        {"rating": "up", "stars": 5},
    ],
)
async def test_invalid_feedback_is_refused(user: ApiUser, body: dict[str, object]) -> None:
    assert (await rate(user, str(uuid4()), **body)).status_code == 400


async def test_administrators_filter_feedback_and_are_audited(
    user: ApiUser, other_user: ApiUser, admin: ApiUser, stack: Stack
) -> None:
    bad, good = await answered(user, stack), await answered(other_user, stack)
    await rate(user, bad["assistantMessage"]["id"], rating="down", text="Wrong.")
    await rate(other_user, good["assistantMessage"]["id"], rating="up")

    async def read(**params: str) -> list[Row]:
        response = await admin.request("GET", "/admin/feedback", params=params)
        assert response.status_code == 200, response.text
        rows: list[Row] = response.json()["data"]
        return [row for row in rows if row["userId"] in {user.id, other_user.id}]

    everything = await read()
    version = everything[0]["promptVersion"]
    assert [row["userId"] for row in everything] == [other_user.id, user.id]
    assert everything[1] == {
        **everything[1],
        "rating": "down",
        "text": "Wrong.",
        "model": stack.settings.default_model,
        "messageId": bad["assistantMessage"]["id"],
        "chatId": bad["turn"]["chatId"],
        "turnId": bad["turn"]["id"],
    }
    assert version == await prompt_version(stack, bad)
    model = stack.settings.default_model
    assert len(await read(rating="down", model=model, promptVersion=version)) == 1
    assert await read(promptVersion="another") == []
    assert await read(model="another") == []
    assert await read(to="2026-01-01T00:00:00Z", userId=user.id) == []
    assert (await user.request("GET", "/admin/feedback")).status_code == 403
    entries = await stack.inspection.rows(
        "SELECT actor_id, resource_id FROM audit_log "
        "WHERE action = 'feedback.read' AND subject_id = $1",
        UUID(user.id),
    )
    assert {(str(entry["actor_id"]), entry["resource_id"]) for entry in entries} == {
        (admin.id, bad["assistantMessage"]["id"])
    }


async def test_feedback_goes_with_its_answer(user: ApiUser, stack: Stack) -> None:
    answer = await answered(user, stack)
    message = answer["assistantMessage"]["id"]
    await rate(user, message, rating="down", text="Wrong.")
    exported = (await user.request("GET", "/users/me/export")).json()
    assert [row["text"] for row in exported["data"]["feedback"]] == ["Wrong."]

    await user.request("DELETE", f"/messages/{message}")

    left = await stack.inspection.rows("SELECT 1 FROM feedback WHERE user_id = $1", UUID(user.id))
    assert left == []
