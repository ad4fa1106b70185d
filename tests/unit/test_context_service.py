"""Gathering the layers of a prompt: each has its room, whatever the others ask for."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.actors import Actor
from schema.contexts import ContextSource, PromptLayers, SourceType
from schema.ids import UserId
from schema.memories import MemoryHit, MemoryKind
from schema.users import UserRole
from services.contexts.branches import BranchMessage, FollowedBranch
from services.contexts.facts import TurnFacts
from services.contexts.search import ContextSearch
from services.contexts.service import ContextService, PromptBudgets, TurnContext
from services.embeddings import Purpose
from services.models.context_windows import ContextWindows
from services.prompts.base_prompts import ActiveVersion, BasePrompts
from services.tools.catalogue import ToolSnapshot
from services.tools.permission import Audience, ToolSettings
from tests.fixtures.local_tools import default_tools
from tests.unit.test_context_rendering import memory

USER = UserId(UUID(int=7))
TURN, MESSAGE = UUID(int=9), UUID(int=10)
REGISTRY = default_tools()
TOOLS = ToolSnapshot({tool.name: tool for tool in REGISTRY.definitions()}, {})


def asking(tokens: int) -> FollowedBranch:
    """Return a branch of one question."""
    question = BranchMessage(
        MESSAGE, None, TURN, asks=True, joins=False, left_out=False, tokens=tokens, work=0, brief=0
    )
    return FollowedBranch([question])


FACTS = TurnFacts(
    may_run=True,
    model="claude-haiku-5-5",
    branch=asking(14),
    correction=1.0,
    display_name=None,
    language=None,
    time_zone=None,
    instructions=None,
    disabled_tools=frozenset(),
    audience=Audience(UserRole.USER, None),
    active_prompt=None,
    stored=None,
    has_memories=False,
    has_knowledge=False,
    question=None,
    tools_version=0,
)
SEARCHED = replace(FACTS, has_memories=True, question="Where do I live?")


class OneVector:
    """An embedder that gives every text the same vector."""

    name = "one-vector"
    dimensions = 1
    max_batch = 1

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> list[list[float]]:
        assert purpose is Purpose.QUERY
        self.asked += texts
        return [[1.0]] * len(texts)

    async def close(self) -> None:
        pass


class Memories:
    """A source of the memories that it was given."""

    def __init__(self, *hits: MemoryHit) -> None:
        self._hits = hits

    async def for_prompt(
        self, actor: Actor, query: str, query_embedding: Sequence[float] | None, *, limit: int
    ) -> Sequence[MemoryHit]:
        assert actor.user_id == USER
        assert query_embedding == [1.0]
        return self._hits[:limit]


class Source:
    """Tools that never change."""

    async def snapshot(self, *, version: int | None = None) -> ToolSnapshot:
        return TOOLS


NO_DATABASE: Any = None


def service(
    *hits: MemoryHit, prompt: int = 100_000, user: int = 1_500, context: int = 8_000
) -> ContextService:
    return ContextService(
        BasePrompts(NO_DATABASE),
        Source(),
        ContextSearch(OneVector(), memories=Memories(*hits)),
        PromptBudgets(prompt=prompt, user=user, context=context),
        windows=ContextWindows({}, max_output_tokens=4_096),
    )


def known(contexts: ContextService, facts: TurnFacts = FACTS) -> TurnContext:
    context = contexts.gather_known(facts, TOOLS)
    assert context is not None
    return context


def test_a_turn_with_nothing_to_search_waits_for_nothing() -> None:
    context = known(service())

    assert context.layers.version == "built-in 1"
    assert [tool.name for tool in context.layers.offered] == ["calculator", "datetime"]
    assert (context.layers.user, context.layers.context, context.sources) == ("", "", ())
    assert (context.tokens["user"], context.tokens["context"]) == (0, 0)
    assert context.tokens["conversation"] == 14
    assert context.notices == []


def test_memories_and_unread_prompts_must_be_awaited() -> None:
    contexts = service()
    unread = replace(FACTS, active_prompt=ActiveVersion(UUID(int=1), 3))

    assert contexts.gather_known(SEARCHED, TOOLS) is None
    assert contexts.gather_known(unread, TOOLS) is None


@pytest.mark.parametrize("question", [None, "", " \n"])
def test_a_query_without_words_is_not_searched(question: str | None) -> None:
    assert known(service(), replace(SEARCHED, question=question)).sources == ()


def test_knowledge_is_not_waited_for_where_nothing_searches_it() -> None:
    context = known(service(), replace(SEARCHED, has_memories=False, has_knowledge=True))

    assert context.sources == ()


async def test_passages_are_quoted_with_their_source() -> None:
    contexts = service(memory("Lives in Berlin."))

    context = await contexts.gather(USER, SEARCHED, TOOLS)

    assert "Lives in Berlin." in context.layers.context
    assert context.sources == (ContextSource(type=SourceType.MEMORY, id=UUID(int=1), score=0.5),)
    assert context.missing == ()


async def test_unrelated_memories_are_left_out_unless_they_say_how_to_answer() -> None:
    far = [
        memory(kind.value, kind=kind).model_copy(update={"similarity": 0.01}) for kind in MemoryKind
    ]

    context = await service(*far).gather(USER, SEARCHED, TOOLS)

    quoted = [kind.value for kind in MemoryKind if f"\n{kind.value}\n" in context.layers.context]
    assert sorted(quoted) == ["instruction", "preference"]


async def test_a_pinned_memory_and_one_with_the_words_are_kept_whatever_they_mean() -> None:
    far = {"similarity": 0.01}
    pinned = memory("Pinned.", pinned=True).model_copy(update=far)
    by_words = memory("By words.").model_copy(update={**far, "word_match": 0.4})
    without_vector = memory("Neither.").model_copy(update={"similarity": None})

    context = await service(pinned, by_words, without_vector).gather(USER, SEARCHED, TOOLS)

    quoted = [
        text for text in ("Pinned.", "By words.", "Neither.") if text in context.layers.context
    ]
    assert quoted == ["Pinned.", "By words."]


def test_stored_contexts_round_trip() -> None:
    layers = PromptLayers(version="base 1", system="S", tools="T", user="U", context="C")
    sources = (ContextSource(type=SourceType.DOCUMENT, id=UUID(int=3), version=2, score=1),)

    context = known(service(), replace(SEARCHED, stored=(layers, sources)))

    assert (context.layers, context.sources) == (layers, sources)
    assert context.tokens["context"] == 5


@pytest.mark.parametrize(
    ("change", "offered"),
    [
        ({"disabled_tools": frozenset({"datetime"})}, ["calculator"]),
        ({"audience": Audience(UserRole.USER, {"datetime", "gone"})}, ["datetime"]),
        ({"audience": Audience(UserRole.USER, ())}, []),
        ({"audience": None}, []),
        ({"disabled_tools": frozenset({"calculator", "datetime"})}, []),
    ],
)
def test_disabled_tools_and_tools_outside_the_plan_are_not_offered(
    change: dict[str, Any], offered: list[str]
) -> None:
    layers = known(service(), replace(FACTS, **change)).layers

    assert [tool.name for tool in layers.offered] == offered
    for name in ("calculator", "datetime"):
        assert (f"- {name}:" in layers.tools) is (name in offered)


def test_tools_denied_by_administrators_are_not_offered() -> None:
    decisions = {
        "calculator": ToolSettings(enabled=False),
        "datetime": ToolSettings(roles=frozenset({UserRole.ADMIN})),
    }

    context = service().gather_known(FACTS, ToolSnapshot(TOOLS.definitions, decisions))

    assert context is not None
    assert context.layers.offered == ()


def test_a_great_many_tools_leave_room_for_the_rest() -> None:
    calculator = TOOLS.definitions["calculator"]
    many = {
        f"tool_{number}": calculator.model_copy(update={"name": f"tool_{number}"})
        for number in range(300)
    }

    context = service(prompt=20_000).gather_known(FACTS, ToolSnapshot(many, {}))

    assert context is not None
    assert 0 < len(context.layers.offered) < 300
    assert context.tokens["tools"] <= 10_000
    assert context.window is not None


async def test_a_message_that_does_not_fit_is_searched_for_nothing() -> None:
    huge = replace(SEARCHED, branch=asking(10_004))

    context = known(service(prompt=10_000), huge)

    assert context.window is None


@given(
    prompt=st.integers(1_000, 6_000),
    message=st.integers(1, 3_000),
    instructions=st.integers(0, 4_000),
    quotes=st.lists(st.integers(1, 4_000), max_size=5),
)
async def test_layers_never_take_the_room_of_a_message_that_fits(
    prompt: int, message: int, instructions: int, quotes: list[int]
) -> None:
    facts = replace(SEARCHED, branch=asking(message), instructions="x" * instructions)
    hits = [memory("y" * length) for length in quotes]
    alone = known(service(prompt=prompt), replace(facts, instructions=None, question=None))

    context = await service(*hits, prompt=prompt).gather(USER, facts, TOOLS)

    assert (context.window is None) == (alone.window is None)
    if context.window is not None:
        assert sum(context.tokens.values()) <= prompt
    assert context.tokens["user"] <= 1_500
    assert context.tokens["context"] <= 8_000
