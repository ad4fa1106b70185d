"""Deleting an account: nothing of it is left anywhere, and no sign-in remains."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis
from temporalio.client import WorkflowFailureError

from schema.actors import acting_user
from schema.chats import CreateChatRequest
from schema.ids import UserId
from services.database import ActorGoneError
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import PASSWORD, ApiUser, unique
from tests.fixtures.stack import Stack

TABLES = """
SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace
AND c.relkind IN ('r', 'p') ORDER BY 1
"""


async def tables_with(stack: Stack, marker: str) -> set[str]:
    """Return the tables in which any column of any row holds the marker, as text or as bytes."""
    found = set()
    for row in await stack.inspection.rows(TABLES):
        query = f"SELECT EXISTS (SELECT FROM {row['relname']} t WHERE t::text ILIKE ANY ($1))"
        patterns = [f"%{marker}%", f"%{marker.encode().hex()}%"]
        if await stack.inspection.value(query, patterns):
            found.add(row["relname"])
    return found


async def keys_with(redis: Redis, marker: str) -> set[str]:
    """Return the keys of Redis whose name or value holds the marker."""
    found = set()
    async for key in redis.scan_iter(count=1000):
        if marker in f"{key!r} {await value_of(redis, key)!r}":
            found.add(str(key))
    return found


async def value_of(redis: Redis, key: Any) -> object:  # noqa: ANN401 -- as the client gives it
    match await redis.type(key):
        case b"stream":
            return await redis.xrange(key)
        case b"hash":
            return await redis.hgetall(key)
        case b"zset":
            return await redis.zrange(key, 0, -1)
        case b"string":
            return await redis.get(key)
        case b"none":  # it expired, or its turn's end deleted it, since it was listed
            return None
        case kind:
            raise NotImplementedError(kind)


async def marked_user(stack: Stack, marker: str) -> ApiUser:
    """Return a user who has written the marker wherever one can."""
    body = {"email": f"{marker}@example.com", "password": PASSWORD, "displayName": f"N {marker}"}
    response = await stack.http.post("/auth/signup", json=body, headers={"Idempotency-Key": marker})
    person = ApiUser(stack.http, response.json()["data"], email=body["email"])
    for method, path, sent in (
        ("PUT", "/users/me/preferences", {"instructions": f"Say {marker}."}),
        ("POST", "/users/me/api-keys", {"name": f"Key {marker}"}),
        ("POST", "/memories", {"content": f"Likes {marker}."}),
        ("POST", "/knowledge", {"title": f"On {marker}", "content": f"All about {marker}."}),
    ):
        created = await person.request(method, path, json=sent)
        assert created.is_success, (path, created.text)
    await stack.http.post("/auth/login", json={"email": body["email"], "password": "wrong words"})
    return person


async def chat_about(person: ApiUser, stack: Stack, marker: str) -> str:
    question = unique(marker)
    call = ToolCall(name="calculator", input={"expression": f"{marker} + 1"})
    stack.model.add(Script(match=question, tool_calls=(call,)))
    stack.model.add(Script(match=question, text=f"About {marker}."))
    chat = await person.create_chat(f"Chat on {marker}")
    answer = await person.ask(chat, question)
    path = f"/messages/{answer['assistantMessage']['id']}/feedback"
    for method, path_of, body in (
        ("PUT", path, {"rating": "down", "reason": marker, "text": f"Not {marker}."}),
        ("PATCH", f"/chats/{chat}", {"tags": [marker[:50]]}),
    ):
        response = await person.request(method, path_of, json=body)
        assert response.status_code == 200, response.text
    return str(answer["turn"]["id"])


async def test_after_a_deletion_nothing_that_its_owner_wrote_is_left(stack: Stack) -> None:
    marker = f"marker{uuid4().hex}"
    person = await marked_user(stack, marker)
    await chat_about(person, stack, marker)
    redis = stack.foundation.redis
    assert {"users", "chats", "messages", "memories", "feedback"} <= await tables_with(
        stack, marker
    )
    assert await keys_with(redis, marker) != set()

    response = await person.request("DELETE", "/users/me", json={"currentPassword": PASSWORD})

    assert (response.status_code, response.content) == (204, b"")
    assert await tables_with(stack, marker) == set()
    assert await keys_with(redis, marker) == set()
    assert await tables_with(stack, person.id) == {"audit_log"}


async def test_a_deleted_account_is_signed_in_to_by_nothing(stack: Stack, user: ApiUser) -> None:
    key = (await user.request("POST", "/users/me/api-keys", json={"name": "k"})).json()["data"]

    await user.request("DELETE", "/users/me", json={"currentPassword": PASSWORD})

    for headers in (user.headers, {"Authorization": f"Bearer {key['key']}"}):
        gone = await stack.http.get("/users/me", headers=headers)
        assert gone.status_code == 401
    chat = await user.request("POST", "/chats", json={"title": "Still here?"})
    again = await user.request("DELETE", "/users/me", json={"currentPassword": PASSWORD})
    refreshed = await stack.http.post(
        "/auth/refresh", json={"refreshToken": user.session["refreshToken"]}
    )
    entered = await stack.http.post("/auth/login", json={"email": user.email, "password": PASSWORD})
    statuses = [response.status_code for response in (chat, again, refreshed, entered)]
    assert statuses == [401, 401, 401, 401]


async def test_an_address_whose_account_was_deleted_can_have_another(
    stack: Stack, user: ApiUser
) -> None:
    await user.request("DELETE", "/users/me", json={"currentPassword": PASSWORD})

    body = {"email": user.email, "password": PASSWORD}
    again = await stack.http.post("/auth/signup", json=body)

    assert again.status_code == 201
    assert again.json()["data"]["user"]["id"] != user.id


async def test_creating_for_a_user_who_was_just_deleted_is_refused(
    stack: Stack, user: ApiUser
) -> None:
    await user.request("DELETE", "/users/me", json={"currentPassword": PASSWORD})

    with pytest.raises(ActorGoneError):
        await stack.services.chats.create(
            acting_user(UserId(UUID(user.id))), CreateChatRequest(title="Late"), key=None
        )


async def test_a_request_between_the_check_and_the_deletion_is_unauthenticated(
    stack: Stack, user: ApiUser
) -> None:
    responses = await asyncio.gather(
        *(user.request("POST", "/chats", json={"title": "Race"}) for _ in range(10)),
        user.request("DELETE", "/users/me", json={"currentPassword": PASSWORD}),
        *(user.request("POST", "/chats", json={"title": "Race"}) for _ in range(10)),
    )

    assert {response.status_code for response in responses} <= {201, 204, 401}
    assert await tables_with(stack, user.id) == {"audit_log"}


async def test_deleting_an_account_stops_its_running_turn(stack: Stack, user: ApiUser) -> None:
    question, half = unique(), unique("half")
    stack.model.add(Script(match=question, pieces=(half, " way"), hold=question, hold_after=1))
    async with user.stream(await user.create_chat(), question) as stream:
        await stream.until_text(half)
        handle = stack.temporal.get_workflow_handle(f"turn-{stream.turn_id}")

        assert (
            await user.request("DELETE", "/users/me", json={"currentPassword": PASSWORD})
        ).status_code == 204

        async with asyncio.timeout(20):
            with pytest.raises(WorkflowFailureError):
                await handle.result()
    assert await tables_with(stack, user.id) == {"audit_log"}
    assert await keys_with(stack.foundation.redis, half) == set()


async def test_an_api_key_deletes_no_account(stack: Stack, user: ApiUser) -> None:
    body = {"name": "may write", "permissions": ["account:write"]}
    created = await user.request("POST", "/users/me/api-keys", json=body)
    headers = {"Authorization": f"Bearer {created.json()['data']['key']}"}

    refused = await stack.http.request(
        "DELETE", "/users/me", headers=headers, json={"currentPassword": PASSWORD}
    )

    assert (refused.status_code, refused.json()["error"]["message"]) == (
        403,
        "API keys can't delete accounts.",
    )
    assert (await user.request("GET", "/users/me")).status_code == 200


async def test_account_deletions_are_in_the_audit_log(stack: Stack, user: ApiUser) -> None:
    await user.request("DELETE", "/users/me", json={"currentPassword": PASSWORD})

    rows = await stack.inspection.rows(
        "SELECT * FROM audit_log WHERE action = 'user.deleted' AND actor_id = $1", UUID(user.id)
    )
    assert [row["resource_id"] for row in rows] == [user.id]


@pytest.fixture
async def only_two_administrators(stack: Stack) -> AsyncIterator[tuple[ApiUser, ApiUser]]:
    """Two administrators; those of other tests are set aside for now."""
    others = await stack.inspection.rows("SELECT id FROM users WHERE role = 'admin'")
    ids = [row["id"] for row in others]
    await stack.inspection.execute("UPDATE users SET role = 'user' WHERE id = ANY($1)", ids)
    yield await stack.sign_up_admin(), await stack.sign_up_admin()
    await stack.inspection.execute("UPDATE users SET role = 'user' WHERE role = 'admin'")
    await stack.inspection.execute("UPDATE users SET role = 'admin' WHERE id = ANY($1)", ids)


async def test_one_of_two_administrators_who_leave_at_once_must_stay(
    only_two_administrators: tuple[ApiUser, ApiUser],
) -> None:
    responses = await asyncio.gather(
        *(
            admin.request("DELETE", "/users/me", json={"currentPassword": PASSWORD})
            for admin in only_two_administrators
        )
    )

    assert sorted(response.status_code for response in responses) == [204, 409]


async def test_one_of_two_administrators_who_demote_each_other_wins(
    only_two_administrators: tuple[ApiUser, ApiUser], stack: Stack
) -> None:
    first, second = only_two_administrators
    responses = await asyncio.gather(
        first.request("PATCH", f"/admin/users/{second.id}", json={"role": "user"}),
        second.request("PATCH", f"/admin/users/{first.id}", json={"role": "user"}),
    )

    assert sorted(response.status_code for response in responses) == [200, 403]
    left = await stack.inspection.value("SELECT count(*) FROM users WHERE role = 'admin'")
    assert left == 1


@pytest.mark.parametrize(
    "change", [{"role": "user"}, {"status": "disabled"}, {"role": "user", "displayName": "X"}]
)
async def test_the_last_administrator_stays_one(
    only_two_administrators: tuple[ApiUser, ApiUser], change: dict[str, str]
) -> None:
    first, second = only_two_administrators
    path = f"/admin/users/{first.id}"
    gone = await second.request("PATCH", f"/admin/users/{second.id}", json={"status": "disabled"})

    refused = await first.request("PATCH", path, json=change)
    renamed = await first.request("PATCH", path, json={"role": "admin", "status": "active"})

    assert (gone.status_code, refused.status_code, renamed.status_code) == (200, 409, 200)
    assert refused.json()["error"]["code"] == "CONFLICT"
