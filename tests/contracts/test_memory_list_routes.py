"""Lists and searches of memories over HTTP: pages, filters and validation."""

from typing import Any

import pytest

from tests.contracts.test_memory_routes import MEMORY, check_refused, data_of_list, remember
from tests.contracts.test_routes import data_of
from tests.fixtures.api_user import ApiUser


async def test_a_list_is_paged_newest_first(member: ApiUser) -> None:
    made = [(await remember(member, f"Fact {number}"))["id"] for number in range(3)]

    first = await member.request("GET", "/memories", params={"limit": 2})
    cursor = first.json()["meta"]["nextCursor"]
    second = await member.request("GET", "/memories", params={"limit": 2, "cursor": cursor})

    listed = first.json()["data"] + second.json()["data"]
    assert [memory["id"] for memory in listed] == made[::-1]
    assert all(set(memory) == MEMORY for memory in listed)
    assert second.json()["meta"]["nextCursor"] is None


async def test_a_list_is_sorted_and_filtered(member: ApiUser) -> None:
    await remember(member, "Green tea", kind="preference", importance=0.2)
    await remember(member, "Black tea", kind="preference", importance=0.9)
    await remember(member, "A dog")

    params = {"sort": "-importance", "kind": "preference", "search": "TEA", "status": "accepted"}
    listed = data_of(await member.request("GET", "/memories", params=params))

    assert [memory["content"] for memory in listed] == ["Black tea", "Green tea"]


@pytest.mark.parametrize(
    "params",
    [
        {"status": "new"},
        {"kind": "x"},
        {"sort": "content"},
        {"search": ""},
        {"search": "a" * 201},
        {"pinned": "maybe"},
        {"expired": "x"},
    ],
    ids=str,
)
async def test_an_unknown_filter_is_rejected(member: ApiUser, params: dict[str, str]) -> None:
    response = await member.request("GET", "/memories", params=params)

    check_refused(response, 400, "VALIDATION_ERROR")
    assert response.json()["error"]["details"][0]["path"] == f"query.{next(iter(params))}"


async def test_a_search_answers_memories_with_their_score(member: ApiUser) -> None:
    nurse = await remember(member, "Works as a nurse in Turin.")
    dog = await remember(member, "Has a dog called Rex.")

    body = {"query": "What pet do they have?", "limit": 2}
    response = await member.request("POST", "/memories/search", json=body)

    hits = data_of_list(response)
    assert [hit["id"] for hit in hits] == [dog["id"], nurse["id"]]
    assert [set(hit) for hit in hits] == 2 * [{*MEMORY, "score", "similarity", "wordMatch"}]
    assert 1 >= hits[0]["score"] > hits[1]["score"] > 0
    assert 1 > hits[0]["similarity"] > hits[1]["similarity"] >= -1
    assert [hit["wordMatch"] for hit in hits] == [0, 0]
    assert response.json()["meta"]["nextCursor"] is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"query": ""},
        {"query": "  "},
        {"query": "a" * 4001},
        {"query": "a", "limit": 0},
        {"query": "a", "limit": 101},
        {"query": "a", "limit": "3"},
        {"query": "a\x00"},
    ],
    ids=str,
)
async def test_invalid_searches_are_rejected(member: ApiUser, body: dict[str, Any]) -> None:
    response = await member.request("POST", "/memories/search", json=body)

    check_refused(response, 400, "VALIDATION_ERROR")
