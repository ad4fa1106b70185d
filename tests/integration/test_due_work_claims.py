"""How due works are claimed: fairly over users, each by one process at a time, again if it dies."""

import asyncio
from collections import Counter
from datetime import timedelta
from uuid import UUID, uuid4

from schema.after_turn import WorkOutcome
from schema.names import Work
from services.due_works import Done, Postponed
from tests.fixtures.api_user import ApiUser
from tests.fixtures.due_works import Queue

TITLE, MEMORIES, SUMMARY = Work.TITLE_CHAT, Work.EXTRACT_MEMORIES, Work.COMPACT_CHAT


async def test_no_user_waits_for_another_with_many_works(
    queue: Queue, user: ApiUser, other_user: ApiUser
) -> None:
    many = await queue.due(user, MEMORIES, turns=300)
    (one,) = await queue.due(other_user, MEMORIES)

    first = await queue.claim(extract_memories=2)
    second = await queue.claim(extract_memories=16)

    assert [due.turn.turn_id for due in first] == [many[0], one]
    assert {due.turn.turn_id for due in second} == set(many[1:17])


async def test_what_is_under_way_counts_as_a_users_share(
    queue: Queue, user: ApiUser, other_user: ApiUser
) -> None:
    await queue.due(user, MEMORIES, turns=20)
    await queue.claim(extract_memories=8)
    late = await queue.due(other_user, MEMORIES, turns=9)

    claimed = await queue.claim(extract_memories=9)

    # Eight of theirs and then one of each; of the ninth places the older one is first.
    by_user = Counter(due.turn.user_id for due in claimed)
    assert by_user == {UUID(other_user.id): 8, UUID(user.id): 1}
    assert {due.turn.turn_id for due in claimed} >= set(late[:8])


async def test_each_kind_of_work_has_its_own_room(queue: Queue, user: ApiUser) -> None:
    turns = await queue.due(user, TITLE, MEMORIES, SUMMARY, turns=3)

    claimed = await queue.claim(title_chat=2, extract_memories=1)

    assert sorted((due.work, due.turn.turn_id) for due in claimed) == [
        (MEMORIES, turns[0]),
        (TITLE, turns[0]),
        (TITLE, turns[1]),
    ]
    assert {due.turn.turn_id for due in await queue.claim(title_chat=8)} == {turns[2]}


async def test_workers_that_claim_at_the_same_time_share_what_is_due(
    queue: Queue, user: ApiUser
) -> None:
    turns = await queue.due(user, TITLE, turns=40)

    claims = await asyncio.gather(*(queue.claim(title_chat=10) for _ in range(8)))
    rest = await queue.claim(title_chat=40)

    claimed = [due.turn.turn_id for claim in (*claims, rest) for due in claim]
    assert sorted(claimed) == turns


async def test_what_a_dead_process_claimed_is_due_again_and_counts_against_it(
    queue: Queue, user: ApiUser
) -> None:
    await queue.due(user, TITLE)
    (first,) = await queue.claim(title_chat=1)
    assert await queue.claim(title_chat=1) == []

    await queue.let_claims_run_out()
    (second,) = await queue.claim(title_chat=1)

    assert (first.failures, second.failures) == (0, 1)
    assert second.turn == first.turn


async def test_a_claim_that_is_renewed_does_not_run_out(queue: Queue, user: ApiUser) -> None:
    await queue.due(user, TITLE)
    claim = uuid4()
    await queue.works.exchange(claim, [], {TITLE: 1})
    await queue.let_claims_run_out()

    await queue.works.renew(claim)

    assert await queue.claim(title_chat=1) == []


async def test_one_whose_claim_ran_out_postpones_nothing_but_can_finish(
    queue: Queue, user: ApiUser
) -> None:
    await queue.due(user, TITLE)
    claim = uuid4()
    (due,) = await queue.works.exchange(claim, [], {TITLE: 1})
    await queue.let_claims_run_out()
    await queue.claim(title_chat=1)
    (before,) = await queue.rows()

    await queue.works.exchange(claim, [(due, Postponed("slow", is_defect=True))], {})
    (after,) = await queue.rows()
    await queue.works.exchange(claim, [(due, Done(WorkOutcome(stored=1)))], {})

    assert after == before
    assert await queue.rows() == []


async def test_a_pause_grows_with_the_age_of_a_work(queue: Queue, user: ApiUser) -> None:
    await queue.due(user, TITLE)
    pauses: list[timedelta] = []
    for age in (timedelta(), timedelta(seconds=30), timedelta(hours=3)):
        await queue.let_time_pass(age + timedelta(minutes=3))
        await queue.stack.inspection.execute(
            "UPDATE due_works SET created_at = now() - $1::interval", age
        )
        claim = uuid4()
        (due,) = await queue.works.exchange(claim, [], {TITLE: 1})
        await queue.works.exchange(claim, [(due, Postponed("overloaded"))], {})
        pauses.append(await queue.stack.inspection.value("SELECT due_at - now() FROM due_works"))

    assert [round(pause.total_seconds()) for pause in pauses] == [2, 30, 120]


async def test_what_the_provider_asks_to_wait_is_waited(queue: Queue, user: ApiUser) -> None:
    await queue.due(user, TITLE)
    claim = uuid4()
    (due,) = await queue.works.exchange(claim, [], {TITLE: 1})

    await queue.works.exchange(claim, [(due, Postponed("rate_limited", timedelta(minutes=5)))], {})

    assert await queue.stack.inspection.value(
        "SELECT due_at > now() + interval '4 minutes' FROM due_works"
    )
