"""Prompts: kept with their versions, activated and taken back, and used by the next turn."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest

from schema.actors import Actor, ActorType, acting_user
from schema.ids import PromptId, UserId
from schema.prompts import CreatePromptRequest, CreatePromptVersionRequest, PromptDetail
from schema.result import Err, Ok
from services.prompts.service import PromptRefusal, PromptService, Unusable
from services.resources import Conflict, Unreachable
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.gate_tool import GATE_TOOL
from tests.fixtures.stack import Stack


def name() -> str:
    return f"p{uuid4().hex}"


@pytest.fixture
def prompts(stack: Stack) -> PromptService:
    """The service, with room for 100 tokens in a prompt."""
    return PromptService(stack.foundation.database, max_tokens=100)


@pytest.fixture
def actor(admin: ApiUser) -> Actor:
    """An administrator."""
    return Actor(type=ActorType.ADMIN, user_id=UserId(UUID(admin.id)))


async def new_prompt(prompts: PromptService, actor: Actor, *contents: str) -> PromptDetail:
    """Return a new prompt with these versions."""
    created = await prompts.create(actor, CreatePromptRequest(name=name()), key=None)
    assert isinstance(created, Ok)
    for content in contents:
        request = CreatePromptVersionRequest(content=content)
        assert isinstance(await prompts.add_version(actor, created.value.id, request, key=None), Ok)
    return created.value


async def activations_of(stack: Stack, prompt_id: UUID) -> list[int]:
    rows = await stack.inspection.rows(
        "SELECT number FROM prompt_activations WHERE prompt_id = $1 ORDER BY id", prompt_id
    )
    return [row["number"] for row in rows]


async def test_a_version_is_activated_and_rolled_back(
    prompts: PromptService, actor: Actor, stack: Stack
) -> None:
    prompt = await new_prompt(prompts, actor, "One.", "Two.")

    for number in (2, 1, 1):
        result = await prompts.activate(actor, prompt.id, number)
        assert isinstance(result, Ok)
        assert result.value.active_version == number

    assert await activations_of(stack, prompt.id) == [2, 1]
    read = await prompts.get(actor, prompt.id)
    assert isinstance(read, Ok)
    assert [activation.number for activation in read.value.activations] == [1, 2]
    assert {activation.activated_by for activation in read.value.activations} == {actor.user_id}


@pytest.mark.parametrize("content", ["Hello {nobody}.", "x" * 400])
async def test_a_version_that_could_not_be_used_is_not_activated(
    prompts: PromptService, actor: Actor, stack: Stack, content: str
) -> None:
    prompt = await new_prompt(prompts, actor, "One.", content)
    assert isinstance(await prompts.activate(actor, prompt.id, 1), Ok)

    result = await prompts.activate(actor, prompt.id, 2)

    assert isinstance(result, Err)
    assert isinstance(result.error, Unusable)
    assert len(result.error.problems) == 1
    assert await activations_of(stack, prompt.id) == [1]


async def test_concurrent_activations_are_serialised(
    prompts: PromptService, actor: Actor, stack: Stack
) -> None:
    prompt = await new_prompt(prompts, actor, *(f"Version {number}." for number in range(1, 7)))

    results = await asyncio.gather(
        *(prompts.activate(actor, prompt.id, number) for number in range(1, 7))
    )

    assert all(isinstance(result, Ok) for result in results)
    recorded = await activations_of(stack, prompt.id)
    assert sorted(recorded) == [1, 2, 3, 4, 5, 6]
    left = await prompts.get(actor, prompt.id)
    assert isinstance(left, Ok)
    assert left.value.active_version == recorded[-1]


async def test_versions_at_once_have_numbers_of_their_own(
    prompts: PromptService, actor: Actor
) -> None:
    prompt = await new_prompt(prompts, actor)

    results = await asyncio.gather(
        *(
            prompts.add_version(
                actor, prompt.id, CreatePromptVersionRequest(content=f"{number}"), key=None
            )
            for number in range(6)
        )
    )

    numbers = [result.value.number for result in results if isinstance(result, Ok)]
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6]


async def test_a_name_is_taken_once_and_its_key_may_be_used_again(
    prompts: PromptService, actor: Actor
) -> None:
    request = CreatePromptRequest(name=name(), content="One.")
    key = unique("key")

    first, *others = sorted(
        await asyncio.gather(*(prompts.create(actor, request, key=None) for _ in range(4))),
        key=lambda result: isinstance(result, Err),
    )

    assert isinstance(first, Ok)
    assert others == [Err(PromptRefusal.NAME_TAKEN)] * 3
    assert await prompts.create(actor, request, key=key) == Err(PromptRefusal.NAME_TAKEN)
    other = CreatePromptRequest(name=name())
    assert isinstance(await prompts.create(actor, other, key=key), Ok)


async def test_a_key_creates_one_prompt_and_one_version(
    prompts: PromptService, actor: Actor
) -> None:
    key, version_key = unique("key"), unique("key")
    request = CreatePromptRequest(name=name(), content="One.")
    added = CreatePromptVersionRequest(content="Two.")

    created = await prompts.create(actor, request, key=key)
    assert isinstance(created, Ok)
    prompt_id = created.value.id
    assert await prompts.create(actor, request, key=key) == created
    first = await prompts.add_version(actor, prompt_id, added, key=version_key)
    assert await prompts.add_version(actor, prompt_id, added, key=version_key) == first

    assert isinstance(first, Ok)
    assert first.value.number == 2
    another = await new_prompt(prompts, actor)
    reused = await prompts.add_version(actor, another.id, added, key=version_key)
    assert reused == Err(Conflict.KEY_REUSED)


async def test_missing_resources_raise_not_found(prompts: PromptService, actor: Actor) -> None:
    missing = PromptId(uuid4())
    version = CreatePromptVersionRequest(content="x")

    assert await prompts.get(actor, missing) == Err(Unreachable.MISSING)
    assert await prompts.activate(actor, missing, 1) == Err(Unreachable.MISSING)
    assert await prompts.add_version(actor, missing, version, key=None) == Err(Unreachable.MISSING)
    prompt = await new_prompt(prompts, actor, "One.")
    assert await prompts.activate(actor, prompt.id, 2) == Err(PromptRefusal.NO_SUCH_VERSION)


async def test_every_change_of_a_prompt_is_recorded_without_its_text(
    prompts: PromptService, actor: Actor, stack: Stack
) -> None:
    words = unique("words")
    prompt = await new_prompt(prompts, actor, words)
    await prompts.activate(actor, prompt.id, 1)

    entries = await stack.inspection.rows(
        "SELECT action, details::text FROM audit_log WHERE resource_id = $1 ORDER BY id",
        str(prompt.id),
    )

    assert [entry["action"] for entry in entries] == [
        "prompt.created",
        "prompt.version_created",
        "prompt.activated",
    ]
    assert not any(words in entry["details"] for entry in entries)


async def test_the_text_of_a_version_is_immutable(
    prompts: PromptService, actor: Actor, stack: Stack
) -> None:
    prompt = await new_prompt(prompts, actor, "One.")

    with pytest.raises(Exception, match="append-only"):
        await stack.inspection.execute(
            "UPDATE prompt_versions SET content = 'x' WHERE prompt_id = $1", prompt.id
        )


@dataclass(frozen=True, slots=True)
class Base:
    """The prompt that opens all others."""

    prompts: PromptService
    actor: Actor
    id: PromptId

    async def activate(self, number: int) -> None:
        assert isinstance(await self.prompts.activate(self.actor, self.id, number), Ok)

    async def replace(self, content: str) -> None:
        request = CreatePromptVersionRequest(content=content)
        added = await self.prompts.add_version(self.actor, self.id, request, key=None)
        assert isinstance(added, Ok)
        await self.activate(added.value.number)


@pytest.fixture
async def base(prompts: PromptService, actor: Actor, stack: Stack) -> AsyncIterator[Base]:
    """The base prompt, of which version 1 is active; it is gone after the test."""
    request = CreatePromptRequest(name="base", content="You are the first.")
    created = await prompts.create(actor, request, key=None)
    assert isinstance(created, Ok)
    prompt = Base(prompts, actor, created.value.id)
    try:
        await prompt.activate(1)
        yield prompt
    finally:
        await stack.inspection.execute("DELETE FROM prompts WHERE id = $1", prompt.id)


def system_of(stack: Stack, question: str, number: int = 0) -> list[Any]:
    """Return the system prompt of a model call."""
    body = stack.model.requests_matching(question)[number].body
    assert body is not None
    return list(body["system"])


async def asked(user: ApiUser, stack: Stack) -> tuple[str, str]:
    """Return the opening of the system prompt of a new turn, and the version kept of it."""
    question = unique()
    stack.model.add(Script(match=question, text="Yes."))
    data = await user.ask(await user.create_chat(), question)
    turn = await stack.inspection.value(
        "SELECT prompt ->> 'version' FROM turns WHERE id = $1", UUID(data["turn"]["id"])
    )
    return system_of(stack, question)[0]["text"].splitlines()[0], turn


async def test_without_an_active_version_the_built_in_prompt_serves(
    user: ApiUser, stack: Stack
) -> None:
    opening, version = await asked(user, stack)

    assert opening.startswith("You are a helpful assistant.")
    assert version == "built-in 1"


async def test_an_activation_counts_from_the_very_next_turn(
    user: ApiUser, stack: Stack, base: Base
) -> None:
    assert await asked(user, stack) == ("You are the first.", "base 1")
    await base.replace("You are the second.")
    assert await asked(user, stack) == ("You are the second.", "base 2")
    await base.activate(1)
    assert await asked(user, stack) == ("You are the first.", "base 1")


async def test_a_running_turn_keeps_its_prompt(user: ApiUser, stack: Stack, base: Base) -> None:
    question, gate = unique(), unique("gate")
    call = ToolCall(name=GATE_TOOL, input={"gate": gate})
    stack.model.add(Script(match=question, tool_calls=(call,)))
    stack.model.add(Script(match=question, status=500))
    stack.model.add(Script(match=question, text="Done."))
    chat = await user.create_chat()

    async with user.stream(chat, question) as stream:
        await stack.gate_tool.reached(gate)
        await base.replace("You are another.")
        stack.gate_tool.open(gate)
        await user.check_whole(chat, await stream.all())

    first, failed, second = (system_of(stack, question, number) for number in range(3))
    assert first[0]["text"].startswith("You are the first.")
    assert first == failed == second


async def test_the_date_in_a_prompt_is_that_of_the_user(
    user: ApiUser, stack: Stack, base: Base
) -> None:
    await base.replace("Today is {date}.")
    await stack.inspection.execute(
        "INSERT INTO preferences (user_id, time_zone) VALUES ($1, 'Pacific/Kiritimati')",
        UUID(user.id),
    )

    opening, _ = await asked(user, stack)

    today = await stack.inspection.value(
        "SELECT to_char(now() AT TIME ZONE 'Pacific/Kiritimati', 'YYYY-MM-DD')"
    )
    assert opening.endswith(f", {today}.")


async def test_users_see_which_base_prompt_is_active_but_not_its_text(
    user: ApiUser, stack: Stack, base: Base
) -> None:
    await new_prompt(base.prompts, base.actor, "Secret.")

    async with stack.foundation.database.statements(
        acting_user(UserId(UUID(user.id)))
    ) as connection:
        seen = await connection.fetch("SELECT name, active_version FROM prompts")
        versions = await connection.fetchval("SELECT count(*) FROM prompt_versions")

    assert [tuple(row) for row in seen] == [("base", 1)]
    assert versions == 0
