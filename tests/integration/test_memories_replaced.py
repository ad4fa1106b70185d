"""Suggestions that contradict a memory: accepting one replaces it, and the old one is kept."""

from collections.abc import Sequence
from uuid import UUID

import pytest

from schema.actors import Actor, acting_user
from schema.ids import MemoryId, TurnId, UserId
from schema.memories import CreateMemoryRequest, Memory, MemoryStatus, MemorySuggestion
from schema.result import Ok
from services.auth.accounts import AccountCache
from services.memories.suggestions import MemorySuggestions
from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.stack import Stack


class Person:
    """A user with a finished turn, and what the services know of them."""

    def __init__(self, stack: Stack, user: ApiUser, turn: TurnId) -> None:
        self.user, self.turn = user, turn
        self.actor: Actor = acting_user(UserId(UUID(user.id)))
        foundation = stack.foundation
        accounts = AccountCache(foundation.database, lifetime_s=0)
        self._store = stack.services.memories.store
        self._suggestions = MemorySuggestions(foundation.database, foundation.embedder, accounts)

    async def remember(self, content: str) -> MemoryId:
        created = await self._store.create(
            self.actor, CreateMemoryRequest(content=content), key=None
        )
        assert isinstance(created, Ok)
        return created.value.memory.id

    async def suggest(
        self, content: str, replaces: MemoryId | None = None, *, auto_accept: bool = False
    ) -> list[Memory]:
        suggestion = MemorySuggestion(content=content, passage=content, replaces_id=replaces)
        return await self._suggestions.suggest(
            self.actor, [suggestion], source_turn_id=self.turn, auto_accept=auto_accept
        )

    async def memory(self, memory_id: MemoryId) -> dict[str, object]:
        response = await self.user.request("GET", f"/memories/{memory_id}")
        found: dict[str, object] = response.json()["data"]
        return found

    async def decide(self, memory_id: MemoryId, decision: str) -> int:
        return (await self.user.request("POST", f"/memories/{memory_id}/{decision}")).status_code

    async def listed(self, query: str = "") -> Sequence[str]:
        response = await self.user.request("GET", f"/memories?sort=createdAt{query}")
        return [memory["content"] for memory in response.json()["data"]]


async def finished_turn(stack: Stack, user: ApiUser) -> TurnId:
    question = unique()
    stack.model.add(Script(match=question, text="I see."))
    answered = await user.ask(await user.create_chat(), question)
    return TurnId(UUID(answered["turn"]["id"]))


@pytest.fixture
async def person(stack: Stack, user: ApiUser) -> Person:
    """A new user with a finished turn."""
    return Person(stack, user, await finished_turn(stack, user))


async def test_accepting_a_replacement_keeps_the_old_memory_as_history(person: Person) -> None:
    old = await person.remember("Lives in Berlin.")
    [new] = await person.suggest("Lives in Lisbon.", old)
    assert (await person.memory(new.id))["replacesId"] == str(old)
    assert (await person.memory(old))["status"] == "accepted"

    assert await person.decide(new.id, "accept") == 200

    replaced = await person.memory(old)
    assert (replaced["status"], replaced["replacedById"]) == ("replaced", str(new.id))
    assert await person.listed() == ["Lives in Lisbon."]
    assert await person.listed("&status=replaced") == ["Lives in Berlin."]
    found = await person.user.request("POST", "/memories/search", json={"query": "Berlin"})
    assert [memory["content"] for memory in found.json()["data"]] == ["Lives in Lisbon."]


async def test_rejecting_a_replacement_keeps_the_old_memory_in_use(person: Person) -> None:
    old = await person.remember("Lives in Berlin.")
    [new] = await person.suggest("Lives in Lisbon.", old)

    assert await person.decide(new.id, "reject") == 200

    assert (await person.memory(old))["status"] == "accepted"
    assert await person.listed() == ["Lives in Berlin."]


async def test_a_replaced_memory_is_not_decided_on_again(person: Person) -> None:
    old = await person.remember("Lives in Berlin.")
    await person.suggest("Lives in Lisbon.", old, auto_accept=True)

    assert [await person.decide(old, way) for way in ("accept", "reject")] == [409, 409]


async def test_a_replacement_that_is_accepted_at_once_replaces_at_once(person: Person) -> None:
    old = await person.remember("Lives in Berlin.")

    [new] = await person.suggest("Lives in Lisbon.", old, auto_accept=True)

    assert new.status is MemoryStatus.ACCEPTED
    assert (await person.memory(old))["replacedById"] == str(new.id)


async def test_a_replacement_may_be_near_what_it_replaces(person: Person) -> None:
    old = await person.remember("Has two cats and a dog called Rex.")

    [new] = await person.suggest("Has three cats and a dog called Rex.", old)

    assert new.replaces_id == old


async def test_what_was_replaced_may_become_true_again(stack: Stack, person: Person) -> None:
    old = await person.remember("Lives in Berlin.")
    [newer] = await person.suggest("Lives in Lisbon.", old, auto_accept=True)
    later = Person(stack, person.user, await finished_turn(stack, person.user))

    [back] = await later.suggest("Lives in Berlin.", newer.id)

    assert (back.content, back.replaces_id) == ("Lives in Berlin.", newer.id)


async def test_a_memory_that_is_gone_meanwhile_is_not_replaced(person: Person) -> None:
    old = await person.remember("Lives in Berlin.")
    await person.user.request("DELETE", f"/memories/{old}")

    [new] = await person.suggest("Lives in Lisbon.", old)

    assert new.replaces_id is None
    assert await person.decide(new.id, "accept") == 200


async def test_deleting_a_new_memory_leaves_the_one_that_it_replaced(person: Person) -> None:
    old = await person.remember("Lives in Berlin.")
    [new] = await person.suggest("Lives in Lisbon.", old, auto_accept=True)

    await person.user.request("DELETE", f"/memories/{new.id}")

    replaced = await person.memory(old)
    assert (replaced["status"], replaced["replacedById"]) == ("replaced", None)


async def test_memories_of_others_are_not_replaced(
    stack: Stack, person: Person, other_user: ApiUser
) -> None:
    other = Person(stack, other_user, person.turn)
    anothers = await other.remember("Lives in Berlin.")

    [new] = await person.suggest("Lives in Lisbon.", anothers)

    assert new.replaces_id is None
    assert (await other.memory(anothers))["status"] == "accepted"
