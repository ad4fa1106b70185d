"""The search of knowledge over HTTP."""

from typing import Any

import pytest

from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.passages import NewPassage, add_document, publish
from tests.fixtures.stack import Stack


async def search(person: ApiUser, **body: Any) -> list[dict[str, Any]]:  # noqa: ANN401 -- any JSON
    response = await person.request("POST", "/knowledge/search", json=body)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert "requestId" in answer["meta"]
    hits: list[dict[str, Any]] = answer["data"]
    return hits


async def test_a_search_answers_with_passages_and_where_they_are_from(
    stack: Stack, member: ApiUser
) -> None:
    text = unique("returns")
    document = await add_document(
        stack.inspection, member.id, NewPassage(text), title="Returns policy"
    )

    hits = await search(member, query=text)
    (hit,) = (hit for hit in hits if hit["documentId"] == str(document))

    assert 0 < hit.pop("score") <= 1
    assert hit.pop("passageId")
    assert hit == {
        "documentId": str(document),
        "title": "Returns policy",
        "version": 1,
        "position": 0,
        "content": text,
        "startChar": 0,
        "endChar": len(text),
        "own": True,
    }


async def test_a_search_respects_its_limit(stack: Stack, member: ApiUser) -> None:
    text = unique("returns")
    passages = [NewPassage(f"{text} {number}") for number in range(4)]
    await add_document(stack.inspection, member.id, *passages)

    assert len(await search(member, query=text, limit=3)) == 3


async def test_users_find_only_published_documents_of_others(
    stack: Stack, member: ApiUser, other_user: ApiUser
) -> None:
    text = unique("returns")
    document = await add_document(stack.inspection, other_user.id, NewPassage(text))

    before = await search(member, query=text)
    await publish(stack.inspection, document, 1)
    after = await search(member, query=text)

    assert document not in {hit["documentId"] for hit in before}
    assert [hit["own"] for hit in after if hit["documentId"] == str(document)] == [False]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"query": ""},
        {"query": "  "},
        {"query": "a\x00b"},
        {"query": "a" * 2001},
        {"query": 7},
        {"query": "a", "limit": 0},
        {"query": "a", "limit": 51},
        {"query": "a", "extra": True},
    ],
)
async def test_a_search_for_nothing_sensible_is_refused(
    member: ApiUser, body: dict[str, Any]
) -> None:
    response = await member.request("POST", "/knowledge/search", json=body)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "VALIDATION_ERROR"
