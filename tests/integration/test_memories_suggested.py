"""Suggestions: stored once, without known memories, and within the plan."""

import asyncio
from uuid import UUID, uuid4

import pytest

from schema.actors import Actor, acting_user
from schema.ids import TurnId, UserId
from schema.memories import (
    CreateMemoryRequest,
    Memory,
    MemoryFilter,
    MemorySort,
    MemoryStatus,
    MemorySuggestion,
)
from schema.pages import PageRequest
from schema.result import Ok
from services.auth.accounts import AccountCache
from services.memories.service import MemoryService
from services.memories.suggestions import MemorySuggestions
from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.database import Inspection
from tests.fixtures.plans import allow
from tests.fixtures.stack import Stack


def actor_of(user: ApiUser) -> Actor:
    return acting_user(UserId(UUID(user.id)))


def suggesting(stack: Stack) -> MemorySuggestions:
    foundation = stack.foundation
    accounts = AccountCache(foundation.database, lifetime_s=0)
    return MemorySuggestions(foundation.database, foundation.embedder, accounts)


@pytest.fixture
def actor(user: ApiUser) -> Actor:
    """A new user, as services know them."""
    return actor_of(user)


@pytest.fixture
def memories(stack: Stack) -> MemoryService:
    """The stack's service."""
    return stack.services.memories.store


@pytest.fixture
def suggestions(stack: Stack) -> MemorySuggestions:
    """Suggestions with the stack's database and embedder."""
    return suggesting(stack)


async def finished_turn(stack: Stack, user: ApiUser, chat: str | None = None) -> TurnId:
    question = unique()
    stack.model.add(Script(match=question, text="I see."))
    answered = await user.ask(chat or await user.create_chat(), question)
    return TurnId(UUID(answered["turn"]["id"]))


@pytest.fixture
async def turn(stack: Stack, user: ApiUser) -> TurnId:
    """A turn from which something may be learnt."""
    return await finished_turn(stack, user)


async def suggest(
    suggestions: MemorySuggestions,
    actor: Actor,
    turn: TurnId,
    *contents: str,
    auto_accept: bool = False,
) -> list[Memory]:
    made = [MemorySuggestion(content=content) for content in contents]
    return await suggestions.suggest(actor, made, source_turn_id=turn, auto_accept=auto_accept)


def contents_of(memories: list[Memory]) -> list[str]:
    return [memory.content for memory in memories]


async def everything(memories: MemoryService, actor: Actor) -> list[str]:
    page = await memories.list_memories(
        actor, MemoryFilter(), PageRequest(100), sort=MemorySort.CREATED
    )
    return contents_of(list(page.items))


async def test_suggestions_wait_for_their_user(
    suggestions: MemorySuggestions, memories: MemoryService, actor: Actor, turn: TurnId
) -> None:
    stored = await suggest(suggestions, actor, turn, "Has a dog called Rex.", "Works as a nurse.")

    assert contents_of(stored) == ["Has a dog called Rex.", "Works as a nurse."]
    assert {memory.status for memory in stored} == {MemoryStatus.SUGGESTED}
    assert {memory.source_turn_id for memory in stored} == {turn}
    assert await memories.get(actor, stored[0].id) == Ok(stored[0])


async def test_suggestions_are_accepted_at_once_for_users_who_opted_in(
    suggestions: MemorySuggestions, actor: Actor, turn: TurnId
) -> None:
    stored = await suggest(suggestions, actor, turn, "Has a dog.", auto_accept=True)

    assert [memory.status for memory in stored] == [MemoryStatus.ACCEPTED]


async def test_a_turn_is_learnt_from_once(
    suggestions: MemorySuggestions, memories: MemoryService, actor: Actor, turn: TurnId
) -> None:
    first = await suggest(suggestions, actor, turn, "Has a dog called Rex.")

    assert await suggest(suggestions, actor, turn, "Is afraid of heights.") == first
    assert await everything(memories, actor) == ["Has a dog called Rex."]


async def test_a_turn_is_learnt_from_once_by_several_at_a_time(
    suggestions: MemorySuggestions, memories: MemoryService, actor: Actor, turn: TurnId
) -> None:
    results = await asyncio.gather(
        *(suggest(suggestions, actor, turn, "Has a dog.", "Is a nurse.") for _ in range(8))
    )

    assert all(result == results[0] for result in results)
    assert await everything(memories, actor) == ["Has a dog.", "Is a nurse."]


@pytest.mark.parametrize(
    "repeated", ["Has a dog called Rex.", "has a dog called rex", "Has a dog named Rex."]
)
@pytest.mark.parametrize("status", ["suggested", "accepted", "rejected"])
async def test_known_memories_are_not_suggested_again(
    stack: Stack, user: ApiUser, repeated: str, status: str
) -> None:
    actor, turn = actor_of(user), await finished_turn(stack, user)
    known = await stack.services.memories.store.create(
        actor, CreateMemoryRequest(content="Has a dog called Rex."), key=None
    )
    assert isinstance(known, Ok)
    await stack.inspection.execute(
        "UPDATE memories SET status = $2 WHERE id = $1", known.value.memory.id, status
    )

    stored = await suggest(suggesting(stack), actor, turn, repeated, "Works as a nurse.")

    assert contents_of(stored) == ["Works as a nurse."]


async def test_suggestions_that_say_the_same_are_stored_once(
    suggestions: MemorySuggestions, actor: Actor, turn: TurnId
) -> None:
    stored = await suggest(
        suggestions, actor, turn, "Has a dog called Rex.", "Has a dog named Rex.", "Is a nurse."
    )

    assert contents_of(stored) == ["Has a dog called Rex.", "Is a nurse."]


async def test_memories_without_a_vector_are_compared_by_text(
    suggestions: MemorySuggestions, actor: Actor, turn: TurnId, inspection: Inspection
) -> None:
    await inspection.execute(
        "INSERT INTO memories (id, user_id, kind, content) VALUES ($1, $2, 'fact', $3)",
        uuid4(),
        actor.user_id,
        "Has a dog.",
    )

    assert await suggest(suggestions, actor, turn, "Has a dog") == []


async def test_memories_of_another_user_are_not_duplicates(
    stack: Stack, actor: Actor, turn: TurnId, other_user: ApiUser
) -> None:
    request = CreateMemoryRequest(content="Has a dog.")
    await stack.services.memories.store.create(actor_of(other_user), request, key=None)

    stored = await suggest(suggesting(stack), actor, turn, "Has a dog.")

    assert contents_of(stored) == ["Has a dog."]


async def test_suggestions_beyond_the_plan_are_left_out(
    suggestions: MemorySuggestions, actor: Actor, turn: TurnId, inspection: Inspection
) -> None:
    await allow(inspection, actor.user_id, max_memories=2)

    stored = await suggest(suggestions, actor, turn, "Has a dog.", "Is a nurse.", "Lives in Rome.")

    assert contents_of(stored) == ["Has a dog.", "Is a nurse."]


async def test_nothing_is_learnt_from_a_turn_that_is_gone_or_anothers(
    stack: Stack, suggestions: MemorySuggestions, actor: Actor, other_user: ApiUser
) -> None:
    anothers = await finished_turn(stack, other_user)

    assert await suggest(suggestions, actor, anothers, "Has a dog.") == []
    assert await suggest(suggestions, actor, TurnId(uuid4()), "Has a dog.") == []


async def test_no_suggestions_are_nothing_to_store(
    suggestions: MemorySuggestions, actor: Actor, turn: TurnId
) -> None:
    assert await suggest(suggestions, actor, turn) == []


async def test_suggested_memories_outlive_their_chat(
    stack: Stack, suggestions: MemorySuggestions, user: ApiUser, actor: Actor
) -> None:
    chat = await user.create_chat()
    turn = await finished_turn(stack, user, chat)
    [stored] = await suggest(suggestions, actor, turn, "Has a dog.")

    await user.request("DELETE", f"/chats/{chat}")

    left = await stack.services.memories.store.get(actor, stored.id)
    assert isinstance(left, Ok)
    assert left.value.source_turn_id is None
