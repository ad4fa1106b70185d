"""What goes wrong while a turn is read: a slow model, a second process, chats and users deleted."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from schema.after_turn import NotDone, WorkOutcome
from services.auth.accounts import AccountCache
from services.background_calls import MAX_ATTEMPTS
from services.memories.search import MemorySearch
from services.memories.suggestions import MemorySuggestions
from services.memory_extraction import extractor
from services.memory_extraction.extractor import MemoryExtractor
from services.memory_extraction.service import MemoryExtraction
from services.models.failures import ModelCallError
from services.models.gateway import ModelGateway
from services.shielding import DefectError
from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import PASSWORD, unique
from tests.fixtures.learning import Learner, note, noted
from tests.fixtures.stack import Stack

LISBON = Script(text=noted(note("Lives in Lisbon.", "I moved to Lisbon")))
SAID = "I moved to Lisbon."


@pytest.fixture
async def gateway(stack: Stack) -> AsyncIterator[ModelGateway]:
    """A gateway to the stack's model."""
    opened = ModelGateway(
        api_key="test",
        base_url=stack.settings.anthropic_base_url,
        idle_timeout_s=20,
        answer_timeout_s=20,
        connections=4,
    )
    yield opened
    await opened.close()


@pytest.fixture
def extraction(stack: Stack, gateway: ModelGateway) -> MemoryExtraction:
    """An extraction as a worker has it."""
    return reading(stack, gateway)


def reading(
    stack: Stack, gateway: ModelGateway, *, timeout: timedelta = timedelta(seconds=20)
) -> MemoryExtraction:
    foundation = stack.foundation
    database, embedder = foundation.database, foundation.embedder
    return MemoryExtraction(
        database,
        MemoryExtractor(gateway, model="claude-haiku-5-5", timeout=timeout),
        foundation.pricing,
        search=MemorySearch(database, embedder),
        suggestions=MemorySuggestions(database, embedder, AccountCache(database, lifetime_s=0)),
        events=foundation.events,
    )


@pytest.fixture
async def quiet(stack: Stack) -> Learner:
    """A new user of the stack that learns only where a test has it read a turn."""
    return Learner(stack, await stack.sign_up())


async def statuses(learner: Learner, turn_id: Any) -> Sequence[str]:  # noqa: ANN401 -- an id
    return [charge["status"] for charge in await learner.charges(turn_id)]


async def test_a_model_that_takes_too_long_is_left(quiet: Learner, gateway: ModelGateway) -> None:
    turn_id = await quiet.tell(SAID, Script(text="{", hold=unique("gate"), hold_after=1))
    slow = reading(quiet.stack, gateway, timeout=timedelta(seconds=0.5))

    with pytest.raises(ModelCallError) as failed:
        await slow.extract(await quiet.reference(turn_id))

    [charge] = await quiet.charges(turn_id)
    assert not failed.value.exhausted
    assert (charge["status"], charge["estimated"]) == ("failed", True)
    assert charge["cost_usd"] > 0


async def test_each_failure_counts_and_the_last_one_is_final(
    quiet: Learner, extraction: MemoryExtraction
) -> None:
    turn_id = await quiet.tell(SAID, Script(status=529, repeat=MAX_ATTEMPTS))
    turn = await quiet.reference(turn_id)

    ends: list[bool] = []
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(ModelCallError) as failed:
            await extraction.extract(turn)
        ends.append(failed.value.exhausted)

    assert ends == [False] * (MAX_ATTEMPTS - 1) + [True]
    assert (await extraction.extract(turn)).problem is NotDone.GAVE_UP


async def test_a_turn_that_was_read_is_not_paid_for_again(
    quiet: Learner, extraction: MemoryExtraction
) -> None:
    turn_id = await quiet.tell(SAID, LISBON)
    turn = await quiet.reference(turn_id)

    first = await extraction.extract(turn)
    again = await extraction.extract(turn)

    assert first == again
    assert first.stored == 1
    assert await statuses(quiet, turn_id) == ["settled"]
    assert len(await quiet.memories()) == 1


async def test_a_process_that_died_is_paid_for_and_another_takes_over(
    quiet: Learner, extraction: MemoryExtraction
) -> None:
    turn_id = await quiet.tell(SAID, Script(text="{", hold=unique("gate"), hold_after=1), LISBON)
    turn = await quiet.reference(turn_id)
    dead = asyncio.create_task(extraction.extract(turn))

    seen = len(quiet.stack.model.requests)
    await quiet.stack.model.wait_until(lambda: len(quiet.stack.model.requests) > seen)
    assert await statuses(quiet, turn_id) == ["open"]
    outcome = await extraction.extract(turn)

    assert outcome.stored == 1
    assert await statuses(quiet, turn_id) == ["lost", "settled"]
    dead.cancel()
    await asyncio.gather(dead, return_exceptions=True)
    assert await statuses(quiet, turn_id) == ["cancelled", "settled"]
    assert len(await quiet.memories()) == 1


async def test_an_attempt_that_is_stopped_is_settled(
    quiet: Learner, extraction: MemoryExtraction
) -> None:
    turn_id = await quiet.tell(SAID, Script(text="{", hold=unique("gate"), hold_after=1))
    running = asyncio.create_task(extraction.extract(await quiet.reference(turn_id)))
    seen = len(quiet.stack.model.requests)
    await quiet.stack.model.wait_until(lambda: len(quiet.stack.model.requests) > seen)

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert await statuses(quiet, turn_id) == ["cancelled"]


async def test_what_the_last_attempt_left_open_is_settled_in_the_end(
    quiet: Learner, extraction: MemoryExtraction
) -> None:
    turn_id = await quiet.tell(SAID)
    turn = await quiet.reference(turn_id)
    await quiet.stack.inspection.execute(
        "INSERT INTO ledger (id, user_id, turn_id, step, attempt, kind, model, status, "
        "estimated) VALUES ($1, $2, $3, 0, 1, 'extraction', 'claude-haiku-5-5', 'open', true)",
        *(uuid4(), turn.user_id, turn_id),
    )

    outcome = await extraction.give_up(turn)

    assert outcome.problem is NotDone.GAVE_UP
    assert await statuses(quiet, turn_id) == ["lost"]


async def test_a_defect_is_charged_and_bounded(
    quiet: Learner, extraction: MemoryExtraction, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn_id = await quiet.tell(SAID, *[LISBON] * MAX_ATTEMPTS)
    turn = await quiet.reference(turn_id)

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(extractor, "read_suggestions", broken)
    ends: list[bool] = []
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(DefectError) as failed:
            await extraction.extract(turn)
        ends.append(failed.value.exhausted)

    assert ends == [False] * (MAX_ATTEMPTS - 1) + [True]
    charges = await quiet.charges(turn_id)
    assert [charge["status"] for charge in charges] == ["failed"] * MAX_ATTEMPTS
    assert all(charge["output_tokens"] > 0 for charge in charges)


@pytest.mark.parametrize("gone", ["chat", "user"])
async def test_what_is_deleted_while_it_is_read_leaves_nothing(
    quiet: Learner, extraction: MemoryExtraction, gone: str
) -> None:
    gate, chat = unique("gate"), await quiet.user.create_chat()
    turn_id = await quiet.tell(SAID, LISBON.model_copy(update={"hold": gate}), chat=chat)
    turn = await quiet.reference(turn_id)
    seen = len(quiet.stack.model.requests)
    running = asyncio.create_task(extraction.extract(turn))
    await quiet.stack.model.wait_until(lambda: len(quiet.stack.model.requests) > seen)

    if gone == "chat":
        deleted = await quiet.user.request("DELETE", f"/chats/{chat}")
    else:
        deleted = await quiet.user.request(
            "DELETE", "/users/me", json={"currentPassword": PASSWORD}
        )
    assert deleted.status_code == 204
    quiet.stack.model.release(gate)

    outcome = await running
    assert outcome.stored == 0
    # The ledger outlives chats, and ends with its user.
    assert await statuses(quiet, turn_id) == (["settled"] if gone == "chat" else [])
    assert (
        await quiet.stack.inspection.value(
            "SELECT count(*) FROM memories WHERE user_id = $1", turn.user_id
        )
        == 0
    )


async def test_a_turn_that_is_gone_is_not_read(
    quiet: Learner, extraction: MemoryExtraction
) -> None:
    turn_id = await quiet.tell(SAID)
    turn = await quiet.reference(turn_id)
    await quiet.user.request("DELETE", f"/chats/{turn.chat_id}")

    outcome = await extraction.extract(turn)

    assert outcome == WorkOutcome(problem=NotDone.GONE)
