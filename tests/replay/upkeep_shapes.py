"""Shapes of what runs in the background: re-embedding, MCP servers, alerts, mail."""

import sys
from pathlib import Path
from typing import Final

from schema.ids import mail_workflow_id
from schema.mcp_servers import RefreshMcpServerInput, refresh_workflow_id
from schema.names import DELIVER_ALERTS, REEMBED, SWEEP_MCP_SERVERS
from schema.reembedding import EmbeddedKind, ReembedProgress
from tests.fakes.webhook_engine import at_once, failing
from tests.replay.scene import ALERTS, SECRET, Scene

_MCP_SERVER: Final = str(Path(__file__).parents[1] / "fakes" / "mcp_server.py")


async def reembedding_that_finds_nothing(scene: Scene) -> str:
    return await scene.run_in_background(REEMBED)


async def reembedding_of_a_memory(scene: Scene) -> str:
    await scene.client.remember(f"Likes {SECRET}")
    await scene.everturn.query("UPDATE memories SET embedding = NULL, embedder = NULL")
    return await scene.run_in_background(REEMBED)


async def reembedding_that_goes_on(scene: Scene) -> str:
    """A run begins so when the history of the run before has become too long."""
    before = ReembedProgress(total=7, kind=EmbeddedKind.PASSAGES, embedded=7)
    return await scene.run_in_background(REEMBED, before)


async def refresh_of_an_mcp_server(scene: Scene) -> str:
    return await _refreshed(scene, "working", sys.executable, _MCP_SERVER, "fine")


async def refresh_of_an_mcp_server_that_fails(scene: Scene) -> str:
    return await _refreshed(scene, "failing", "false")


async def sweep_of_mcp_servers(scene: Scene) -> str:
    await scene.admin.register_server("swept", sys.executable, _MCP_SERVER, "fine")
    return await scene.run_in_background(SWEEP_MCP_SERVERS)


async def delivery_of_an_alert(scene: Scene) -> str:
    return await _delivered(scene)


async def delivery_of_an_alert_that_is_refused(scene: Scene) -> str:
    scene.receiver.script(ALERTS, failing(500, text=SECRET), at_once("thanks"))
    return await _delivered(scene)


async def mail_to_a_new_user(scene: Scene) -> str:
    """Sent once the user has signed up; `everturn dev` shows it in the log."""
    (mail,) = await scene.everturn.query(
        "SELECT mails.id FROM mails JOIN users ON users.id = user_id WHERE email = $1",
        scene.client.email,
    )
    await scene.is_started(workflow_id := mail_workflow_id(mail["id"]))
    return workflow_id


async def _delivered(scene: Scene) -> str:
    await scene.everturn.query(
        "INSERT INTO alerts (id, kind, severity, details) "
        "VALUES (gen_random_uuid(), 'defect', 'critical', jsonb_build_object('error', $1::text))",
        SECRET,
    )
    return await scene.run_in_background(DELIVER_ALERTS)


async def _refreshed(scene: Scene, name: str, command: str, *arguments: str) -> str:
    server = await scene.admin.register_server(name, command, *arguments)
    changed = RefreshMcpServerInput(name=name, configured_at=server.updated_at)
    return refresh_workflow_id(changed)


SHAPES: Final = (
    reembedding_that_finds_nothing,
    reembedding_of_a_memory,
    reembedding_that_goes_on,
    refresh_of_an_mcp_server,
    refresh_of_an_mcp_server_that_fails,
    sweep_of_mcp_servers,
    delivery_of_an_alert,
    delivery_of_an_alert_that_is_refused,
    mail_to_a_new_user,
)
