"""Memories over HTTP: shapes, statuses, validation, pages and ownership."""

import dataclasses
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.service_groups import MemoryServices
from services.auth.accounts import AccountCache
from services.embeddings import make_embedder
from services.memories.search import MemorySearch
from services.memories.service import MemoryService
from tests.contracts.test_routes import check_id, check_time, data_of
from tests.fakes.embedding_api import KEY, EmbeddingApi, saying
from tests.fakes.embedding_api import serving as serving_embeddings
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.plans import allow
from tests.fixtures.serving import serving
from tests.fixtures.stack import Stack, api_client

MEMORY = {
    *(
        "id",
        "kind",
        "content",
        "importance",
        "status",
        "sourceTurnId",
        "version",
        "pinned",
        "expiresAt",
    ),
    *("passage", "replacesId", "replacedById"),
    *("createdAt", "updatedAt"),
}


async def remember(user: ApiUser, content: str, **fields: object) -> dict[str, Any]:
    response = await user.request("POST", "/memories", json={"content": content, **fields})
    data: dict[str, Any] = data_of(response, 201)
    return data


async def suggested(stack: Stack, user: ApiUser) -> str:
    """Return the id of a memory that awaits its user's decision."""
    memory_id = (await remember(user, unique("memory")))["id"]
    await stack.inspection.execute(
        "UPDATE memories SET status = 'suggested' WHERE id = $1", uuid.UUID(memory_id)
    )
    return str(memory_id)


def check_refused(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    assert response.json()["error"]["code"] == code


async def test_a_memory_is_created_with_defaults(member: ApiUser) -> None:
    response = await member.request("POST", "/memories", json={"content": "Prefers trains."})

    memory = data_of(response, 201)
    assert set(memory) == MEMORY
    assert (memory["kind"], memory["importance"], memory["status"]) == ("fact", 0.5, "accepted")
    assert (memory["content"], memory["sourceTurnId"]) == ("Prefers trains.", None)
    assert (memory["version"], response.headers["etag"]) == (1, '"1"')
    check_id(memory["id"])
    check_time(memory["createdAt"])
    check_time(memory["updatedAt"])


async def test_the_same_content_again_returns_the_memory(member: ApiUser) -> None:
    first = await remember(member, "Has a dog.")

    again = await member.request("POST", "/memories", json={"content": "has a dog!"})

    assert data_of(again, 200) == first
    assert again.headers["etag"] == '"1"'
    assert len(data_of_list(await member.request("GET", "/memories"))) == 1


async def test_a_pinned_memory_with_an_expiry_is_created_changed_and_listed(
    member: ApiUser,
) -> None:
    expires_at = "2126-01-31T10:00:00+01:00"
    memory = await remember(member, "Has a dog.", pinned=True, expiresAt=expires_at)
    path = f"/memories/{memory['id']}"

    async def listed(**params: str) -> list[str]:
        found = await member.request("GET", "/memories", params=params)
        return [listed["id"] for listed in data_of_list(found)]

    assert (memory["pinned"], memory["expiresAt"]) == (True, "2126-01-31T09:00:00.000000Z")
    assert await listed(pinned="true", expired="false") == [memory["id"]]
    assert await listed(expired="true") == await listed(pinned="false") == []
    body = {"pinned": False, "expiresAt": None}
    changed = data_of(await member.request("PATCH", path, json=body))
    assert (changed["pinned"], changed["expiresAt"]) == (False, None)


async def test_a_change_to_the_content_of_another_memory_conflicts(member: ApiUser) -> None:
    await remember(member, "Has a dog.")
    path = f"/memories/{(await remember(member, 'Has a cat.'))['id']}"

    response = await member.request("PATCH", path, json={"content": "HAS A DOG"})

    check_refused(response, 409, "CONFLICT")


async def test_a_memory_is_read_as_it_was_created(member: ApiUser) -> None:
    memory = await remember(member, "Wants short answers.", kind="instruction", importance=0.1)

    response = await member.request("GET", f"/memories/{memory['id']}")

    assert data_of(response) == memory
    assert memory["importance"] == 0.1
    assert response.headers["etag"] == '"1"'


async def test_a_retry_with_the_same_key_returns_the_memory_it_created(member: ApiUser) -> None:
    headers = {"Idempotency-Key": "k"}
    first, second, other = [
        await member.request("POST", "/memories", json={"content": content}, headers=headers)
        for content in ("Has a dog.", "Has a dog.", "Has a cat.")
    ]

    assert data_of(first, 201) == data_of(second, 201)
    check_refused(other, 409, "IDEMPOTENCY_CONFLICT")


async def test_a_key_reports_that_the_memory_it_created_is_deleted(member: ApiUser) -> None:
    request: dict[str, Any] = {
        "json": {"content": "Has a dog."},
        "headers": {"Idempotency-Key": "k"},
    }
    memory = data_of(await member.request("POST", "/memories", **request), 201)
    await member.request("DELETE", f"/memories/{memory['id']}")

    again = await member.request("POST", "/memories", **request)

    check_refused(again, 409, "IDEMPOTENCY_CONFLICT")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "body.content"),
        ({"content": ""}, "body.content"),
        ({"content": " \n\t"}, "body.content"),
        ({"content": "x" * 4001}, "body.content"),
        ({"content": "a\x00"}, "body.content"),
        ({"content": 1}, "body.content"),
        ({"content": "a", "kind": "wish"}, "body.kind"),
        ({"content": "a", "importance": 1.01}, "body.importance"),
        ({"content": "a", "importance": "0.5"}, "body.importance"),
        ({"content": "a", "status": "accepted"}, "body.status"),
        ({"content": "a", "pinned": "yes"}, "body.pinned"),
        ({"content": "a", "expiresAt": "2020-01-31T09:00:00Z"}, "body.expiresAt"),
        ({"content": "a", "expiresAt": "2126-01-31"}, "body.expiresAt"),
        ({"content": "a", "expiresAt": "2226-01-31T09:00:00Z"}, "body.expiresAt"),
    ],
    ids=str,
)
async def test_invalid_memories_are_rejected(
    member: ApiUser, body: dict[str, Any], path: str
) -> None:
    response = await member.request("POST", "/memories", json=body)

    check_refused(response, 400, "VALIDATION_ERROR")
    assert response.json()["error"]["details"][0]["path"] == path


@pytest.mark.parametrize(
    "body", [b'{"content": "\\ud800"}', b'{"content": "a", "importance": NaN}']
)
async def test_valid_json_that_cannot_be_stored_is_rejected(member: ApiUser, body: bytes) -> None:
    json_type = {"Content-Type": "application/json"}

    response = await member.request("POST", "/memories", content=body, headers=json_type)

    check_refused(response, 400, "VALIDATION_ERROR")


async def test_an_update_increments_the_version(member: ApiUser) -> None:
    memory = await remember(member, "Has a dog.")
    path = f"/memories/{memory['id']}"

    response = await member.request(
        "PATCH", path, json={"content": "Has a cat.", "kind": "event"}, headers={"If-Match": '"1"'}
    )
    stale = await member.request("PATCH", path, json={"importance": 1}, headers={"If-Match": '"1"'})

    changed = data_of(response)
    assert (changed["content"], changed["kind"], changed["version"]) == ("Has a cat.", "event", 2)
    assert changed["importance"] == memory["importance"]
    assert response.headers["etag"] == '"2"'
    check_refused(stale, 412, "PRECONDITION_FAILED")
    assert data_of(await member.request("GET", path)) == changed


@pytest.mark.parametrize(
    "body",
    [{}, {"content": " "}, {"content": None}, {"status": "rejected"}, {"importance": 2}],
    ids=str,
)
async def test_a_change_of_nothing_or_to_nothing_is_refused(
    member: ApiUser, body: dict[str, Any]
) -> None:
    memory = await remember(member, "Has a dog.")

    response = await member.request("PATCH", f"/memories/{memory['id']}", json=body)

    check_refused(response, 400, "VALIDATION_ERROR")


async def test_a_deleted_memory_is_gone(member: ApiUser) -> None:
    path = f"/memories/{(await remember(member, 'Has a dog.'))['id']}"

    response = await member.request("DELETE", path)

    assert (response.status_code, response.content) == (204, b"")
    check_refused(await member.request("GET", path), 404, "NOT_FOUND")
    check_refused(await member.request("DELETE", path), 404, "NOT_FOUND")
    check_refused(await member.request("PATCH", path, json={"kind": "fact"}), 404, "NOT_FOUND")
    check_refused(await member.request("POST", f"{path}/accept"), 404, "NOT_FOUND")


@pytest.mark.parametrize(("decision", "opposite"), [("accept", "reject"), ("reject", "accept")])
async def test_a_suggestion_is_decided_on_once(
    member: ApiUser, stack: Stack, decision: str, opposite: str
) -> None:
    path = f"/memories/{await suggested(stack, member)}"

    decided = await member.request("POST", f"{path}/{decision}")
    again = await member.request("POST", f"{path}/{decision}")

    assert data_of(decided)["status"] == f"{decision}ed"
    assert data_of(again) == data_of(decided)
    assert decided.headers["etag"] == '"2"'
    check_refused(await member.request("POST", f"{path}/{opposite}"), 409, "CONFLICT")


async def test_a_rejected_memory_is_listed_only_on_request(member: ApiUser, stack: Stack) -> None:
    memory_id = await suggested(stack, member)
    await member.request("POST", f"/memories/{memory_id}/reject")

    usual = data_of_list(await member.request("GET", "/memories"))
    rejected = data_of_list(await member.request("GET", "/memories", params={"status": "rejected"}))

    assert usual == []
    assert [memory["id"] for memory in rejected] == [memory_id]


async def test_memories_of_another_user_are_out_of_reach(
    member: ApiUser, other_user: ApiUser
) -> None:
    path = f"/memories/{(await remember(member, 'Has a dog.'))['id']}"

    for response in [
        await other_user.request("GET", path),
        await other_user.request("PATCH", path, json={"content": "Has a cat."}),
        await other_user.request("DELETE", path),
        await other_user.request("POST", f"{path}/accept"),
        await other_user.request("POST", f"{path}/reject"),
    ]:
        check_refused(response, 403, "FORBIDDEN")
    assert data_of_list(await other_user.request("GET", "/memories")) == []
    search = await other_user.request("POST", "/memories/search", json={"query": "Has a dog."})
    assert data_of_list(search) == []


async def test_a_full_memory_quota_is_reported(member: ApiUser, stack: Stack) -> None:
    await allow(stack.inspection, member.id, max_memories=1)
    await remember(member, "Has a dog.")

    response = await member.request("POST", "/memories", json={"content": "Has a cat."})

    check_refused(response, 403, "FORBIDDEN")
    assert "1 memories" in response.json()["error"]["message"]


@pytest.fixture
async def cut_off(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API whose embedder always fails."""
    provider = EmbeddingApi()
    provider.script += 100 * [saying("", status=503)]
    async with AsyncExitStack() as opened:
        origin = await opened.enter_async_context(serving_embeddings(provider))
        embedder = make_embedder(
            "openai",
            model="scripted",
            base_url=f"{origin}/compatible",
            dimensions=8,
            openai_api_key=KEY,
        )
        opened.push_async_callback(embedder.close)
        database = stack.foundation.database
        services = dataclasses.replace(
            stack.services,
            memories=MemoryServices(
                store=MemoryService(database, embedder, AccountCache(database, lifetime_s=0)),
                search=MemorySearch(database, embedder),
            ),
        )
        app = create_app(services, max_body_bytes=stack.settings.max_body_bytes)
        api = await opened.enter_async_context(serving(app))
        yield await opened.enter_async_context(api_client(api))


async def test_without_an_embedder_memories_are_kept_and_searched_by_words(
    member: ApiUser, cut_off: httpx.AsyncClient
) -> None:
    body = {"content": "Has a dog."}
    made = await cut_off.post("/memories", json=body, headers=member.headers)
    search = await cut_off.post("/memories/search", json={"query": "dog"}, headers=member.headers)

    memory_id = data_of(made, 201)["id"]
    assert data_of(await member.request("GET", f"/memories/{memory_id}")) == data_of(made, 201)
    [hit] = data_of_list(search)
    assert (hit["id"], hit["similarity"], hit["wordMatch"]) == (memory_id, None, 1)


def data_of_list(response: httpx.Response) -> list[dict[str, Any]]:
    """Return `data` of a list, and check the envelope around it."""
    data: list[dict[str, Any]] = data_of(response)
    assert set(response.json()["meta"]) == {"requestId", "nextCursor"}
    return data
