"""Probes: whether a server answers yet, asked over plain sockets.

They run every 30 ms while servers start, in a process that is to start quickly itself: an HTTP
client would cost it more time than all of its questions.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from workers.embedded.ports import LOOPBACK

_TIMEOUT_S: Final = 2.0


async def accepts(port: int, *, host: str = LOOPBACK) -> bool:
    """Return whether something takes connections on `port`."""
    return await ask(port, b"", host=host) is not None


async def answers(url: str) -> bool:
    """Return whether a GET of `url` is answered with 200."""
    return await _get(url) is not None


async def fetch_json(url: str) -> Mapping[str, object]:
    """GET `url` as a JSON object, an empty one unless it is answered with 200."""
    body = await _get(url)
    try:
        parsed = json.loads(body or b"{}")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


async def ask(port: int, question: bytes, *, host: str = LOOPBACK) -> bytes | None:
    """Send `question` and return what comes back until the server closes; None without a server.

    An empty question is answered with nothing, as soon as the connection is accepted.
    """
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                if not question:
                    return b""
                writer.write(question)
                return await reader.read()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except OSError:
        return None


async def _get(url: str) -> bytes | None:
    """Return the body of a 200, None for any other answer or none at all."""
    parts = urlsplit(url)
    # HTTP/1.0: the server closes behind the body, which then needs no decoding.
    request = f"GET {parts.path} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n"
    answer = await ask(parts.port or 80, request.encode(), host=parts.hostname or LOOPBACK)
    head, _, body = (answer or b"").partition(b"\r\n\r\n")
    return body if head.split(b" ", 2)[1:2] == [b"200"] else None
