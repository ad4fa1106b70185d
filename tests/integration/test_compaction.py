"""Long conversations: a summary takes the place of their older part, behind a turn."""

from collections import Counter
from typing import Any
from uuid import UUID

from schema.after_turn import NotDone, WorkOutcome
from schema.ids import TurnId
from schema.names import Work
from services.background_calls import MAX_ATTEMPTS
from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.due_works import do_works_after
from tests.fixtures.event_stream import named, turn_id_of
from tests.fixtures.stack import Stack

WORDS = "a harbour with lights and ferries "


async def chat_until_long(
    user: ApiUser, stack: Stack, chat: str, summary: str | Script
) -> tuple[list[str], WorkOutcome]:
    """Ask until the chat's past is to be summarised; return the questions, and how that ended."""
    questions: list[str] = []
    for _ in range(20):
        question = unique()
        questions.append(question)
        stack.model.add(Script(match=question, text=WORDS * 10))
        if len(questions) == 2:
            # What is summarised begins with the first question, which no other request ends with.
            answer = Script(text=summary) if isinstance(summary, str) else summary
            stack.model.add(answer.model_copy(update={"match": questions[0]}))
        events = await user.events_of(chat, question)
        turn_id = TurnId(UUID(turn_id_of(events)))
        outcome = await outcome_of(stack, turn_id)
        if outcome is not None:
            return questions, outcome
    raise AssertionError("the chat never got long")


async def outcome_of(stack: Stack, turn_id: TurnId) -> WorkOutcome | None:
    """Return how the turn's compaction ended, or None if none was due."""
    return (await do_works_after(stack, turn_id)).get(Work.COMPACT_CHAT)


def texts_sent(stack: Stack, question: str) -> list[str]:
    """Return the texts of the messages that the turn with the question sent."""
    # What works behind the turn ask stands in one text.
    *_, sent = (
        record.body["messages"]
        for record in stack.model.requests_matching(question)
        if record.body is not None and isinstance(record.body["messages"][0]["content"], list)
    )
    blocks = (block for message in sent for block in message["content"])
    return [block["text"] for block in blocks if block["type"] == "text"]


async def summaries(user: ApiUser, chat: str) -> list[dict[str, Any]]:
    response = await user.request("GET", f"/chats/{chat}/summaries")
    assert response.status_code == 200, response.text
    data: list[dict[str, Any]] = response.json()["data"]
    return data


async def test_a_long_chat_goes_on_with_a_summary_that_its_owner_sees_and_deletes(
    tight: Stack,
) -> None:
    user = await tight.sign_up()
    chat, last = await user.create_chat(), unique()
    questions, outcome = await chat_until_long(user, tight, chat, "They asked of a harbour.")

    assert (outcome.stored, outcome.problem) == (1, None)
    (summary,) = await summaries(user, chat)
    assert summary["content"] == "They asked of a harbour."
    assert summary["version"] == 1
    events = await user.events_of(chat, last)
    first, *rest = texts_sent(tight, last)
    assert "<conversation_summary>\nThey asked of a harbour.\n</conversation_summary>" in first
    assert rest[-1] == last
    left = [question for question in questions if question in rest]
    assert left == questions[summary["messages"] // 2 :]
    assert 0 < len(left) < len(questions)
    assert named(events, "notice") == []
    charges = await tight.inspection.rows(
        "SELECT status, cost_usd FROM ledger WHERE user_id = $1 AND kind = 'compaction'",
        UUID(user.id),
    )
    assert [charge["status"] for charge in charges] == ["settled"]
    usage = (await user.request("GET", "/subscription/usage")).json()["data"]
    assert float(usage["costUsd"]) > float(charges[0]["cost_usd"]) > 0

    # What is deleted is in no summary.
    messages = await user.messages(chat)
    response = await user.request("DELETE", f"/messages/{messages[0]['id']}")
    assert response.status_code == 204
    assert await summaries(user, chat) == []


async def test_another_branch_has_the_summary_if_it_has_what_was_summarised(
    tight: Stack,
) -> None:
    user = await tight.sign_up()
    chat, edited, early, copied = await user.create_chat(), unique(), unique(), unique()
    await chat_until_long(user, tight, chat, "They asked of a harbour.")
    (summary,) = await summaries(user, chat)
    messages = await user.messages(chat)
    forked = (await user.request("POST", f"/chats/{chat}/fork", json={})).json()["data"]["id"]

    await user.events_of(forked, copied)
    await user.events_of(chat, edited, parentId=summary["messageId"])
    await user.events_of(chat, early, parentId=messages[1]["id"])

    assert texts_sent(tight, edited)[1:] == [edited]
    assert "They asked of a harbour." in texts_sent(tight, edited)[0]
    assert "They asked of a harbour." in texts_sent(tight, copied)[0]
    assert messages[0]["content"] not in texts_sent(tight, copied)
    assert texts_sent(tight, early) == [messages[0]["content"], messages[1]["content"], early]


async def test_without_a_summary_the_oldest_part_is_left_out_with_a_notice(tight: Stack) -> None:
    user = await tight.sign_up()
    chat = await user.create_chat()
    questions, outcome = await chat_until_long(user, tight, chat, " ")
    assert (outcome.stored, outcome.problem) == (0, NotDone.UNUSABLE)

    notices, question = list[str](), ""
    while not notices:
        question = unique()
        tight.model.add(Script(match=question, text=WORDS * 10))
        # Each turn tries again.
        tight.model.add(Script(match=questions[0], text=" "))
        events = await user.events_of(chat, question)
        notices = [event.data["code"] for event in named(events, "notice")]
        await outcome_of(tight, TurnId(UUID(turn_id_of(events))))

    assert notices == ["conversation_cut"]
    assert questions[0] not in texts_sent(tight, question)


async def test_a_provider_that_stays_down_is_left_and_the_chat_goes_on(tight: Stack) -> None:
    user = await tight.sign_up()
    chat = await user.create_chat()
    down = Script(status=529, repeat=10 * MAX_ATTEMPTS)
    questions, outcome = await chat_until_long(user, tight, chat, down)
    asked = [
        record for record in tight.model.requests_matching(questions[0]) if record.status == 529
    ]

    assert (outcome.stored, outcome.problem) == (0, NotDone.GAVE_UP)
    assert len(asked) == MAX_ATTEMPTS
    notices, last = list[str](), ""
    while not notices:
        question = unique()
        tight.model.add(Script(match=question, text=WORDS * 10))
        events = await user.events_of(chat, question)
        assert events[-1].data["status"] == "completed"
        notices = [event.data["code"] for event in named(events, "notice")]
        last = turn_id_of(events)
    assert notices == ["conversation_cut"]
    assert await outcome_of(tight, TurnId(UUID(last))) is not None
    charges = await tight.inspection.rows(
        "SELECT turn_id, status FROM ledger WHERE user_id = $1 AND kind = 'compaction'",
        UUID(user.id),
    )
    assert {charge["status"] for charge in charges} == {"failed"}
    most = max(Counter(charge["turn_id"] for charge in charges).values())
    assert most == MAX_ATTEMPTS
    tight.model.clear_scripts()
    assert await summaries(user, chat) == []


async def test_an_imported_chat_answers_at_once_and_is_summarised_in_pieces(
    learning: Stack,
) -> None:
    user = await learning.sign_up()
    chat, question, last = await user.create_chat(), unique(), unique()
    await import_messages(user, learning, chat, turns=1_000)
    learning.model.add(Script(match=question, text="Yes."))
    learning.model.add(Script(match="<user>", text="Many harbours.", repeat=20))

    events = await user.events_of(chat, question)
    outcome = await outcome_of(learning, TurnId(UUID(turn_id_of(events))))
    learning.model.clear_scripts()

    assert [event.data["code"] for event in named(events, "notice")] == ["conversation_cut"]
    assert 1_000 < len(texts_sent(learning, question)) < 2_000
    assert outcome is not None
    assert outcome.problem is None
    assert 3 <= outcome.stored <= 12
    listed = await summaries(user, chat)
    assert [summary["version"] for summary in listed] == list(range(outcome.stored, 0, -1))
    await user.ask(chat, last)
    sent = texts_sent(learning, last)
    assert "Many harbours." in sent[0]
    assert 100 < len(sent) < 1_000


async def import_messages(user: ApiUser, stack: Stack, chat: str, *, turns: int) -> None:
    """Store a long chat, as an import does."""
    ids = {
        name: f"('0100000{place}-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid"
        for place, name in enumerate(("turn", "question", "answer"))
    }
    of_chat = (UUID(chat), UUID(user.id))
    await stack.inspection.execute(
        "INSERT INTO turns (id, chat_id, user_id, user_message_id, active, model, status) "
        f"SELECT {ids['turn']}, $1::uuid, $2::uuid, {ids['question']}, false, "
        "'claude-haiku-5-5', 'completed' "
        f"FROM generate_series(1, {turns}) AS n",
        *of_chat,
    )
    before = ids["answer"].replace("to_hex(n)", "to_hex(n - 1)")
    await stack.inspection.execute(
        "INSERT INTO messages (id, chat_id, user_id, turn_id, role, content, tokens, parent_id) "
        f"SELECT {ids['question']}, $1::uuid, $2::uuid, {ids['turn']}, 'user', "
        f"repeat('{WORDS}', 12), 100, "
        f"CASE WHEN n > 1 THEN {before} END FROM generate_series(1, {turns}) AS n UNION ALL "
        f"SELECT {ids['answer']}, $1::uuid, $2::uuid, {ids['turn']}, 'assistant', "
        f"repeat('{WORDS}', 12), 100, "
        f"{ids['question']} FROM generate_series(1, {turns}) AS n",
        *of_chat,
    )
    await stack.inspection.execute(
        f"UPDATE chats SET leaf_id = {ids['answer']} FROM (SELECT {turns} AS n) AS last "
        "WHERE id = $1",
        of_chat[0],
    )
