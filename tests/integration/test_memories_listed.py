"""Lists of memories: their orders, pages and filters."""

import pytest

from schema.actors import Actor
from schema.memories import (
    ChangeMemoryRequest,
    MemorySort,
)
from services.memories.service import MemoryService
from tests.fixtures.database import Inspection
from tests.fixtures.memories import expire, kept, listed, set_status
from tests.fixtures.stack import Stack


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        (MemorySort.CREATED, "abcde"),
        (MemorySort.CREATED_LAST, "edcba"),
        (MemorySort.UPDATED, "abdec"),
        (MemorySort.UPDATED_LAST, "cedba"),
        (MemorySort.IMPORTANCE, "cbead"),
        (MemorySort.IMPORTANCE_LAST, "daebc"),
    ],
)
async def test_a_list_has_every_memory_once_in_each_order(
    memories: MemoryService, actor: Actor, sort: MemorySort, expected: str
) -> None:
    importances = {"a": 0.8, "b": 0.3, "c": 0.1, "d": 0.9, "e": 0.3}
    made = {
        content: await kept(memories, actor, content, importance=importance)
        for content, importance in importances.items()
    }
    change = ChangeMemoryRequest(importance=0.1)
    await memories.change(actor, made["c"].id, change, versions=None)

    assert "".join(await listed(memories, actor, sort)) == expected


async def test_filters_return_only_matching_memories(
    stack: Stack, memories: MemoryService, actor: Actor
) -> None:
    await kept(memories, actor, "100% wool", kind="preference")
    await kept(memories, actor, "100 sheep")
    await kept(memories, actor, "a_b \\ c")
    suggested = await kept(memories, actor, "Suggested")
    rejected = await kept(memories, actor, "Rejected")
    await set_status(stack.inspection, suggested, "suggested")
    await set_status(stack.inspection, rejected, "rejected")

    accepted = ["100% wool", "100 sheep", "a_b \\ c"]
    assert await listed(memories, actor) == [*accepted, "Suggested"]
    assert await listed(memories, actor, status="accepted") == accepted
    assert await listed(memories, actor, status="rejected") == ["Rejected"]
    assert await listed(memories, actor, kind="preference") == ["100% wool"]
    assert await listed(memories, actor, search="0%") == ["100% wool"]
    assert await listed(memories, actor, search="_") == ["a_b \\ c"]
    assert await listed(memories, actor, search="\\") == ["a_b \\ c"]
    assert await listed(memories, actor, search="SHEEP") == ["100 sheep"]


async def test_pinned_and_expired_memories_are_listed_on_request(
    memories: MemoryService, actor: Actor, inspection: Inspection
) -> None:
    await kept(memories, actor, "Usual")
    await kept(memories, actor, "Pinned", pinned=True)
    await expire(inspection, await kept(memories, actor, "Expired"))

    assert await listed(memories, actor) == ["Usual", "Pinned", "Expired"]
    assert await listed(memories, actor, pinned=True) == ["Pinned"]
    assert await listed(memories, actor, pinned=False) == ["Usual", "Expired"]
    assert await listed(memories, actor, expired=True) == ["Expired"]
    assert await listed(memories, actor, expired=False) == ["Usual", "Pinned"]
