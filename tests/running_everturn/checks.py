"""What must hold for every finished turn, whatever was killed on the way."""

from collections.abc import Sequence
from typing import Any

from tests.running_everturn.client import Client, Event, names, rebuild
from tests.running_everturn.stack import ScriptedStack


async def assert_stream_is_whole(
    client: Client, turn_id: str, events: Sequence[Event], *, status: str = "completed"
) -> str:
    """Check that a client saw exactly the stored answer and one `done`; return the answer.

    `events` are those of a client from the turn's beginning, over however many connections.
    """
    assert names(events).count("done") == 1, names(events)
    done = events[-1]
    assert (done.name, done.status) == ("done", status)

    turn = await client.turn(turn_id)
    assert turn["status"] == status
    stored = await _answer(client, turn)
    assert stored["status"] == status
    # The event leaves out what a client reads with the message: its parts, citations, feedback.
    said = done.data["assistantMessage"]
    assert said == {name: stored[name] for name in said}
    assert rebuild(events) == stored["content"]

    replayed = await client.events(turn_id)
    assert names(replayed).count("done") == 1
    assert replayed[-1].data == done.data
    assert rebuild(replayed) == stored["content"]
    return str(stored["content"])


async def assert_paid_for(
    scripted: ScriptedStack, turn_id: str, asked: str
) -> list[dict[str, Any]]:
    """Check the ledger against the model's requests, one by one; return it.

    `asked` is a text that stands in this turn's message and in no other.
    """
    charges = await scripted.ledger(turn_id)
    requests = scripted.model.requests_matching(asked)
    assert len(charges) == len(requests), (charges, requests)
    for charge, request in zip(charges, requests, strict=True):
        assert charge["status"] != "open"
        assert charge["model"] == request.model
        if request.finished and charge["status"] == "settled":
            assert charge["input_tokens"] == request.usage.input_tokens
            assert charge["output_tokens"] == request.usage.output_tokens
    return charges


async def _answer(client: Client, turn: dict[str, Any]) -> dict[str, Any]:
    messages = await client.messages(turn["chatId"])
    (answer,) = (
        message
        for message in messages
        if message["turnId"] == turn["id"] and message["role"] == "assistant"
    )
    assert answer["id"] == turn["assistantMessageId"]
    return answer
