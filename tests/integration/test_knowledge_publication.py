"""Publication: others find one version, the whole of it, or nothing."""

import asyncio
import json
from typing import Any
from uuid import UUID

import httpx

from tests.fixtures.api_user import ApiUser
from tests.fixtures.library import (
    add_document,
    add_ready_document,
    add_version,
    ingested,
    passages_of,
    publish,
    store_document,
    version_of,
)
from tests.fixtures.stack import Stack


async def flags(stack: Stack, document_id: str) -> dict[int, set[bool]]:
    """Return the flags of each version's rows: its own and those of its passages."""
    versions = await stack.inspection.rows(
        "SELECT number, published FROM document_versions WHERE document_id = $1",
        UUID(document_id),
    )
    found = {row["number"]: {row["published"]} for row in versions}
    for row in await passages_of(stack, document_id):
        found[row["version"]].add(row["published"])
    return found


async def audited(stack: Stack, document_id: str) -> list[dict[str, Any]]:
    return await stack.inspection.rows(
        "SELECT action, actor_id, subject_id, details FROM audit_log "
        "WHERE resource_id = $1 ORDER BY id",
        document_id,
    )


async def ask(user: ApiUser, document_id: str, path: str, **body: object) -> httpx.Response:
    return await user.request("POST", f"/knowledge/{document_id}/{path}", json=body)


async def test_the_latest_version_takes_the_place_of_an_older_one_and_back(
    user: ApiUser, stack: Stack
) -> None:
    document_id = await add_ready_document(user, "First text.")
    first = await publish(user, document_id)
    await add_version(user, document_id, "Second text.")
    await ingested(user, document_id, 2)

    between = await flags(stack, document_id)
    second = await publish(user, document_id)
    swapped = await flags(stack, document_id)
    back = await publish(user, document_id, 1)

    assert (first["status"], first["publishedVersion"]) == ("published", 1)
    assert between == {1: {True}, 2: {False}}
    assert (second["publishedVersion"], second["latestVersion"]) == (2, 2)
    assert swapped == {1: {False}, 2: {True}}
    assert back["publishedVersion"] == 1
    assert await flags(stack, document_id) == {1: {True}, 2: {False}}
    assert (await version_of(user, document_id, 1))["published"] is True


async def test_concurrent_publishing_has_one_consistent_result(user: ApiUser, stack: Stack) -> None:
    document_id = await add_ready_document(user, "First text.")
    await add_version(user, document_id, "Second text.")
    await ingested(user, document_id, 2)

    same = await asyncio.gather(*(publish(user, document_id, 2) for _ in range(5)))
    entries = await audited(stack, document_id)
    mixed = await asyncio.gather(
        *(ask(user, document_id, "publish", version=number) for number in (1, 2, 1, 2)),
        *(ask(user, document_id, "unpublish") for _ in range(2)),
    )

    assert all(answer == same[0] for answer in same)
    assert [entry["action"] for entry in entries] == ["document.published"]
    assert json.loads(entries[0]["details"]) == {"version": 2}
    assert {answer.status_code for answer in mixed} == {200}
    document = (await user.request("GET", f"/knowledge/{document_id}")).json()["data"]
    found = await flags(stack, document_id)
    for number in (1, 2):
        assert found[number] == {document["publishedVersion"] == number}


async def test_an_unfinished_version_cannot_be_published(user: ApiUser, stack: Stack) -> None:
    pending = await store_document(stack, user, b"Nobody ingests this.")
    failed = await add_document(user, " \n ")
    await ingested(user, failed)

    answers = [
        await ask(user, str(pending.document_id), "publish"),
        await ask(user, failed, "publish", version=1),
    ]

    for answer, words in zip(
        answers, ("still being ingested", "ingestion of this version failed"), strict=True
    ):
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (409, "CONFLICT")
        assert words in error["message"]
    assert await audited(stack, failed) == []


async def test_a_draft_after_a_published_version_leaves_that_one_searchable(
    user: ApiUser, other_user: ApiUser
) -> None:
    document_id = await add_ready_document(user, "Found.")
    await publish(user, document_id)
    await add_version(user, document_id, " ")
    await ingested(user, document_id, 2)

    refused = await ask(user, document_id, "publish")

    assert refused.status_code == 409
    assert (await version_of(other_user, document_id))["content"] == "Found."


async def test_an_unknown_version_cannot_be_published(user: ApiUser) -> None:
    document_id = await add_ready_document(user)

    statuses = [
        (await ask(user, document_id, "publish", version=version)).status_code
        for version in (2, 2**31 - 1, 2**31, 0, "1")
    ]

    assert statuses == [404, 404, 400, 400, 400]


async def test_publishing_without_a_body_publishes_the_latest(user: ApiUser) -> None:
    document_id = await add_ready_document(user)

    response = await user.request("POST", f"/knowledge/{document_id}/publish")

    assert response.status_code == 200
    assert response.json()["data"]["publishedVersion"] == 1


async def test_a_withdrawn_document_is_a_draft_and_withdrawing_it_twice_is_once(
    user: ApiUser, other_user: ApiUser, stack: Stack
) -> None:
    document_id = await add_ready_document(user)
    await publish(user, document_id)

    answers = [await ask(user, document_id, "unpublish") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["data"] == answers[1].json()["data"]
    assert answers[0].json()["data"]["status"] == "draft"
    assert await flags(stack, document_id) == {1: {False}}
    assert (await other_user.request("GET", f"/knowledge/{document_id}")).status_code == 403
    actions = [entry["action"] for entry in await audited(stack, document_id)]
    assert actions == ["document.published", "document.unpublished"]


async def test_an_administrator_withdraws_any_users_document_and_that_is_audited(
    user: ApiUser, admin: ApiUser, stack: Stack
) -> None:
    document_id = await add_ready_document(user)
    await publish(user, document_id)

    as_everybody = await ask(admin, document_id, "unpublish")
    response = await admin.request("POST", f"/admin/knowledge/{document_id}/unpublish")

    assert as_everybody.status_code == 403
    assert response.status_code == 200
    assert response.json()["data"]["status"] == "draft"
    assert response.json()["data"]["own"] is False
    assert await flags(stack, document_id) == {1: {False}}
    entry = (await audited(stack, document_id))[-1]
    assert entry["action"] == "document.unpublished"
    assert (str(entry["actor_id"]), str(entry["subject_id"])) == (admin.id, user.id)


async def test_concurrent_deleting_and_publishing_leaves_nothing_behind(
    user: ApiUser, stack: Stack
) -> None:
    document_id = await add_ready_document(user)

    deleted, published = await asyncio.gather(
        user.request("DELETE", f"/knowledge/{document_id}"), ask(user, document_id, "publish")
    )

    assert deleted.status_code == 204
    assert published.status_code in {200, 404}
    assert await flags(stack, document_id) == {}


async def test_a_document_of_many_passages_is_published_whole(user: ApiUser, stack: Stack) -> None:
    content = "\n\n".join(f"Paragraph {number}. " + "Word. " * 110 for number in range(1_200))
    document_id = await add_ready_document(user, content)

    await publish(user, document_id)

    rows = await passages_of(stack, document_id)
    assert len(rows) > 1_000
    assert {row["published"] for row in rows} == {True}
