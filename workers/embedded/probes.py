"""Owns how to find out whether a server answers yet."""

import asyncio
import contextlib
import ssl
from collections.abc import Mapping

import httpx2

from workers.embedded.ports import LOOPBACK

_TIMEOUT_S = 2.0


async def accepts(port: int, *, host: str = LOOPBACK) -> bool:
    """Say whether something takes connections on `port`."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


async def answers(url: str) -> bool:
    """Say whether a GET of `url` is answered with 200."""
    response = await _get(url)
    return response is not None


async def fetch_json(url: str) -> Mapping[str, object]:
    """GET `url` as a JSON object, an empty one unless it is answered with 200."""
    response = await _get(url)
    body: Mapping[str, object] = response.json() if response is not None else {}
    return body


async def _get(url: str) -> httpx2.Response | None:
    # Proxies of the environment don't lead to loopback, and an empty TLS context spares the
    # 20 ms in which httpx2 would read the certificates that plain HTTP does not use.
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        async with httpx2.AsyncClient(trust_env=False, verify=tls, timeout=_TIMEOUT_S) as client:
            response = await client.get(url)
    except httpx2.HTTPError:
        return None
    return response if response.status_code == httpx2.codes.OK else None
