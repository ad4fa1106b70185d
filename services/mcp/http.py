"""Owns a connection to an MCP server over streamable HTTP: how much it may answer, and how long."""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Final

import httpx2
from mcp.client._transport import TransportStreams
from mcp.client.streamable_http import streamable_http_client

from services.mcp.exchange import MAX_ANSWER_BYTES
from services.mcp.http_failures import FailureAsResponse
from services.mcp.http_requests import SeparateRequests
from services.mcp.oauth import OAuthTokens
from services.outgoing.transport import guarded_transport

_CONNECT_TIMEOUT_S: Final = 5.0
_WRITE_TIMEOUT_S: Final = 20.0


@asynccontextmanager
async def connect(
    url: str,
    *,
    headers: Mapping[str, str],
    allowed_hosts: Collection[str],
    seal: FailureAsResponse,
    tokens: OAuthTokens | None = None,
) -> AsyncIterator[TransportStreams]:
    """Connect while the block runs; what fails of one request is sealed into its answer."""
    # How long an answer may take is for whoever waits for it.
    timeout = httpx2.Timeout(
        None, connect=_CONNECT_TIMEOUT_S, write=_WRITE_TIMEOUT_S, pool=_CONNECT_TIMEOUT_S
    )
    guarded = guarded_transport(allowed_hosts=allowed_hosts)
    async with (
        httpx2.AsyncClient(
            # Compressed, an answer could be a thousand times what was counted.
            headers={**headers, "Accept-Encoding": "identity"},
            timeout=timeout,
            transport=SeparateRequests(guarded, seal, tokens),
            trust_env=False,
        ) as client,
        streamable_http_client(
            url, http_client=client, max_sse_event_size=MAX_ANSWER_BYTES
        ) as streams,
    ):
        yield streams
