"""A model, or a gateway before it, that sends what it should not."""

from tests.fakes.scripted_model.raw_answers import RawAnswer
from tests.hostile.conftest import SETTINGS
from tests.running_everturn.bystanders import Others
from tests.running_everturn.client import Client, names
from tests.running_everturn.stack import ScriptedStack

_ATTEMPTS = int(SETTINGS["EVERTURN_MODEL_ATTEMPTS"])


async def test_a_page_in_place_of_an_answer_ends_the_turn_after_its_attempts(
    everturn: ScriptedStack, client: Client, others: Others
) -> None:
    question = "a page in place of an answer"
    page = RawAnswer(
        question,
        lambda: [b"<html>Welcome</html>"],
        headers={"content-type": "text/html"},
        repeat=_ATTEMPTS,
    )
    everturn.model.add_raw(page)
    chat = await client.new_chat()

    async with others(question), client.ask(question, chat_id=chat) as stream:
        events = await stream.to_end()

    assert names(events)[-2:] == ["error", "done"]
    assert names(events).count("error") == 1
    assert events[-1].status == "failed"
    assert len(everturn.model.requests_matching(question)) == _ATTEMPTS
    assert len(await everturn.ledger(stream.turn_id)) == _ATTEMPTS
    await client.send(chat, "Hello")
