"""Works after turns: whatever dies, each is done, at the latest a bit later."""

from uuid import UUID

import pytest

from tests.fakes.scripted_model.scripts import Script
from tests.running_everturn.client import Client
from tests.running_everturn.stack import ScriptedStack
from tests.running_everturn.waiting import eventually

BACKGROUND = "worker-tools"
ROME = "Trip to Rome"


@pytest.fixture
async def client(client: Client) -> Client:
    """A user of whom nothing is learnt, so that the model is asked for titles alone."""
    await client.request("PUT", "/users/me/preferences", {"extractMemories": False})
    return client


async def ask_untitled(everturn: ScriptedStack, client: Client, said: str, *naming: Script) -> str:
    """Ask the first question of a chat without a title, and return the chat."""
    everturn.model.add(Script(match=said, text="Take a train."))
    for script in naming:
        everturn.model.add(script.model_copy(update={"match": said}))
    chat = await client.api.chats.create()
    async with client.ask(f"How do I get to Rome? ({said})", chat_id=chat.id) as stream:
        await stream.to_end()
    return chat.id


async def is_titled(everturn: ScriptedStack, chats: list[str]) -> None:
    """Wait until each chat has its title, and nothing is due any more."""

    async def look() -> tuple[set[str], int]:
        rows = await everturn.query(
            "SELECT title FROM chats WHERE id = ANY($1)", [UUID(chat) for chat in chats]
        )
        [due] = await everturn.query("SELECT count(*) AS works FROM due_works")
        return {row["title"] for row in rows}, due["works"]

    await eventually(look, lambda seen: seen == ({ROME}, 0), within_s=60)


async def test_works_of_a_batch_whose_worker_is_killed_are_done_by_the_next(
    everturn: ScriptedStack, client: Client
) -> None:
    held = Script(text="Trip", hold="never", hold_after=0)
    chats = [
        await ask_untitled(everturn, client, f"in mid-batch {n}", held, Script(text=ROME))
        for n in range(4)
    ]
    for n in range(4):
        await everturn.model.wait_for_request(2, match=f"in mid-batch {n}")

    everturn.stack.kill(BACKGROUND)

    await is_titled(everturn, chats)
    charges = await everturn.query(
        "SELECT ledger.status, count(*) AS charges FROM ledger JOIN turns ON turns.id = turn_id "
        "WHERE chat_id = ANY($1) AND kind = 'title' GROUP BY 1 ORDER BY 1",
        [UUID(chat) for chat in chats],
    )
    assert [(row["status"], row["charges"]) for row in charges] == [("lost", 4), ("settled", 4)]


async def test_works_wait_for_a_temporal_that_was_killed_when_their_turn_ended(
    everturn: ScriptedStack, client: Client
) -> None:
    said = "temporal is away"
    everturn.model.add(Script(match=said, pieces=("Take", " a train."), hold=said, hold_after=1))
    everturn.model.add(Script(match=said, text=ROME))
    chat = await client.api.chats.create()
    async with client.ask(f"How do I get to Rome? ({said})", chat_id=chat.id) as stream:
        await stream.until_text("Take")
        await everturn.stack.stop("temporal")
        everturn.model.release(said)
        # The last model call stores the end of its turn, and what is due.
        await stream.to_end()
    await everturn.stack.start("temporal")

    await is_titled(everturn, [chat.id])
