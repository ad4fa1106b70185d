"""Where requests for tokens go: URLs that an MCP server, or a document that it names, chooses.

An operator allows private hosts for what administrators register, not for what strangers name: a
URL on another origin than the document that names it only leads to public addresses. Otherwise a
server could have requests sent to any path of a webhook engine in the operator's network.
"""

from typing import Final
from urllib.parse import SplitResult, urlsplit

from services.mcp.errors import McpServerError
from services.outgoing.client import OutgoingClient

_MAX_CHARS: Final = 2_000
_PORTS: Final = {"http": 80, "https": 443}


def is_web_url(url: str) -> bool:
    """Return whether a server's text is a URL that can be requested."""
    return _parts(url) is not None


def origin_of(url: str) -> tuple[str, str, int]:
    """Return the scheme, host and port of a URL. Errors: McpServerError for anything else."""
    parts = _parts(url)
    if parts is None:
        raise McpServerError("The server's OAuth metadata has an invalid URL.")
    return parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme]


def is_downgrade(url: str, *, named_by: str) -> bool:
    """Return whether a URL leaves HTTPS."""
    return origin_of(named_by)[0] == "https" and origin_of(url)[0] != "https"


class Destinations:
    """The clients for requests: `allowed` reaches the private hosts that an operator allows."""

    def __init__(self, allowed: OutgoingClient, public: OutgoingClient) -> None:
        self.allowed = allowed
        self._public = public

    def client_for(self, url: str, *, named_by: str) -> OutgoingClient:
        """Return the client for a URL in a document. Errors: McpServerError."""
        return self.allowed if origin_of(url) == origin_of(named_by) else self._public


def _parts(url: str) -> SplitResult | None:
    if len(url) > _MAX_CHARS or not url.isascii() or not url.isprintable() or " " in url:
        return None
    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        return None
    is_usable = parts.scheme in _PORTS and parts.hostname and has_port
    return parts if is_usable and "@" not in parts.netloc and "\\" not in url else None
