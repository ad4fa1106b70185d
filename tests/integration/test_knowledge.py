"""Documents as users see them: sent, listed, renamed, deleted; ownership and limits."""

import asyncio
from typing import Any
from uuid import UUID

from api.temporal_gateway import TemporalGateway
from schema.ids import DocumentId
from schema.result import Err, Ok
from services.knowledge.versions import TitledSubmission
from services.resources import LimitReached
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.library import (
    actor_of,
    add_document,
    add_ready_document,
    add_version,
    ingested,
    publish,
    titles,
    version_of,
)
from tests.fixtures.plans import allow
from tests.fixtures.stack import Stack
from workers.composition.temporal import connect_temporal

RTL = "\u202e\u05e9\u05d1\u05ea \U0001f44b 100%_\\"


async def test_a_document_starts_as_a_draft_pending_ingestion(user: ApiUser) -> None:
    response = await user.request(
        "POST", "/knowledge", json={"title": RTL, "content": "# A", "contentType": "text/markdown"}
    )

    document = response.json()["data"]
    assert response.status_code == 201
    assert response.headers["ETag"] == '"1"'
    assert document["title"] == RTL
    assert document["status"] == "draft"
    assert document["own"] is True
    assert document["contentType"] == "text/markdown"
    assert document["latestVersion"] == document["version"] == 1
    assert document["publishedVersion"] is None
    assert document["ingestion"] == {
        "status": "pending",
        "problem": None,
        "passageCount": 0,
        "embeddedCount": 0,
    }
    await ingested(user, document["id"])
    read = (await user.request("GET", f"/knowledge/{document['id']}")).json()["data"]
    assert read["ingestion"]["status"] == "ready"
    assert read["ingestion"]["passageCount"] == read["ingestion"]["embeddedCount"] == 1


async def test_a_key_is_not_used_up_by_a_refusal(user: ApiUser, stack: Stack) -> None:
    actor, submission = actor_of(user), TitledSubmission("text/plain", b"C", "T")
    create = stack.services.knowledge.documents.create

    await allow(stack.inspection, user.id, max_documents=0)
    refused = await create(actor, submission, key="k")
    await allow(stack.inspection, user.id, max_documents=1)
    made = await create(actor, submission, key="k")
    again = await create(actor, submission, key="k")

    assert refused == Err(LimitReached(0))
    assert isinstance(made, Ok)
    assert again == made


async def test_the_same_key_and_bytes_make_one_document_however_they_are_sent(
    user: ApiUser,
) -> None:
    headers = {"Idempotency-Key": "k"}
    body = {"title": "T", "content": "Words."}

    answers = await asyncio.gather(
        *(user.request("POST", "/knowledge", json=body, headers=headers) for _ in range(4)),
        *(
            user.request(
                "POST",
                "/knowledge",
                files={"file": ("a.txt", b"Words.", "text/plain")},
                data={"title": "T"},
                headers=headers,
            )
            for _ in range(4)
        ),
    )
    other_bytes = await user.request(
        "POST", "/knowledge", json={**body, "content": "Others."}, headers=headers
    )

    assert [answer.status_code for answer in answers] == [201] * 8
    assert len({answer.json()["data"]["id"] for answer in answers}) == 1
    assert other_bytes.json()["error"]["code"] == "IDEMPOTENCY_CONFLICT"
    assert await titles(user) == ["T"]


async def test_a_key_reports_that_the_document_it_created_is_deleted(user: ApiUser) -> None:
    request: dict[str, Any] = {
        "json": {"title": "T", "content": "Words."},
        "headers": {"Idempotency-Key": "k"},
    }
    made = await user.request("POST", "/knowledge", **request)
    await user.request("DELETE", f"/knowledge/{made.json()['data']['id']}")

    again = await user.request("POST", "/knowledge", **request)

    assert again.status_code == 409
    assert again.json()["error"]["code"] == "IDEMPOTENCY_CONFLICT"


async def test_the_same_key_and_bytes_add_one_version(user: ApiUser) -> None:
    document_id = await add_document(user)
    headers = {"Idempotency-Key": "k"}

    answers = await asyncio.gather(
        *(
            user.request(
                "POST", f"/knowledge/{document_id}/versions", json={"content": c}, headers=headers
            )
            for c in ("New.", "New.", "New.")
        )
    )
    other = await user.request(
        "POST", f"/knowledge/{document_id}/versions", json={"content": "X"}, headers=headers
    )

    assert [answer.status_code for answer in answers] == [201] * 3
    assert {answer.json()["data"]["number"] for answer in answers} == {2}
    assert other.status_code == 409


async def test_versions_that_come_at_once_get_numbers_of_their_own(user: ApiUser) -> None:
    document_id = await add_document(user)

    numbers = await asyncio.gather(
        *(add_version(user, document_id, f"Text {number}.") for number in range(5))
    )

    assert sorted(numbers) == [2, 3, 4, 5, 6]
    document = (await user.request("GET", f"/knowledge/{document_id}")).json()["data"]
    assert document["latestVersion"] == 6
    assert document["version"] == 6


async def test_a_list_is_searched_as_it_is_written_and_sorted(user: ApiUser) -> None:
    for title in ("b 100%", "a 100x", "c_\\d", RTL):
        await add_document(user, title=title)

    assert await titles(user) == [RTL, "c_\\d", "a 100x", "b 100%"]
    assert await titles(user, search="100%") == [RTL, "b 100%"]
    assert await titles(user, search="_\\") == [RTL, "c_\\d"]
    assert await titles(user, search="\u05e9\u05d1\u05ea") == [RTL]
    assert await titles(user, search="B 1", sort="title") == ["b 100%"]
    assert (await titles(user, sort="title"))[:2] == ["a 100x", "b 100%"]
    assert await titles(user, status="published") == []
    assert len(await titles(user, status="draft")) == 4


async def test_a_document_is_renamed_only_with_its_newest_version(user: ApiUser) -> None:
    document_id = await add_ready_document(user)
    path = f"/knowledge/{document_id}"

    answers = await asyncio.gather(
        *(
            user.request("PATCH", path, json={"title": title}, headers={"If-Match": '"1"'})
            for title in ("One", "Two")
        )
    )

    assert sorted(answer.status_code for answer in answers) == [200, 412]
    changed = next(answer for answer in answers if answer.status_code == 200)
    assert changed.headers["ETag"] == '"2"'
    assert (await user.request("GET", path)).json()["data"] == changed.json()["data"]


async def test_a_deleted_document_is_gone_with_all_that_was_in_it(
    user: ApiUser, stack: Stack
) -> None:
    document_id = await add_ready_document(user)
    await publish(user, document_id)

    deleted = await user.request("DELETE", f"/knowledge/{document_id}")

    assert deleted.status_code == 204
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/versions"), ("GET", "/versions/1")):
        answer = await user.request(method, f"/knowledge/{document_id}{path}")
        assert answer.status_code == 404, (method, path)
    left = await stack.inspection.value(
        "SELECT count(*) FROM document_versions JOIN passages USING (document_id) "
        "WHERE document_id = $1",
        UUID(document_id),
    )
    audited = await stack.inspection.rows(
        "SELECT action FROM audit_log WHERE resource_id = $1 ORDER BY id", document_id
    )
    assert left == 0
    assert [row["action"] for row in audited] == ["document.published", "document.deleted"]


REQUESTS: list[tuple[str, str, dict[str, object] | None]] = [
    ("GET", "", None),
    ("PATCH", "", {"title": "Mine"}),
    ("DELETE", "", None),
    ("GET", "/versions", None),
    ("GET", "/versions/1", None),
    ("POST", "/versions", {"content": "Mine"}),
    ("POST", "/publish", {}),
    ("POST", "/unpublish", None),
]


async def test_a_draft_is_hidden_from_other_users(user: ApiUser, other_user: ApiUser) -> None:
    document_id = await add_ready_document(user, title=unique("draft"))

    for method, path, body in REQUESTS:
        answer = await other_user.request(method, f"/knowledge/{document_id}{path}", json=body)
        assert answer.status_code == 403, (method, path)
    assert await titles(other_user) == []


async def test_others_read_published_documents_but_not_drafts(
    user: ApiUser, other_user: ApiUser
) -> None:
    document_id = await add_ready_document(user, "Published text.", title=unique("public"))
    await publish(user, document_id)
    await add_version(user, document_id, "Draft text.")
    await ingested(user, document_id, 2)
    path = f"/knowledge/{document_id}"

    seen = (await other_user.request("GET", path)).json()["data"]
    versions = (await other_user.request("GET", f"{path}/versions")).json()["data"]
    draft = await other_user.request("GET", f"{path}/versions/2")
    missing = await other_user.request("GET", f"{path}/versions/3")

    assert seen["own"] is False
    assert seen["latestVersion"] == seen["publishedVersion"] == 1
    assert [version["number"] for version in versions] == [1]
    assert (await version_of(other_user, document_id))["content"] == "Published text."
    assert (draft.status_code, missing.status_code) == (403, 404)
    for method, tail, body in REQUESTS:
        if method != "GET":
            answer = await other_user.request(method, f"{path}{tail}", json=body)
            assert answer.status_code == 403, (method, tail)


async def test_published_documents_of_all_users_are_listed(
    user: ApiUser, other_user: ApiUser
) -> None:
    name = unique("everybody")
    published = await add_ready_document(user, title=f"{name} published")
    await add_ready_document(user, title=f"{name} draft")
    await publish(user, published)

    assert await titles(other_user, scope="published", search=name) == [f"{name} published"]
    assert await titles(user, scope="published", search=name) == [f"{name} published"]
    assert await titles(other_user, scope="published", status="draft", search=name) == []
    assert await titles(user, status="published", search=name) == [f"{name} published"]


async def test_a_document_is_kept_while_temporal_is_unavailable(
    user: ApiUser, stack: Stack
) -> None:
    settings = stack.settings.model_copy(update={"temporal_address": "127.0.0.1:9"})
    temporal = TemporalGateway(await connect_temporal(settings, lazy=True), eager=False)
    actor = actor_of(user)
    submission = TitledSubmission("text/plain", b"C", "T")
    made = await stack.services.knowledge.documents.create(actor, submission, key=None)
    assert isinstance(made, Ok)

    is_started = await temporal.start_ingestion(DocumentId(made.value.id), 1, owner=actor.user_id)

    assert is_started is False
    assert (await version_of(user, str(made.value.id)))["status"] == "pending"
