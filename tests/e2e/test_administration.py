"""An administrator sets things up, a person uses them, and the administrator sees what happened."""

from tests.running_everturn.client import Client, data_of
from tests.running_everturn.model import ModelControl
from tests.running_everturn.waiting import eventually


async def test_a_prompt_and_a_document_reach_the_model_and_the_turn_is_found_in_the_audit_log(
    client: Client, admin: Client, model: ModelControl
) -> None:
    prompt = data_of(
        await admin.post(
            "/admin/prompts",
            {"name": "base", "content": "Speak like a sailor of the Undine."},
        ),
        201,
    )
    path = f"/admin/prompts/{prompt['id']}/versions/1/activate"
    assert (await admin.post(path)).status_code == 200
    text = "The harbour of Vlissingen closes at dusk, whatever the tide."
    document = data_of(await client.post("/knowledge", {"title": "Harbours", "content": text}), 201)

    async def ingestion() -> str:
        found = data_of(await client.get(f"/knowledge/{document['id']}"))
        return str(found["ingestion"]["status"])

    await eventually(ingestion, lambda status: status == "ready")
    assert (await client.post("/memories", {"content": "Sails a boat"})).status_code == 201
    await model.script(match="harbour of Vlissingen", text="At dusk.")

    async with client.ask("When does the harbour of Vlissingen close?") as stream:
        events = await stream.to_end()

    assert events[-1].data["assistantMessage"]["content"] == "At dusk."
    (request,) = await model.requests("harbour of Vlissingen")
    told = str(request["body"]["system"])
    assert "sailor of the Undine" in told
    assert text in told
    turn = data_of(await admin.get(f"/admin/turns/{stream.turn_id}"))
    assert turn["messages"][1]["content"] == "At dusk."
    assert turn["prompt"]["version"] == "base 1"
    read = data_of(await admin.get(f"/admin/audit?action=turn.read&resourceId={stream.turn_id}"))
    assert [entry["resourceId"] for entry in read] == [stream.turn_id]
    assert (await client.get(f"/admin/turns/{stream.turn_id}")).status_code == 403
