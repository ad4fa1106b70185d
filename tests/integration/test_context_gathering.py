"""Gathering a context: once for each turn, and never at the expense of the turn."""

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from schema.actors import Actor, acting_user
from schema.chats import SendMessageRequest
from schema.ids import ChatId, UserId
from schema.memories import MemoryHit
from schema.result import Ok
from schema.turns import TurnReference
from services.contexts.search import ContextSearch
from services.contexts.service import ContextService, PromptBudgets
from services.embeddings import EmbeddingUnavailableError, Purpose
from services.events.writer import stream_key
from services.prompts.base_prompts import BasePrompts
from services.tools.catalogue import ToolSnapshot
from services.turns.preparation import TurnPreparation, TurnRules
from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.contexts import kept, remember, texts
from tests.fixtures.local_tools import default_tools
from tests.fixtures.stack import Stack


class Memories:
    """A source of memories that fails, or never answers, or is not to be asked."""

    def __init__(self, *, hangs: bool = False) -> None:
        self._hangs = hangs
        self.asked = 0

    async def for_prompt(
        self, actor: Actor, query: str, query_embedding: Sequence[float] | None, *, limit: int
    ) -> Sequence[MemoryHit]:
        self.asked += 1
        if self._hangs:
            await asyncio.Event().wait()
        raise ConnectionError("memories are away")


class Embedder:
    """An embedder that counts, and is unavailable if the test says so."""

    name = "counting"
    dimensions = 1
    max_batch = 1

    def __init__(self, *, away: bool = False) -> None:
        self._away = away
        self.asked = 0

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> list[list[float]]:
        self.asked += 1
        if self._away:
            raise EmbeddingUnavailableError("away")
        return [[1.0]] * len(texts)

    async def close(self) -> None:
        pass


class LocalTools:
    """The tools that there are without any administrator."""

    async def snapshot(self, *, version: int | None = None) -> ToolSnapshot:
        tools = default_tools().definitions()
        return ToolSnapshot({tool.name: tool for tool in tools}, {}, version=version or 0)


def preparation(stack: Stack, memories: Memories, embedder: Embedder) -> TurnPreparation:
    database = stack.foundation.database
    search = ContextSearch(embedder, memories=memories, timeout=timedelta(milliseconds=100))
    budgets = PromptBudgets(prompt=100_000, user=1_500, context=8_000)
    contexts = ContextService(
        BasePrompts(database), LocalTools(), search, budgets, windows=stack.foundation.windows
    )
    rules = TurnRules(max_steps=1, fallback_model=None)
    return TurnPreparation(database, stack.foundation.events, contexts, rules)


async def accepted(user: ApiUser, stack: Stack) -> TurnReference:
    """Store a turn with no workflow behind it."""
    result = await stack.services.turns.acceptance.accept(
        acting_user(UserId(UUID(user.id))),
        ChatId(UUID(await user.create_chat())),
        SendMessageRequest(content=unique()),
        key=None,
    )
    assert isinstance(result, Ok)
    return result.value.reference


async def published(stack: Stack, turn: TurnReference) -> list[tuple[str, str]]:
    """Return the names and data of the events in a turn's stream."""
    entries: Any = await stack.foundation.redis.xrange(stream_key(turn.turn_id))
    return [(fields[b"n"].decode(), fields[b"d"].decode()) for _, fields in entries]


def missed(part: str, cause: str) -> float:
    """Return how often this process has gone without a part of a context."""
    name = "everturn_context_searches_missed_total"
    return REGISTRY.get_sample_value(name, {"part": part, "cause": cause}) or 0


@pytest.mark.parametrize(
    ("memories", "embedder", "counted"),
    [
        (Memories(), Embedder(), ("memories", "failure")),
        (Memories(hangs=True), Embedder(), ("memories", "timeout")),
        (Memories(), Embedder(away=True), ("embedding", "failure")),
    ],
    ids=["search fails", "search hangs", "embedder is unavailable"],
)
async def test_a_turn_continues_without_a_failed_search(
    user: ApiUser,
    stack: Stack,
    *,
    memories: Memories,
    embedder: Embedder,
    counted: tuple[str, str],
) -> None:
    await remember(user, "I like tea.")
    turn = await accepted(user, stack)
    before = missed(*counted)

    prepared = await preparation(stack, memories, embedder).prepare(turn)

    assert prepared.ending is None
    assert missed(*counted) == before + 1
    row = await stack.inspection.turn(str(turn.turn_id))
    assert row["status"] == "running"
    assert json.loads(row["prompt"])["missing"] == ["memories"]
    running, notice = await published(stack, turn)
    assert running[0] == "turn"
    assert notice[0] == "notice"
    assert json.loads(notice[1])["code"] == "context_degraded"


async def test_nothing_is_embedded_without_anything_to_search(user: ApiUser, stack: Stack) -> None:
    memories, embedder = Memories(), Embedder()
    turn = await accepted(user, stack)

    await preparation(stack, memories, embedder).prepare(turn)

    assert (memories.asked, embedder.asked) == (0, 0)
    assert len(await published(stack, turn)) == 1


async def test_a_turn_that_is_prepared_again_keeps_its_context(user: ApiUser, stack: Stack) -> None:
    turn = await accepted(user, stack)
    first = await stack.activities.turns._preparation.prepare(turn)
    before = await kept(stack, str(turn.turn_id))
    await remember(user, "I like tea.", kind="preference")

    again = await stack.activities.turns._preparation.prepare(turn)

    assert again == first
    assert await kept(stack, str(turn.turn_id)) == before


async def test_concurrent_preparing_stores_one_context(user: ApiUser, stack: Stack) -> None:
    await remember(user, "I like tea.", kind="preference")
    turn = await accepted(user, stack)
    prepare = stack.activities.turns._preparation.prepare

    outputs = await asyncio.gather(*(prepare(turn) for _ in range(4)))

    assert outputs == [outputs[0]] * 4
    assert "I like tea." in (await kept(stack, str(turn.turn_id)))["layers"]["context"]


async def test_a_turn_that_nothing_was_gathered_for_has_the_built_in_prompt(
    user: ApiUser, stack: Stack
) -> None:
    question, gate = unique(), unique("gate")
    stack.model.add(Script(match=question, status=500))
    stack.model.add(Script(match=question, text="Yes.", hold=gate))
    chat = await user.create_chat()

    async with user.stream(chat, question) as stream:
        await stack.model.wait_for_request(match=question, ended=True)
        await stack.inspection.execute(
            "DELETE FROM turn_contexts WHERE turn_id = $1", UUID(stream.turn_id)
        )
        stack.model.release(gate)
        await user.check_whole(chat, await stream.all())

    body = stack.model.requests_matching(question)[1].body
    assert body is not None
    assert texts(body)[0].startswith("You are a helpful assistant.")
