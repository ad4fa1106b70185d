"""An administrator sets things up, a user uses them, and the administrator sees what happened."""

import pytest

from everturn_client import PermissionDeniedError
from tests.running_everturn.client import Client
from tests.running_everturn.model import ModelControl
from tests.running_everturn.waiting import eventually


async def test_a_prompt_and_a_document_reach_the_model_and_the_turn_is_found_in_the_audit_log(
    client: Client, admin: Client, model: ModelControl
) -> None:
    prompts = admin.api.admin.prompts
    prompt = await prompts.create(name="base", content="Speak like a sailor of the Undine.")
    await prompts.activate(prompt.id, 1)
    text = "The harbour of Vlissingen closes at dusk, whatever the tide."
    document = await client.api.knowledge.create(title="Harbours", content=text)

    async def ingestion() -> str:
        return (await client.api.knowledge.get(document.id)).ingestion.status

    await eventually(ingestion, lambda status: status == "ready")
    await client.api.memories.create(content="Sails a boat")
    await model.script(match="harbour of Vlissingen", text="At dusk.")

    async with client.ask("When does the harbour of Vlissingen close?") as stream:
        events = await stream.to_end()

    assert events[-1].data["assistantMessage"]["content"] == "At dusk."
    (request,) = await model.requests("harbour of Vlissingen")
    assert "sailor of the Undine" in str(request["body"]["system"])
    assert text in str(request["body"]["messages"])
    turn = await admin.api.admin.turns.get(stream.turn_id)
    assert turn.messages[1].content == "At dusk."
    assert turn.prompt is not None
    assert turn.prompt["version"] == "base 1"
    read = admin.api.admin.audit(action="turn.read", resource_id=stream.turn_id)
    assert [entry.resource_id async for entry in read] == [stream.turn_id]
    with pytest.raises(PermissionDeniedError):
        await client.api.admin.turns.get(stream.turn_id)
