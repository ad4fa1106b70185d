"""What the processes of an end-to-end run emit beside answers quotes nobody and discloses nothing.

That is: logs, metrics, traces, histories with all that Temporal knows of each run, and error
messages.
"""

import json
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
from temporalio.client import Client as TemporalClient

from tests.fakes.mail_server import MailServer
from tests.fixtures.collector import Collector
from tests.running_everturn.client import Client
from tests.running_everturn.model import ModelControl
from tests.running_everturn.process import EverturnDev
from tests.running_everturn.waiting import eventually

OF_PEOPLE = ("title", "question", "instructions", "name", "memory", "heading", "document", "reason")
OF_MODELS = ("answer", "thought", "input", "invented", "lost", "refusal")
OF_OPERATORS = ("prompt", "secret", "header")
IN_MISTAKES = ("path", "query", "field", "login", "password")


async def test_nothing_that_people_or_models_wrote_and_no_secret_leaves(
    client: Client,
    admin: Client,
    model: ModelControl,
    everturn: EverturnDev,
    *,
    collector: Collector,
    mail_box: MailServer,
) -> None:
    planted = (*OF_PEOPLE, *OF_MODELS, *OF_OPERATORS, *IN_MISTAKES)
    words = {where: f"planted{where}{uuid4().hex}" for where in planted}
    key = await client.api.api_keys.create(name=words["name"])
    await set_up(admin, words)
    tokens = await ask_for_links(client, mail_box)
    turns = await converse(client, model, words)
    errors = await make_mistakes(client, words)

    emitted = {"errors": "\n".join(errors)}
    emitted.update([emission async for emission in emissions(everturn, turns)])
    emitted["traces"] = await traces(collector, turns)

    secrets = {
        "access": client.token,
        "key": str(key.key and key.key.get_secret_value()),
    }
    hidden = {**words, **secrets, **tokens, **generated_secrets(everturn), "email": client.email}
    found = {
        (where, what) for where, text in emitted.items() for what in hidden if hidden[what] in text
    }
    # A refusal names the parameter that it refuses, to the client who sent it.
    assert found <= {("errors", "query"), ("errors", "field")}
    for turn_id in turns:
        assert turn_id in emitted["api"]
        assert turn_id in emitted["worker-turns"]
        assert turn_id in emitted["traces"]


async def set_up(admin: Client, words: dict[str, str]) -> None:
    """Do what operators do: a prompt, a webhook with a secret, a server that is not there."""
    suffix = uuid4().hex[:8]
    prompts, servers = admin.api.admin.prompts, admin.api.admin.mcp_servers
    await prompts.create(name=f"p{suffix}", content=words["prompt"])
    await servers.create_http(
        name=f"s{suffix}", url="https://127.0.0.1:9/mcp", headers={"X-Key": words["header"]}
    )
    assert (await servers.refresh(f"s{suffix}")).problem is not None
    await servers.delete(f"s{suffix}")
    await admin.api.admin.workflow_tools.create(
        name=f"w{suffix}",
        description="Does something.",
        url="https://127.0.0.1:9/webhook",
        input_schema={"type": "object"},
        secret=words["secret"],
    )
    await admin.api.admin.workflow_tools.delete(f"w{suffix}")


async def ask_for_links(client: Client, mail_box: MailServer) -> dict[str, str]:
    """Return the tokens of the links that were sent to a new user who forgot the password."""
    await client.api.auth.request_password_reset(email=client.email)
    mails = await mail_box.mails_to(client.email, at_least=2)
    return {
        mail["Subject"]: mail.get_content().partition("#token=")[2].split()[0] for mail in mails
    }


async def converse(client: Client, model: ModelControl, words: dict[str, str]) -> list[str]:
    """Run a turn with everything in it, and one that fails; return their ids."""
    await client.api.users.set_preferences({"instructions": words["instructions"]})
    await client.api.memories.create(content=words["memory"])
    document = await client.api.knowledge.create(title=words["heading"], content=words["document"])

    async def ingestion() -> str:
        return (await client.api.knowledge.get(document.id)).ingestion.status

    await eventually(ingestion, lambda status: status == "ready")
    question = words["question"]
    calls = [
        {"name": "calculator", "input": {"expression": words["input"]}},
        {"name": words["invented"], "input": {words["input"]: words["input"]}},
        {"name": "recall", "input": {"query": words["input"]}},
    ]
    await model.script(match=question, pieces=[words["lost"], "and more"], break_after=1)
    await model.script(match=question, thinking=words["thought"], text="", tool_calls=calls)
    await model.script(match=question, text=words["answer"])
    await model.script(match=words["refusal"], status=400, message=words["refusal"])
    chat = (await client.api.chats.create(title=words["title"])).id
    turns = []
    for asked, status in ((question, "completed"), (words["refusal"], "failed")):
        async with client.ask(asked, chat_id=chat) as stream:
            events = await stream.to_end()
        assert events[-1].data["status"] == status
        turns.append(str(stream.turn_id))
    return turns


async def make_mistakes(client: Client, words: dict[str, str]) -> list[str]:
    """Make mistakes that hold words and secrets, and return what the API says about them."""
    bodies = [
        ("GET", f"/chats/{words['path']}", None),
        ("GET", f"/{words['path']}", None),
        ("GET", f"/chats?{words['query']}={words['path']}", None),
        ("POST", "/memories", {words["field"]: words["memory"]}),
        (
            "POST",
            "/auth/login",
            {"email": f"{words['login']}@example.com", "password": words["password"]},
        ),
    ]
    responses = [await client.request(*mistake) for mistake in bodies]
    assert {response.status_code for response in responses} <= {400, 401, 404}
    return [response.text for response in responses]


async def emissions(everturn: EverturnDev, turns: list[str]) -> AsyncIterator[tuple[str, str]]:
    """Yield what each process has emitted, under its name, and all that Temporal knows."""
    temporal = await TemporalClient.connect(everturn.addresses["temporal"])
    for turn_id in turns:
        handle = temporal.get_workflow_handle(f"turn-{turn_id}")
        await eventually(handle.describe, lambda run: run.close_time is not None)
    known: list[bytes] = []
    async for run in temporal.list_workflows():
        handle = temporal.get_workflow_handle(run.id, run_id=run.run_id)
        known.append((await handle.describe()).raw_description.SerializeToString())
        known += [event.SerializeToString() for event in (await handle.fetch_history()).events]
    yield "temporal", b"\n".join(known).decode(errors="replace")
    async with httpx.AsyncClient(trust_env=False) as http:
        for name, url in everturn.addresses["metrics"].items():
            yield f"metrics of {name}", (await http.get(url)).text
    yield "terminal", everturn.output
    for log in (everturn.data / "logs").glob("*.log"):
        yield log.stem, log.read_text()


async def traces(collector: Collector, turns: list[str]) -> str:
    """Return all that the collector was sent, the spans of these turns included."""
    for turn_id in turns:
        await collector.until(
            turn_id, lambda spans: "invoke_agent everturn" in {each.span.name for each in spans}
        )
    return b"\n".join(collector.bodies).decode(errors="replace")


def generated_secrets(everturn: EverturnDev) -> dict[str, str]:
    """Return the secrets that `everturn dev` has generated, by name."""
    secrets = json.loads((everturn.data / "secrets.json").read_text())
    return {name: value for name, value in secrets.items() if isinstance(value, str)}
