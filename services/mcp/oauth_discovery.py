"""Owns finding out where tokens for a server are to be had, by asking the server.

Whoever does not trust a server to say so names the token endpoint at its registration.
Source: RFC 9728; RFC 8414; the authorization part of the MCP specification.
"""

from typing import Final, TypeVar
from urllib.parse import urlsplit

from mcp.client.auth.utils import (
    build_oauth_authorization_server_metadata_discovery_urls,
    build_protected_resource_metadata_discovery_urls,
    issuers_match,
)
from mcp.shared.auth_utils import check_resource_allowed
from pydantic import BaseModel, ValidationError

from services.mcp.errors import McpServerError
from services.outgoing.client import OutgoingClient
from services.outgoing.errors import OutgoingError

_TIMEOUT_S: Final = 5.0
_MAX_BYTES: Final = 256 * 1024
_OK: Final = 200


class _Resource(BaseModel):
    resource: str | None = None
    authorization_servers: list[str] = []


class _AuthorizationServer(BaseModel):
    issuer: str
    token_endpoint: str


_Found = TypeVar("_Found", _Resource, _AuthorizationServer)


async def discovered_token_url(outgoing: OutgoingClient, server_url: str) -> str:
    """Return the token endpoint that a server names. Errors: McpServerError."""
    urls = build_protected_resource_metadata_discovery_urls(None, server_url)
    resource = await _first(outgoing, urls, _Resource)
    issuer = _issuer_in(resource, server_url)
    urls = build_oauth_authorization_server_metadata_discovery_urls(issuer, server_url)
    found = await _first(outgoing, urls, _AuthorizationServer)
    if found is None:
        raise McpServerError("It does not say where tokens are to be had; name its `tokenUrl`.")
    if not issuers_match(found.issuer, issuer or _origin(server_url)):
        raise McpServerError("What it names for tokens says that it is somebody else.")
    if urlsplit(server_url).scheme == "https" and urlsplit(found.token_endpoint).scheme != "https":
        raise McpServerError("Its token endpoint is not reached by https.")
    return found.token_endpoint


def _issuer_in(resource: _Resource | None, server_url: str) -> str | None:
    if resource is None:
        return None
    of = resource.resource
    if of is not None and not check_resource_allowed(
        requested_resource=server_url, configured_resource=of
    ):
        raise McpServerError("What it says about tokens is about another server.")
    return resource.authorization_servers[0] if resource.authorization_servers else None


async def _first(outgoing: OutgoingClient, urls: list[str], kind: type[_Found]) -> _Found | None:
    for url in urls:
        try:
            answer = await outgoing.request("GET", url, timeout_s=_TIMEOUT_S, max_bytes=_MAX_BYTES)
        except OutgoingError:
            continue
        if answer.status == _OK:
            try:
                return kind.model_validate_json(answer.body)
            except ValidationError:
                continue
    return None


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
