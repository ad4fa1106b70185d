"""The stack, the two people and the scripted providers that produce the shapes of histories."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import httpx
from temporalio.client import Client as TemporalClient

from everturn_client.admin_models import McpServer
from schema.names import BACKGROUND_QUEUE, SWEEP
from schema.sweeps import SweepInput, SweepPart
from tests.fakes.embedding_api import OWN_DIMENSIONS, Answer, EmbeddingApi
from tests.fakes.scripted_model.scripts import Script
from tests.fakes.webhook_engine import SECRET as WEBHOOK_SECRET
from tests.fakes.webhook_engine import WebhookEngine, call_back
from tests.running_everturn.client import PASSWORD, Client
from tests.running_everturn.stack import ScriptedStack
from tests.running_everturn.waiting import eventually

TURNS_WORKER: Final = "worker-turns"
BACKGROUND_WORKER: Final = "worker-tools"
ALERTS: Final = "alerts"
"""The webhook of alerts."""
ADMIN: Final = "admin@example.com"
SECRET: Final = "marzipan"
"""A word of every document, every memory and every refusal, which no history may hold."""

# Few steps and attempts, so that the limits are reached soon; no sweep or batch but those that
# are run.
_SETTINGS: Final = {
    "EVERTURN_ADMIN_EMAIL": ADMIN,
    "EVERTURN_ADMIN_PASSWORD": PASSWORD,
    "EVERTURN_ALLOWED_PRIVATE_HOSTS": "127.0.0.1",
    "EVERTURN_ANSWER_WAIT_S": "10",
    "EVERTURN_APPROVAL_HOURS": "0.002",
    "EVERTURN_EMBEDDER": "openai",
    "EVERTURN_EMBEDDING_DIMENSIONS": str(OWN_DIMENSIONS),
    "EVERTURN_EMBEDDING_MODEL": "scripted",
    "EVERTURN_FALLBACK_MODEL": "claude-sonnet-5-5",
    "EVERTURN_MAX_STEPS": "2",
    "EVERTURN_MODEL_ATTEMPTS": "2",
    "EVERTURN_PROMPT_TOKENS": "4000",
    "EVERTURN_SWEEP_INTERVAL_S": "86400",
    "EVERTURN_WORKS_INTERVAL_S": "86400",
}


def settings_with(embeddings_url: str, receiver: WebhookEngine) -> dict[str, str]:
    """Return the settings of a stack that embeds at this origin, and sends alerts there."""
    return {
        **_SETTINGS,
        "EVERTURN_EMBEDDING_BASE_URL": f"{embeddings_url}/compatible",
        "EVERTURN_ALERT_WEBHOOK_URL": receiver.url(ALERTS),
        "EVERTURN_ALERT_WEBHOOK_SECRET": WEBHOOK_SECRET,
    }


class Person(Client):
    """A user with documents and memories, who registers MCP servers if permitted."""

    async def add_document(self, content: str) -> str:
        """Send a text, and return the id of its document."""
        title = f"About {SECRET}"
        return (await self.api.knowledge.create(title=title, content=content)).id

    async def add_file(self, source: bytes, content_type: str) -> str:
        """Send a file, and return the id of its document."""
        document = await self.api.knowledge.upload(
            source, filename=f"{SECRET}.pdf", content_type=content_type
        )
        return document.id

    async def delete_document(self, document_id: str) -> None:
        await self.api.knowledge.delete(document_id)

    async def remember(self, content: str) -> None:
        await self.api.memories.create(content=content)

    async def call_back(self, path: str, output: str) -> None:
        """Answer a call of a webhook later."""
        base_url = f"{self.api.base_url}/api/v1"
        async with httpx.AsyncClient(base_url=base_url, trust_env=False) as http:
            response = await call_back(http, path, {"output": output})
        assert response.status_code == httpx.codes.OK, response.text

    async def register_server(self, name: str, command: str, *arguments: str) -> McpServer:
        """Register an MCP server, and return it once its tools have been listed, or have not."""
        servers = self.api.admin.mcp_servers
        await servers.create_stdio(name=name, command=command, args=arguments)
        return await servers.refresh(name)


@dataclass(frozen=True, slots=True)
class Scene:
    """The stack and user that a shape is produced with."""

    everturn: ScriptedStack
    client: Person
    admin: Person
    temporal: TemporalClient
    embeddings: EmbeddingApi
    receiver: WebhookEngine

    async def play(self, question: str, *scripts: Script) -> str:
        """Let a turn run to its end, its model answering by these scripts; return its workflow."""
        self.answer_by(question, *scripts)
        async with self.client.ask(question) as stream:
            await stream.to_end()
        return f"turn-{stream.turn_id}"

    def answer_by(self, question: str, *scripts: Script) -> None:
        for script in scripts:
            self.everturn.model.add(script.model_copy(update={"match": question}))

    @contextmanager
    def embedding_by(self, *answers: Answer) -> Iterator[None]:
        """Let the embedding service answer like this, and honestly after it."""
        self.embeddings.requests.clear()
        self.embeddings.script[:] = answers
        yield
        assert not self.embeddings.script, "the embedding service was not asked as often"

    async def embedding_is_asked(self, times: int = 1) -> None:
        """Wait until this many requests have reached the embedding service."""

        async def asked() -> int:
            return len(self.embeddings.requests)

        await eventually(asked, lambda count: count >= times)

    async def is_started(self, workflow_id: str) -> None:
        """Wait until Temporal knows the workflow."""

        async def found() -> int:
            return (await self.temporal.count_workflows(f"WorkflowId = '{workflow_id}'")).count

        await eventually(found, lambda count: count == 1)

    async def want_stopped(self, turn_id: str) -> None:
        """Request the turn's cancellation in the database only."""
        await self.everturn.query(
            "UPDATE turns SET cancel_requested_at = now() WHERE id = $1::text::uuid", turn_id
        )

    async def age(self, table: str) -> None:
        """Make all rows old enough for a sweep to look at."""
        await self.everturn.query(
            f"UPDATE {table} SET created_at = created_at - interval '1 minute'"
        )

    async def run_in_background(self, workflow: str, *args: object) -> str:
        """Run what the sweeper of a worker would start, to its end, and return its workflow."""
        workflow_id = f"{workflow}-{uuid4()}"
        await self.temporal.execute_workflow(
            workflow, args=args, id=workflow_id, task_queue=BACKGROUND_QUEUE
        )
        return workflow_id

    async def sweep(self, *parts: SweepPart) -> str:
        """Sweep these parts, and return the workflow."""
        return await self.run_in_background(SWEEP, SweepInput(parts=parts))
