"""An export holds all that is kept of its owner, and nothing of anybody else."""

import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from schema.actors import acting_user
from schema.ids import UserId
from services.users.export import LEFT_OUT, SECTIONS
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.stack import Stack

OF_USERS = """
SELECT table_name FROM information_schema.columns
WHERE table_schema = 'public' AND column_name = 'user_id'
"""


async def exported(user: ApiUser) -> dict[str, Any]:
    response = await user.request("GET", "/users/me/export")
    assert response.status_code == 200, response.text
    data: dict[str, Any] = json.loads(response.content)["data"]
    return data


async def test_every_table_of_users_is_exported_or_left_out_for_a_reason(stack: Stack) -> None:
    tables = {row["table_name"] for row in await stack.inspection.rows(OF_USERS)}

    assert tables <= {section.table for section in SECTIONS} | LEFT_OUT.keys()
    assert LEFT_OUT.keys() <= tables


async def test_the_export_holds_messages_and_answers(user: ApiUser, stack: Stack) -> None:
    question = unique()
    call = ToolCall(name="calculator", input={"expression": "6 * 7"})
    stack.model.add(Script(match=question, tool_calls=(call,)))
    stack.model.add(Script(match=question, text="It is 42."))
    chat = await user.create_chat("Sums")
    turn = (await user.ask(chat, question))["turn"]
    await user.request("POST", "/users/me/api-keys", json={"name": "Import"})
    await user.request("POST", "/memories", json={"content": "Likes sums."})
    await user.request("PUT", "/users/me/preferences", json={"language": "en"})

    data = await exported(user)

    assert [message["content"] for message in data["messages"]] == [question, "It is 42."]
    (found,) = data["turns"]
    assert (found["id"], found["costUsd"]) == (turn["id"], turn["costUsd"])
    assert [call["name"] for call in data["toolCalls"]] == ["calculator"]
    assert [key["name"] for key in data["apiKeys"]] == ["Import"]
    assert [memory["content"] for memory in data["memories"]] == ["Likes sums."]
    assert data["preferences"]["language"] == "en"
    assert len(data["ledger"]) == 2
    actions = [entry["action"] for entry in data["auditLog"]]
    assert actions[0] == "user.signed_up"
    assert actions[-1] == "user.exported"


async def test_an_export_holds_nothing_of_other_users(
    user: ApiUser, other_user: ApiUser, admin: ApiUser
) -> None:
    theirs = await other_user.create_chat("Private")
    body = {"displayName": "Renamed by another"}
    await admin.request("PATCH", f"/admin/users/{user.id}", json=body)

    text = json.dumps(await exported(user))

    for secret in (other_user.id, other_user.email, theirs, "Private", admin.id, admin.email):
        assert secret not in text


async def test_an_export_holds_no_credentials(user: ApiUser) -> None:
    created = await user.request("POST", "/users/me/api-keys", json={"name": "k"})

    text = json.dumps(await exported(user))

    assert "argon2" not in text
    assert created.json()["data"]["key"] not in text
    assert user.session["refreshToken"] not in text


async def test_an_export_of_much_is_whole(user: ApiUser, stack: Stack) -> None:
    words = "ünïcödé " * 2000
    await stack.inspection.execute(
        "INSERT INTO memories (id, user_id, kind, content) "
        "SELECT gen_random_uuid(), $1, 'fact', left($2, 4000) FROM generate_series(1, 700)",
        UUID(user.id),
        words,
    )

    data = await exported(user)

    assert {memory["content"] for memory in data["memories"]} == {words[:4000]}
    assert len(data["memories"]) == 700


async def test_an_export_is_a_consistent_snapshot(user: ApiUser, stack: Stack) -> None:
    """Rows stored while the export is written are in none of its sections."""
    actor = acting_user(UserId(UUID(user.id)))
    async with stack.foundation.database.statements(actor, snapshot=True) as connection:
        before = await connection.fetchval("SELECT count(*) FROM chats")
        await user.create_chat()
        assert await connection.fetchval("SELECT count(*) FROM chats") == before


@pytest.mark.parametrize("kind", ["text/plain", "application/pdf"])
async def test_a_document_is_exported_with_its_text_or_as_it_was_uploaded(
    user: ApiUser, stack: Stack, kind: str
) -> None:
    document = uuid4()
    await stack.inspection.execute(
        "INSERT INTO documents (id, user_id, title) VALUES ($1, $2, 'T')", document, UUID(user.id)
    )
    await stack.inspection.execute(
        "INSERT INTO document_versions (document_id, number, user_id, content_type, source, "
        "content, status) VALUES ($1, 1, $2, $3, 'bytes', 'text', 'ready')",
        document,
        UUID(user.id),
        kind,
    )

    (version,) = (await exported(user))["documentVersions"]

    uploaded = None if kind == "text/plain" else "Ynl0ZXM="
    assert (version["content"], version["sourceBase64"]) == ("text", uploaded)
