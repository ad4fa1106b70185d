"""The contract of the routes of knowledge: shapes, statuses, validation, pages."""

from uuid import uuid4

import httpx
import pytest

from tests.fixtures.api_user import ApiUser
from tests.fixtures.library import (
    add_document,
    add_ready_document,
    add_version,
    ingested,
    publish,
)

DOCUMENT = {
    "id",
    "title",
    "status",
    "own",
    "contentType",
    "latestVersion",
    "publishedVersion",
    "ingestion",
    "version",
    "createdAt",
    "updatedAt",
}
VERSION = {
    "documentId",
    "number",
    "contentType",
    "published",
    "status",
    "problem",
    "passageCount",
    "embeddedCount",
    "createdAt",
    "finishedAt",
}


@pytest.fixture
async def administrator(recorded: httpx.AsyncClient, admin: ApiUser) -> ApiUser:
    """An administrator who speaks through the recording client."""
    return ApiUser(recorded, admin.session, email=admin.email)


async def test_documents(member: ApiUser) -> None:
    document_id = await add_document(member)
    path = f"/knowledge/{document_id}"

    read = await member.request("GET", path)
    changed = await member.request("PATCH", path, json={"title": "New"}, headers={"If-Match": "*"})
    listed = await member.request("GET", "/knowledge")
    deleted = await member.request("DELETE", path)

    assert read.json()["data"].keys() == DOCUMENT
    assert read.headers["ETag"] == '"1"'
    assert changed.json()["data"]["title"] == "New"
    assert changed.headers["ETag"] == '"2"'
    assert [document["id"] for document in listed.json()["data"]] == [document_id]
    assert listed.json()["meta"]["nextCursor"] is None
    assert (deleted.status_code, deleted.content) == (204, b"")


async def test_versions(member: ApiUser) -> None:
    document_id = await add_document(member, "One.")
    path = f"/knowledge/{document_id}/versions"

    added = await member.request("POST", path, files={"file": ("a.md", b"# Two", "text/markdown")})
    await ingested(member, document_id, 2)
    read = await member.request("GET", f"{path}/2")
    first = await member.request("GET", path, params={"limit": 1})
    cursor = first.json()["meta"]["nextCursor"]
    second = await member.request("GET", path, params={"limit": 1, "cursor": cursor})

    assert added.status_code == 201
    assert added.json()["data"].keys() == VERSION
    assert read.json()["data"].keys() == {*VERSION, "content"}
    assert read.json()["data"]["content"] == "# Two"
    assert [version["number"] for version in first.json()["data"]] == [2]
    assert [version["number"] for version in second.json()["data"]] == [1]
    assert second.json()["meta"]["nextCursor"] is None


async def test_publishing(member: ApiUser) -> None:
    document_id = await add_ready_document(member)

    published = await publish(member, document_id)
    withdrawn = await member.request("POST", f"/knowledge/{document_id}/unpublish")

    assert published.keys() == DOCUMENT
    assert (published["status"], withdrawn.json()["data"]["status"]) == ("published", "draft")
    assert withdrawn.headers["ETag"] == '"3"'


async def test_pages_of_documents_hold_each_once(member: ApiUser) -> None:
    made = [await add_document(member, title=title) for title in ("c", "a", "b", "b")]
    for sort, count in (("title", 2), ("-updatedAt", 3), ("createdAt", 1)):
        seen: list[str] = []
        params: dict[str, str | int] = {"sort": sort, "limit": count}
        while True:
            body = (await member.request("GET", "/knowledge", params=params)).json()
            seen += [document["id"] for document in body["data"]]
            if body["meta"]["nextCursor"] is None:
                break
            params["cursor"] = body["meta"]["nextCursor"]
        assert len(seen) == len(made)
        assert set(seen) == set(made)


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({"limit": 0}, "query.limit"),
        ({"cursor": "no-cursor"}, "query.cursor"),
        ({"sort": "size"}, "query.sort"),
        ({"scope": "others"}, "query.scope"),
        ({"status": "gone"}, "query.status"),
        ({"search": "x" * 201}, "query.search"),
        ({"search": "\x00"}, "query.search"),
    ],
)
async def test_a_list_that_does_not_exist_is_refused(
    member: ApiUser, query: dict[str, str | int], path: str
) -> None:
    response = await member.request("GET", "/knowledge", params=query)

    assert response.status_code == 400
    assert response.json()["error"]["details"][0]["path"] == path


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("PATCH", "", {"title": "T"}),
        ("DELETE", "", None),
        ("GET", "/versions", None),
        ("POST", "/versions", {"content": "C"}),
        ("GET", "/versions/1", None),
        ("POST", "/publish", {}),
        ("POST", "/unpublish", None),
    ],
)
async def test_missing_resources_raise_not_found(
    member: ApiUser, *, method: str, path: str, body: dict[str, str] | None
) -> None:
    missing = await member.request(method, f"/knowledge/{uuid4()}{path}", json=body)
    no_id = await member.request(method, f"/knowledge/no-id{path}", json=body)

    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "NOT_FOUND")
    assert no_id.status_code == 400


@pytest.mark.parametrize("body", [{}, {"title": ""}, {"title": None}, {"content": "C"}, []])
async def test_an_empty_update_is_rejected(member: ApiUser, body: object) -> None:
    document_id = await add_document(member)

    response = await member.request("PATCH", f"/knowledge/{document_id}", json=body)

    assert response.status_code == 400


@pytest.mark.parametrize("number", ["0", "-1", "x", str(2**31)])
async def test_an_invalid_version_number_is_rejected(member: ApiUser, number: str) -> None:
    document_id = await add_document(member)

    response = await member.request("GET", f"/knowledge/{document_id}/versions/{number}")

    assert response.status_code == 400


async def test_administrators_list_documents_of_all(
    member: ApiUser, administrator: ApiUser
) -> None:
    document_id = await add_ready_document(member)
    await add_version(member, document_id, "Draft.")
    await publish(member, document_id, 1)

    listed = await administrator.request(
        "GET", "/admin/knowledge", params={"userId": member.id, "status": "published"}
    )
    drafts = await administrator.request(
        "GET", "/admin/knowledge", params={"userId": member.id, "status": "draft"}
    )
    page = await administrator.request("GET", "/admin/knowledge", params={"limit": 1})

    (document,) = listed.json()["data"]
    assert document.keys() == {*DOCUMENT, "userId"}
    assert (document["id"], document["userId"]) == (document_id, member.id)
    assert (document["latestVersion"], document["publishedVersion"]) == (2, 1)
    assert drafts.json()["data"] == []
    assert len(page.json()["data"]) == 1


async def test_administrators_withdraw_documents(member: ApiUser, administrator: ApiUser) -> None:
    document_id = await add_ready_document(member)
    await publish(member, document_id)
    path = f"/admin/knowledge/{document_id}/unpublish"

    response = await administrator.request("POST", path)
    missing = await administrator.request("POST", f"/admin/knowledge/{uuid4()}/unpublish")
    refused = await member.request("POST", path)

    assert response.json()["data"]["status"] == "draft"
    assert (missing.status_code, refused.status_code) == (404, 403)
    assert (await member.request("GET", "/admin/knowledge")).status_code == 403
