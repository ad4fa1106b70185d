"""Titles of chats: from a model after the first answer, in nobody's way, never over a person's."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import pytest

from schema.after_turn import NotDone, WorkOutcome
from schema.ids import TurnId
from schema.names import Work
from services.models.gateway import ModelGateway
from services.titles import ChatTitles
from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.budgets import store_limits
from tests.fixtures.due_works import do_works_after, reference_of, works_due_after
from tests.fixtures.stack import Stack

ANSWER = Script(text="Take a train.")
ROME = Script(text='"Trip to Rome."')


class Namer:
    """A user whose chats have no title."""

    def __init__(self, stack: Stack, user: ApiUser) -> None:
        self.stack = stack
        self.user = user

    async def chat(self) -> str:
        created = await self.user.request("POST", "/chats", json={})
        assert created.status_code == 201, created.text
        assert created.json()["data"]["title"] is None
        return str(created.json()["data"]["id"])

    async def ask(self, chat: str, content: str, *scripts: Script) -> TurnId:
        """Ask a question that no other test asks, and return its turn."""
        said = unique("said")
        for script in scripts:
            self.stack.model.add(script.model_copy(update={"match": said}))
        answered = await self.user.ask(chat, f"{content} ({said})")
        return TurnId(UUID(answered["turn"]["id"]))

    async def outcome(self, turn_id: TurnId) -> WorkOutcome:
        return (await do_works_after(self.stack, turn_id))[Work.TITLE_CHAT]

    async def title(self, chat: str) -> str | None:
        found: str | None = (await self.read(chat))["title"]
        return found

    async def read(self, chat: str) -> dict[str, Any]:
        read: dict[str, Any] = (await self.user.request("GET", f"/chats/{chat}")).json()["data"]
        return read

    async def charges(self, turn_id: TurnId) -> Sequence[str]:
        rows = await self.stack.inspection.charges(str(turn_id))
        return [row["status"] for row in rows if row["kind"] == "title"]


@pytest.fixture
async def namer(stack: Stack) -> AsyncIterator[Namer]:
    """A new user of the stack."""
    yield Namer(stack, await stack.sign_up())
    stack.model.clear_scripts()


@pytest.fixture
async def titles(stack: Stack) -> AsyncIterator[ChatTitles]:
    """What a worker names chats with."""
    gateway = ModelGateway(
        api_key="test",
        base_url=stack.settings.anthropic_base_url,
        idle_timeout_s=20,
        answer_timeout_s=20,
        connections=4,
    )
    foundation = stack.foundation
    yield ChatTitles(
        foundation.database,
        gateway,
        foundation.pricing,
        foundation.events,
        model="claude-haiku-5-5",
    )
    await gateway.close()


async def test_a_chat_is_named_after_its_first_answer_and_only_then(namer: Namer) -> None:
    chat = await namer.chat()
    before = await namer.read(chat)

    first = await namer.ask(chat, "How do I get to Rome?", ANSWER, ROME)

    outcome = await namer.outcome(first)
    named = await namer.read(chat)
    assert (outcome.stored, outcome.problem) == (1, None)
    assert outcome.cost_usd > 0
    assert named["title"] == "Trip to Rome"
    assert named["version"] > before["version"]
    assert await namer.charges(first) == ["settled"]
    turn = (await namer.user.request("GET", f"/turns/{first}")).json()["data"]
    used = (await namer.user.request("GET", "/subscription/usage")).json()["data"]
    assert float(used["costUsd"]) == pytest.approx(float(turn["costUsd"]) + float(outcome.cost_usd))

    second = await namer.ask(chat, "And back?", ANSWER)
    assert await works_due_after(namer.stack, second) == []


async def test_a_title_that_a_person_gives_meanwhile_stays(namer: Namer) -> None:
    chat, gate = await namer.chat(), unique("gate")
    seen = len(namer.stack.model.requests)
    turn = await namer.ask(
        chat, "How do I get to Rome?", ANSWER, ROME.model_copy(update={"hold": gate})
    )
    naming = asyncio.create_task(namer.outcome(turn))
    await namer.stack.model.wait_until(lambda: len(namer.stack.model.requests) >= seen + 2)

    renamed = await namer.user.request("PATCH", f"/chats/{chat}", json={"title": "Mine"})
    assert renamed.status_code == 200
    namer.stack.model.release(gate)

    assert (await naming).stored == 0
    assert await namer.title(chat) == "Mine"


@pytest.mark.parametrize(
    ("naming", "problem", "charges"),
    [
        (Script(status=500, retry_after=0.0, repeat=3), NotDone.GAVE_UP, ["failed"] * 3),
        (Script(text="Rome is in Italy.\nIt is large."), NotDone.UNUSABLE, ["settled"]),
        (Script(text="", stop_reason="refusal"), NotDone.UNUSABLE, ["settled"]),
    ],
    ids=["failing", "an answer", "a refusal"],
)
async def test_without_a_usable_answer_the_first_words_are_the_title(
    namer: Namer, naming: Script, problem: NotDone, charges: list[str]
) -> None:
    chat = await namer.chat()

    turn = await namer.ask(chat, "How do I get to **Rome**?", ANSWER, naming)

    outcome = await namer.outcome(turn)
    assert (outcome.stored, outcome.problem) == (1, problem)
    assert str(await namer.title(chat)).startswith("How do I get to Rome? (")
    assert await namer.charges(turn) == charges


async def test_without_a_budget_the_first_words_are_the_title(namer: Namer) -> None:
    chat, gate, user = await namer.chat(), unique("gate"), namer.user
    namer.stack.model.add(Script(pieces=("Take", " a train."), hold=gate, hold_after=1, match=gate))
    async with user.stream(chat, f"How? {gate}") as stream:
        await stream.until_text("Take")
        await store_limits(namer.stack.inspection, user.id, daily_budget_tokens=1)
        namer.stack.model.release(gate)
        await stream.all()

    outcome = await namer.outcome(TurnId(UUID(stream.turn_id)))

    assert (outcome.stored, outcome.problem) == (1, NotDone.NO_BUDGET)
    assert str(await namer.title(chat)).startswith("How?")


async def test_a_refused_answer_names_nothing_and_the_next_one_does(namer: Namer) -> None:
    chat = await namer.chat()

    refused = await namer.ask(chat, "Be evil.", Script(text="No.", stop_reason="refusal"))
    assert (await namer.outcome(refused)).problem is NotDone.REFUSED
    assert await namer.title(chat) is None

    second = await namer.ask(chat, "How do I get to Rome?", ANSWER, ROME)
    await namer.outcome(second)
    assert await namer.title(chat) == "Trip to Rome"


async def test_a_process_that_died_is_paid_for_and_another_takes_over(
    namer: Namer, titles: ChatTitles
) -> None:
    chat = await namer.chat()
    renamed = await namer.user.request("PATCH", f"/chats/{chat}", json={"title": "Mine"})
    assert renamed.status_code == 200
    held = Script(text="{", hold=unique("gate"), hold_after=1)
    turn_id = await namer.ask(chat, "How do I get to Rome?", ANSWER, held, ROME)
    await namer.stack.inspection.execute("UPDATE chats SET title = '' WHERE id = $1", UUID(chat))
    turn = await reference_of(namer.stack, turn_id)
    seen = len(namer.stack.model.requests)
    dead = asyncio.create_task(titles.title(turn))
    await namer.stack.model.wait_until(lambda: len(namer.stack.model.requests) > seen)

    outcome = await titles.title(turn)

    assert outcome.stored == 1
    assert await namer.charges(turn_id) == ["lost", "settled"]
    dead.cancel()
    await asyncio.gather(dead, return_exceptions=True)
    assert await namer.charges(turn_id) == ["cancelled", "settled"]
    assert await namer.title(chat) == "Trip to Rome"
    assert (await titles.title(turn)).problem is NotDone.HAS_TITLE


@pytest.mark.parametrize(
    "body", [{"title": ""}, {"title": " \n"}, {"title": "x" * 201}, {"title": 7}, {"titel": "x"}]
)
async def test_a_title_that_is_none_is_refused(user: ApiUser, body: dict[str, object]) -> None:
    refused = await user.request("POST", "/chats", json=body)

    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "VALIDATION_ERROR"


async def test_untitled_chats_are_listed_and_searched(user: ApiUser) -> None:
    untitled = (await user.request("POST", "/chats", json={"title": None})).json()["data"]["id"]
    titled = await user.create_chat("Rome")

    listed = (await user.request("GET", "/chats?sort=title")).json()["data"]
    found = (await user.request("GET", "/chats?search=rome")).json()["data"]
    exported = (await user.request("GET", "/users/me/export")).json()

    assert [(chat["id"], chat["title"]) for chat in listed] == [(untitled, None), (titled, "Rome")]
    assert [chat["id"] for chat in found] == [titled]
    assert {chat["title"] for chat in exported["data"]["chats"]} == {None, "Rome"}
