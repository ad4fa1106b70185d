"""A worker is killed at every place of a turn: the next attempt goes on, and all of it is paid."""

from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.running_everturn.checks import assert_paid_for, assert_stream_is_whole
from tests.running_everturn.client import Client
from tests.running_everturn.stack import ScriptedStack

WORKER = "worker-turns"
SUM = ToolCall(name="calculator", input={"expression": "6 * 7"})


async def test_the_text_of_a_killed_worker_gives_way_to_the_next_attempts(
    everturn: ScriptedStack, client: Client
) -> None:
    everturn.model.add(
        Script(match="mid", pieces=("It ", "was ", "so"), hold="never", hold_after=2)
    )
    everturn.model.add(Script(match="mid", pieces=("It is ", "otherwise.")))

    async with client.ask("killed in mid-stream") as stream:
        await stream.until_text("It was ")
        everturn.stack.kill(WORKER)
        events = await stream.to_end()

    assert await assert_stream_is_whole(client, stream.turn_id, events) == "It is otherwise."
    assert [(e.data["step"], e.data["attempt"]) for e in events if e.name == "step"] == [
        (1, 1),
        (1, 2),
    ]
    charges = await assert_paid_for(everturn, stream.turn_id, "killed in mid-stream")
    assert [charge["status"] for charge in charges] == ["lost", "settled"]
    assert all(charge["cost_usd"] > 0 for charge in charges)


async def test_a_kill_at_any_point_of_a_model_call_loses_no_turn(
    everturn: ScriptedStack, client: Client
) -> None:
    """Six turns wait each at another place of its answer when their worker dies."""
    held = {
        "before its head": Script(delay_to_first_s=600, text="late"),
        "before its first word": Script(text="early", hold="never", hold_after=0),
        "behind its last word": Script(text="almost", hold="never", hold_after=99),
    }
    for place, script in held.items():
        everturn.model.add(script.model_copy(update={"match": f"step 1, {place}"}))
        everturn.model.add(Script(match=f"step 2, {place}", text="So: ", tool_calls=(SUM,)))
        everturn.model.add(script.model_copy(update={"match": f"step 2, {place}"}))
    questions = [f"step {step}, {place}" for step in (1, 2) for place in held]
    for question in questions:
        everturn.model.add(Script(match=question, text="Answered after all."))
    asked = {question: 1 if question.startswith("step 1") else 2 for question in questions}

    turns: dict[str, str] = {}
    for question in questions:
        async with client.ask(question) as stream:
            turns[question] = stream.turn_id
    for question, count in asked.items():
        await everturn.model.wait_for_request(count, match=question)
    everturn.stack.kill(WORKER)

    for question, turn_id in turns.items():
        events = await client.events(turn_id)
        before = "So: " if asked[question] == 2 else ""
        answer = await assert_stream_is_whole(client, turn_id, events)
        assert answer == f"{before}Answered after all."
        charges = await assert_paid_for(everturn, turn_id, question)
        assert [charge["status"] for charge in charges][-2:] == ["lost", "settled"]
        assert [charge["attempt"] for charge in charges if charge["step"] == asked[question]] == [
            1,
            2,
        ]


KILLED_AT = [
    ("turn", "running"),
    ("step", None),
    ("thinking", None),
    ("tool_call", "requested"),
    ("tool_call", "completed"),
    ("delta", None),
    ("usage", None),
]


async def test_a_turn_survives_a_kill_at_each_kind_of_its_events(
    everturn: ScriptedStack, client: Client
) -> None:
    """One turn, whose worker dies at every new event."""
    question = "killed at each event"
    seen: set[tuple[str, object]] = set()

    async with client.ask("What is 6 * 7? (killed at each event)", thinking="on") as stream:
        while (event := await stream.next()) is not None:
            place = (event.name, event.status)
            if place in KILLED_AT and place not in seen:
                seen.add(place)
                everturn.stack.kill(WORKER)
                await everturn.stack.wait_ready(WORKER)

    answer = await assert_stream_is_whole(client, stream.turn_id, stream.events)
    assert "6 * 7 = 42" in answer
    await assert_every_request_is_paid(everturn, stream.turn_id, question)


async def test_a_turn_survives_a_kill_right_after_it_was_accepted(
    everturn: ScriptedStack, client: Client
) -> None:
    everturn.model.add(Script(match="at once", text="Here I am.", repeat=9))

    async with client.ask("killed at once") as stream:
        everturn.stack.kill(WORKER)
        events = await stream.to_end()

    assert await assert_stream_is_whole(client, stream.turn_id, events) == "Here I am."
    await assert_every_request_is_paid(everturn, stream.turn_id, "killed at once")


async def test_a_turn_survives_a_kill_while_it_ends(
    everturn: ScriptedStack, client: Client
) -> None:
    """The model has finished; the worker dies while it stores and publishes the answer."""
    everturn.model.add(Script(match="while ending", text="The end.", repeat=9))

    async with client.ask("killed while ending") as stream:
        record = await everturn.model.wait_for_request(match="while ending", ended=True)
        everturn.stack.kill(WORKER)
        events = await stream.to_end()

    assert record.finished
    assert await assert_stream_is_whole(client, stream.turn_id, events) == "The end."
    await assert_every_request_is_paid(everturn, stream.turn_id, "while ending")


async def test_a_stopping_worker_hands_its_calls_over(
    everturn: ScriptedStack, client: Client
) -> None:
    """As a deploy does: SIGTERM, and a new worker when the old one is gone."""
    everturn.model.add(Script(match="deploy", pieces=("Old ", "one."), hold="never", hold_after=1))
    everturn.model.add(Script(match="deploy", text="New one."))

    async with client.ask("stopped for a deploy") as stream:
        await stream.until_text("Old ")
        await everturn.stack.stop(WORKER)
        await everturn.stack.start(WORKER)
        events = await stream.to_end()

    assert await assert_stream_is_whole(client, stream.turn_id, events) == "New one."
    charges = await assert_paid_for(everturn, stream.turn_id, "stopped for a deploy")
    assert [charge["status"] for charge in charges] == ["cancelled", "settled"]


async def test_a_stopping_worker_finishes_a_call_that_is_almost_done(
    everturn: ScriptedStack, client: Client
) -> None:
    everturn.model.add(Script(match="graceful", pieces=("Old ", "one."), hold="go", hold_after=1))

    async with client.ask("stopped, but graceful") as stream:
        await stream.until_text("Old ")
        everturn.model.release("go")
        await everturn.stack.stop(WORKER)
        await everturn.stack.start(WORKER)
        events = await stream.to_end()

    assert await assert_stream_is_whole(client, stream.turn_id, events) == "Old one."
    charges = await assert_paid_for(everturn, stream.turn_id, "stopped, but graceful")
    assert [charge["status"] for charge in charges] == ["settled"]


async def assert_every_request_is_paid(everturn: ScriptedStack, turn_id: str, asked: str) -> None:
    """Check the ledger of a turn that was killed anywhere.

    A row is opened before the model is asked: a worker that dies between the two leaves one
    whose request was never sent.
    """
    charges = await everturn.ledger(turn_id)
    requests = everturn.model.requests_matching(asked)
    never_asked = len(charges) - len(requests)
    lost = [charge for charge in charges if charge["status"] == "lost"]
    assert 0 <= never_asked <= len(lost)
    assert {charge["status"] for charge in charges} <= {"lost", "settled"}
    settled = [(charge["step"], charge["status"]) for charge in charges if charge not in lost]
    assert len(settled) == len(set(settled)), "a step was answered twice"
