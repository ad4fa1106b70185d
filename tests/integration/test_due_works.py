"""Works that are due after turns: claimed fairly, done in batches, once, whatever dies or fails."""

import asyncio
import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from schema.after_turn import AfterTurnInput, BatchOutcome, NotDone, WorkOutcome
from schema.ids import TurnId
from schema.names import BACKGROUND_QUEUE, WORK_BATCH, Work
from services.due_works import MOST_FAILURES, Batch, Done, DueWork, Ended
from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import PASSWORD, ApiUser, unique
from tests.fixtures.due_works import Queue, reference_of, works_due_after
from tests.fixtures.stack import Stack

TITLE, MEMORIES, SUMMARY = Work.TITLE_CHAT, Work.EXTRACT_MEMORIES, Work.COMPACT_CHAT


class Chatter:
    """Users whose turns are followed by works, and a model that does them."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    async def ask(self, user: ApiUser, *scripts: Script) -> tuple[str, TurnId]:
        """Ask a question in a chat without a title; return the chat and the turn."""
        created = await user.request("POST", "/chats", json={})
        chat, said = str(created.json()["data"]["id"]), unique("said")
        for script in (Script(text="Take a train."), *scripts):
            self.stack.model.add(script.model_copy(update={"match": said}))
        answered = await user.ask(chat, f"How do I get to Rome? ({said})")
        return chat, TurnId(UUID(answered["turn"]["id"]))

    async def title(self, user: ApiUser, chat: str) -> str | None:
        found: str | None = (await user.request("GET", f"/chats/{chat}")).json()["data"]["title"]
        return found

    async def run_batch(self) -> tuple[BatchOutcome, str]:
        """Run what the worker starts; return what it did, and its workflow."""
        workflow_id = unique("batch")
        outcome: BatchOutcome = await self.stack.temporal.execute_workflow(
            WORK_BATCH, id=workflow_id, task_queue=BACKGROUND_QUEUE, result_type=BatchOutcome
        )
        return outcome, workflow_id


@pytest.fixture
def chatter(queue: Queue) -> Chatter:
    return Chatter(queue.stack)


ROME = Script(text="Trip to Rome")


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let batches end with their last work, and postpone nothing for long."""
    monkeypatch.setattr("services.due_works._LINGER_S", 0.0)
    monkeypatch.setattr("services.due_works._LEAST_PAUSE", timedelta())
    monkeypatch.setattr("services.due_works._LONGEST_PAUSE", timedelta())


@pytest.mark.usefixtures("hurried")
async def test_a_batch_does_the_works_of_many_turns_and_says_what_it_did(
    queue: Queue, chatter: Chatter, user: ApiUser, other_user: ApiUser
) -> None:
    chats = [(each, *await chatter.ask(each, ROME)) for each in (user, other_user, user)]

    outcome, workflow_id = await chatter.run_batch()

    assert [await chatter.title(each, chat) for each, chat, _ in chats] == ["Trip to Rome"] * 3
    charges = [
        charge
        for _, _, turn_id in chats
        for charge in await queue.stack.inspection.charges(str(turn_id))
        if charge["kind"] == "title"
    ]
    assert [charge["status"] for charge in charges] == ["settled"] * 3
    assert outcome == BatchOutcome(
        done={TITLE: 3}, stored={TITLE: 3}, cost_usd=sum(charge["cost_usd"] for charge in charges)
    )
    assert await queue.rows() == []
    handle = queue.stack.temporal.get_workflow_handle(workflow_id)
    metadata: Any = await handle.query("__temporal_workflow_metadata")
    details = getattr(metadata, "current_details", None) or metadata["currentDetails"]
    assert details == (f"title chat: 3 done, 3 stored\n\n{outcome.cost_usd.normalize():f} USD")
    history = (await handle.fetch_history()).to_json()
    assert "Rome" not in history
    assert len(json.loads(history)["events"]) <= 13


@pytest.mark.usefixtures("hurried")
async def test_a_provider_that_fails_for_a_while_delays_works_and_no_others(
    queue: Queue, chatter: Chatter, user: ApiUser
) -> None:
    failing = Script(status=529, retry_after=0.0)
    delayed, delayed_turn = await chatter.ask(user, failing, failing, ROME)
    prompt, _ = await chatter.ask(user, ROME)

    outcome, _ = await chatter.run_batch()

    assert [await chatter.title(user, chat) for chat in (delayed, prompt)] == ["Trip to Rome"] * 2
    assert (outcome.done, outcome.failures) == ({TITLE: 2}, {"overloaded": 2})
    charges = await queue.stack.inspection.charges(str(delayed_turn))
    titles = [charge["status"] for charge in charges if charge["kind"] == "title"]
    assert titles == ["failed", "failed", "settled"]


@pytest.mark.usefixtures("hurried")
async def test_a_provider_that_keeps_failing_is_asked_three_times(
    queue: Queue, chatter: Chatter, user: ApiUser
) -> None:
    chat, _ = await chatter.ask(user, Script(status=529, retry_after=0.0, repeat=9))

    outcome, workflow_id = await chatter.run_batch()

    assert str(await chatter.title(user, chat)).startswith("How do I get to Rome?")
    assert outcome.problems == {NotDone.GAVE_UP: 1}
    assert outcome.failures == {"overloaded": 3}
    assert await queue.rows() == []
    history = (
        await queue.stack.temporal.get_workflow_handle(workflow_id).fetch_history()
    ).to_json()
    assert "Rome" not in history


@pytest.mark.usefixtures("hurried")
async def test_a_defect_of_one_work_is_given_up_after_five_attempts_and_alerts(
    queue: Queue, chatter: Chatter, user: ApiUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, _ = await chatter.ask(user)
    whole, _ = await chatter.ask(user, ROME)
    (row, _) = await queue.rows()
    activities = queue.stack.activities.after_turn
    service = activities._services[TITLE]
    tried: list[TurnId] = []

    async def title(turn: Any) -> WorkOutcome:  # noqa: ANN401 -- a reference
        if turn.turn_id != row["turn_id"]:
            return await service.attempt(turn)
        tried.append(turn.turn_id)
        raise ZeroDivisionError

    monkeypatch.setitem(activities._services, TITLE, service._replace(attempt=title))

    outcome, _ = await chatter.run_batch()

    assert len(tried) == MOST_FAILURES
    assert outcome.failures == {"ZeroDivisionError": MOST_FAILURES}
    assert outcome.done == {TITLE: 2}
    assert await chatter.title(user, whole) == "Trip to Rome"
    assert str(await chatter.title(user, broken)).startswith("How do I get to Rome?")
    assert await queue.stack.inspection.value(
        "SELECT count(*) FROM alerts WHERE details @> $1::jsonb",
        json.dumps({"activity": "title_chat", "error": "ZeroDivisionError"}),
    )


async def test_a_work_that_is_a_day_old_is_given_up(
    queue: Queue, chatter: Chatter, user: ApiUser
) -> None:
    chat, turn_id = await chatter.ask(user)
    due = DueWork(TITLE, await reference_of(queue.stack, turn_id), 0, timedelta(hours=25))

    ended = await queue.stack.activities.after_turn.attempt(due)

    assert isinstance(ended, Done)
    assert ended.outcome.problem is NotDone.GAVE_UP
    assert str(await chatter.title(user, chat)).startswith("How do I get to Rome?")


async def test_a_batch_that_is_stopped_leaves_its_works_to_others_at_once(
    queue: Queue, user: ApiUser
) -> None:
    turns = await queue.due(user, TITLE, turns=3)
    begun: asyncio.Queue[DueWork] = asyncio.Queue()

    async def attempt(due: DueWork) -> Ended:
        await begun.put(due)
        if due.turn.turn_id == turns[0]:
            return Done(WorkOutcome(stored=1))
        await asyncio.Event().wait()
        raise AssertionError

    running = asyncio.create_task(
        Batch(queue.works, attempt, BatchOutcome()).run(is_ending=lambda: False)
    )
    async with asyncio.timeout(10):
        for _ in turns:
            await begun.get()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    left = await queue.claim(title_chat=8)
    assert {due.turn.turn_id for due in left} >= set(turns[1:])
    assert [due.failures for due in left] == [0] * len(left)


async def test_a_worker_that_shuts_down_ends_what_it_does_and_claims_no_more(
    queue: Queue, user: ApiUser
) -> None:
    turns = await queue.due(user, TITLE, turns=9)
    is_ending, done = False, list[TurnId]()

    async def attempt(due: DueWork) -> Ended:
        nonlocal is_ending
        is_ending = True
        done.append(due.turn.turn_id)
        return Done(WorkOutcome(stored=1))

    batch = Batch(queue.works, attempt, BatchOutcome(done={TITLE: 5}, stored={TITLE: 5}))
    await batch.run(is_ending=lambda: is_ending)

    assert sorted(done) == turns[:8]
    assert batch.outcome.done == {TITLE: 13}
    assert [row["turn_id"] for row in await queue.rows()] == turns[8:]


@pytest.mark.parametrize("gone", ["chat", "user"])
async def test_what_is_due_goes_with_its_chat_and_its_user(
    queue: Queue, chatter: Chatter, user: ApiUser, gone: str
) -> None:
    chat, turn_id = await chatter.ask(user)
    assert await works_due_after(queue.stack, turn_id) == [TITLE]

    if gone == "chat":
        deleted = await user.request("DELETE", f"/chats/{chat}")
    else:
        deleted = await user.request("DELETE", "/users/me", json={"currentPassword": PASSWORD})

    assert deleted.status_code == 204
    assert await queue.rows() == []


@pytest.mark.usefixtures("hurried")
async def test_a_chat_that_is_deleted_while_its_title_is_asked_ends_the_work(
    queue: Queue, chatter: Chatter, user: ApiUser
) -> None:
    gate = unique("gate")
    chat, turn_id = await chatter.ask(user, ROME.model_copy(update={"hold": gate}))
    asked = len(queue.stack.model.requests)
    batch = asyncio.create_task(chatter.run_batch())
    await queue.stack.model.wait_until(lambda: len(queue.stack.model.requests) > asked)

    await user.request("DELETE", f"/chats/{chat}")
    queue.stack.model.release(gate)

    outcome, _ = await batch
    assert (outcome.done, outcome.stored) == ({TITLE: 1}, {TITLE: 0})
    charges = await queue.stack.inspection.charges(str(turn_id))
    assert [charge["status"] for charge in charges if charge["kind"] == "title"] == ["settled"]


async def test_a_turn_that_is_stopped_leaves_nothing_due(queue: Queue, user: ApiUser) -> None:
    created = await user.request("POST", "/chats", json={})
    chat, said = str(created.json()["data"]["id"]), unique("said")
    queue.stack.model.add(Script(pieces=("Take", " a train."), hold=said, hold_after=1, match=said))
    async with user.stream(chat, said) as stream:
        await stream.until_text("Take")
        await user.request("POST", f"/turns/{stream.turn_id}/cancel")
        await stream.all()

    assert await queue.rows() == []


async def test_a_run_that_the_release_before_started_ends(
    queue: Queue, chatter: Chatter, user: ApiUser
) -> None:
    chat, turn_id = await chatter.ask(user, ROME)
    turn = await reference_of(queue.stack, turn_id)

    outcomes: dict[Work, WorkOutcome] = await queue.stack.temporal.execute_workflow(
        "AfterTurn",
        AfterTurnInput(turn=turn, works=(TITLE,)),
        id=f"after-{turn_id}",
        task_queue=BACKGROUND_QUEUE,
        result_type=dict[Work, WorkOutcome],
    )

    assert outcomes[TITLE].stored == 1
    assert await chatter.title(user, chat) == "Trip to Rome"
