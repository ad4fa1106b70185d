"""After a turn: what its user said is suggested, once, for its price, and in nobody's way."""

import asyncio
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from schema.after_turn import NotDone
from schema.ids import TurnId
from schema.turns import FinishTurnInput, TurnStatus
from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.budgets import store_limits
from tests.fixtures.due_works import works_due_after
from tests.fixtures.learning import Learner, note, noted
from tests.fixtures.stack import Stack

LISBON = note("Lives in Lisbon.", "I moved to Lisbon", importance=0.7)


async def usage(user: ApiUser) -> dict[str, Any]:
    response = await user.request("GET", "/subscription/usage")
    found: dict[str, Any] = response.json()["data"]
    return found


async def test_what_a_user_says_is_suggested_with_its_passage(learner: Learner) -> None:
    turn_id = await learner.tell("Hi! I moved to Lisbon.", Script(text=noted(LISBON)))

    outcome = await learner.outcome(turn_id)

    [suggested] = await learner.memories()
    assert (outcome.stored, outcome.problem) == (1, None)
    assert (suggested["content"], suggested["passage"]) == ("Lives in Lisbon.", "I moved to Lisbon")
    assert (suggested["status"], suggested["sourceTurnId"]) == ("suggested", str(turn_id))


async def test_reading_a_turn_delays_neither_its_end_nor_the_next_one(learner: Learner) -> None:
    chat, gate = await learner.user.create_chat(), unique("gate")
    held = Script(text=noted(LISBON), hold=gate)

    first = await learner.tell("I moved to Lisbon.", held, chat=chat)
    reading = asyncio.create_task(learner.outcome(first))
    await learner.tell("What a day it was.", Script(text=noted()), chat=chat)
    assert await learner.memories() == []
    learner.stack.model.release(gate)

    assert (await reading).stored == 1


async def test_it_costs_what_it_costs_and_the_turn_does_not(learner: Learner) -> None:
    turn_id = await learner.tell("I moved to Lisbon.", Script(text=noted(LISBON)))

    outcome = await learner.outcome(turn_id)

    [charge] = await learner.charges(turn_id)
    record = learner.stack.model.requests[-1]
    assert (charge["status"], charge["step"], charge["attempt"]) == ("settled", 0, 1)
    assert charge["input_tokens"] == record.usage.input_tokens
    assert charge["output_tokens"] == record.usage.output_tokens
    assert outcome.cost_usd == charge["cost_usd"] > 0
    turn = (await learner.user.request("GET", f"/turns/{turn_id}")).json()["data"]
    used = await usage(learner.user)
    assert used["turns"] == 1
    assert Decimal(used["costUsd"]) == Decimal(turn["costUsd"]) + charge["cost_usd"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("There is nothing to note, but it was a nice talk.", 0),
        (noted(LISBON).removesuffix("]}") + ', {"content": "Li', 1),
        (f"Here you are:\n```json\n{noted(LISBON)}\n```", 1),
        (noted(*[note(f"Is number {n} of many.", "I moved to Lisbon") for n in range(1000)]), 10),
        (noted(note("Loves jazz.", "I love jazz")), 0),
    ],
    ids=["prose", "half JSON", "JSON in prose", "a thousand", "another's words"],
)
async def test_whatever_the_model_says_is_read_within_bounds(
    learner: Learner, answer: str, expected: int
) -> None:
    # Notes that differ by a number alone would be near-duplicates for a vector.
    turn_id = await learner.tell(
        "I moved to Lisbon. My friend Bob says: I love jazz", Script(text=answer)
    )

    outcome = await learner.outcome(turn_id)

    assert outcome.stored in ({expected} if expected < 2 else set(range(1, expected + 1)))
    assert len(await learner.charges(turn_id)) == 1


async def test_a_refusal_suggests_nothing(learner: Learner) -> None:
    turn_id = await learner.tell(
        "I moved to Lisbon.", Script(text=noted(LISBON), stop_reason="refusal")
    )

    assert (await learner.outcome(turn_id)).stored == 0


async def test_a_provider_that_takes_no_schema_is_asked_in_words(learner: Learner) -> None:
    refused = Script(status=400, message="output_config.format: Extra inputs are not permitted")

    turn_id = await learner.tell("I moved to Lisbon.", refused, Script(text=noted(LISBON)))

    assert (await learner.outcome(turn_id)).stored == 1
    assert [charge["status"] for charge in await learner.charges(turn_id)] == ["settled"]


async def test_a_provider_that_keeps_failing_ends_it_quietly(learner: Learner) -> None:
    failing = Script(status=500, retry_after=0.0, repeat=3)

    turn_id = await learner.tell("I moved to Lisbon.", failing)

    outcome = await learner.outcome(turn_id)
    charges = await learner.charges(turn_id)
    assert (outcome.problem, outcome.cost_usd) == (NotDone.GAVE_UP, Decimal(0))
    assert [charge["status"] for charge in charges] == ["failed", "failed", "failed"]
    turn = (await learner.user.request("GET", f"/turns/{turn_id}")).json()["data"]
    assert turn["status"] == "completed"


async def test_a_contradiction_is_suggested_as_a_replacement(learner: Learner) -> None:
    created = await learner.user.request("POST", "/memories", json={"content": "Lives in Berlin."})
    berlin = created.json()["data"]["id"]

    turn_id = await learner.tell(
        "I moved to Lisbon.", Script(text=noted({**LISBON, "replaces": 1}))
    )

    await learner.outcome(turn_id)
    [suggested] = await learner.memories()
    assert suggested["replacesId"] == berlin
    shown = str(learner.stack.model.requests[-1].body)
    assert '<memory number="1">Lives in Berlin.</memory>' in shown


async def test_users_may_have_suggestions_accepted_at_once(learner: Learner) -> None:
    await learner.user.request("PUT", "/users/me/preferences", json={"autoAcceptMemories": True})

    turn_id = await learner.tell("I moved to Lisbon.", Script(text=noted(LISBON)))

    await learner.outcome(turn_id)
    assert [memory["content"] for memory in await learner.memories("status=accepted")] == [
        "Lives in Lisbon."
    ]


@pytest.mark.parametrize("switch", ["extractMemories", "useMemories"])
async def test_users_may_switch_it_off(learner: Learner, switch: str) -> None:
    await learner.user.request("PUT", "/users/me/preferences", json={switch: False})

    turn_id = await learner.tell("I moved to Lisbon.")

    assert await works_due_after(learner.stack, turn_id) == []


async def test_a_user_who_switches_it_off_before_a_turn_is_read_is_heeded(learner: Learner) -> None:
    turn_id = await learner.tell("I moved to Lisbon.")
    await learner.user.request("PUT", "/users/me/preferences", json={"extractMemories": False})

    assert (await learner.outcome(turn_id)).problem is NotDone.NOT_WANTED
    assert await learner.charges(turn_id) == []


async def test_nothing_is_asked_that_no_budget_pays_for(learner: Learner) -> None:
    said, user, model = unique("said"), learner.user, learner.stack.model
    begun = Script(pieces=("I", " see."), hold=said, hold_after=1)
    learner.answer_by(said, begun, Script(text=noted(LISBON)))
    async with user.stream(await user.create_chat(), f"({said}) I moved to Lisbon.") as stream:
        await stream.until_text("I")
        await store_limits(learner.stack.inspection, user.id, daily_budget_tokens=1)
        model.release(said)
        events = await stream.all()
    outcome = await learner.outcome(TurnId(UUID(stream.turn_id)))

    assert events[-1].data["status"] == "completed"
    assert outcome.problem is NotDone.NO_BUDGET
    assert await learner.charges(TurnId(UUID(stream.turn_id))) == []


async def test_operators_may_switch_it_off(stack: Stack, user: ApiUser) -> None:
    said = unique("I moved to Lisbon.")
    stack.model.add(Script(match=said, text="I see."))
    answered = await user.ask(await user.create_chat(), said)
    turn_id = TurnId(UUID(answered["turn"]["id"]))

    assert await works_due_after(stack, turn_id) == []


async def test_nothing_is_asked_where_the_user_says_nothing_themselves(learner: Learner) -> None:
    said = unique("quoted")
    learner.answer_by(said, Script(text="I see."))
    answered = await learner.user.ask(await learner.user.create_chat(), f"> I love jazz {said}")

    outcome = await learner.outcome(TurnId(UUID(answered["turn"]["id"])))

    assert outcome.problem is NotDone.NOTHING_SAID


async def test_a_failed_turn_is_not_read(learner: Learner) -> None:
    said = unique("I moved to Lisbon.")
    learner.answer_by(said, Script(status=400))
    answered = await learner.user.post(await learner.user.create_chat(), said)
    assert answered.status_code == 502
    turn_id = await learner.stack.inspection.value(
        "SELECT id FROM turns WHERE user_id = $1", UUID(learner.user.id)
    )

    assert await works_due_after(learner.stack, turn_id) == []


async def test_a_question_that_is_answered_again_is_not_read_again(learner: Learner) -> None:
    said = unique("I moved to Lisbon.")
    learner.answer_by(said, Script(text="I see."), Script(text=noted(LISBON)))
    answered = await learner.user.ask(await learner.user.create_chat(), said)
    first = TurnId(UUID(answered["turn"]["id"]))
    await learner.outcome(first)
    learner.answer_by(said, Script(text="Oh, I see."))

    again = await learner.user.request("POST", f"/turns/{first}/regenerate", json={})

    second = TurnId(UUID(again.json()["data"]["turn"]["id"]))
    assert (await learner.outcome(second)).problem is NotDone.READ_BEFORE
    assert len(await learner.memories()) == 1


async def test_a_turn_that_is_finished_twice_is_read_once(learner: Learner) -> None:
    """A worker that dies behind the last event repeats the activity that published it."""
    turn_id = await learner.tell("I moved to Lisbon.", Script(text=noted(LISBON)))
    await learner.outcome(turn_id)

    turn = await learner.reference(turn_id)
    again = await learner.stack.activities.turns.finish_turn(
        FinishTurnInput(turn=turn, status=TurnStatus.COMPLETED)
    )

    assert again.outcome.status is TurnStatus.COMPLETED
    assert await works_due_after(learner.stack, turn_id) == []
