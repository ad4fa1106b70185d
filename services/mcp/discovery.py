"""Discovering the token endpoint of an MCP server, by metadata that the server points to.

Source: RFC 9728 and RFC 8414, and the authorization part of the MCP specification.
"""

from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from services.mcp.challenges import Challenge, scopes_in
from services.mcp.destinations import Destinations, is_downgrade, is_web_url, origin_of
from services.mcp.errors import McpServerError, is_away_by
from services.mcp.sdk import (
    build_oauth_authorization_server_metadata_discovery_urls,
    build_protected_resource_metadata_discovery_urls,
    check_resource_allowed,
    issuers_match,
)
from services.outgoing.client import OutgoingClient
from services.outgoing.errors import OutgoingError

_TIMEOUT_S: Final = 5.0
_MAX_BYTES: Final = 256 * 1024
_OK: Final = 200
_DEFAULT_METHODS: Final = ("client_secret_basic", "client_secret_post")
"""Where nothing says which: the first is what the RFC has for that, the second what some need."""


@dataclass(frozen=True, slots=True)
class TokenEndpoint:
    """Where tokens are requested, and how.

    `scopes` are those to request if a refusal names none; `named_by` is the document with the URL.
    """

    url: str
    resource: str
    issuer: str
    named_by: str
    methods: tuple[str, ...] = _DEFAULT_METHODS
    scopes: tuple[str, ...] = ()


class _Resource(BaseModel):
    resource: str | None = None
    authorization_servers: list[str] = []
    scopes_supported: Any = None


class _AuthorizationServer(BaseModel):
    issuer: str
    token_endpoint: str
    token_endpoint_auth_methods_supported: Any = None


_Found = TypeVar("_Found", _Resource, _AuthorizationServer)


async def discover(
    destinations: Destinations, server_url: str, challenge: Challenge
) -> TokenEndpoint:
    """Return the token endpoint that a server advertises. Errors: McpServerError."""
    documents = _Documents()
    resource = await _resource(documents, destinations, server_url, challenge) or _Resource()
    issuer = next(iter(resource.authorization_servers), None)
    if issuer is not None:
        origin_of(issuer)
    # Names a host, but no path: these have a fixed part.
    urls = build_oauth_authorization_server_metadata_discovery_urls(issuer, server_url)
    for url in urls:
        found = await documents.read(destinations.allowed, url, _AuthorizationServer)
        if found is not None:
            break
    else:
        raise McpServerError(
            "The server does not advertise a token endpoint; set `oauth.tokenUrl`.",
            # All is missing where the server is just starting.
            outlook="away" if documents.was_away else "missing",
        )
    if not _is_issuer(found.issuer, issuer, server_url):
        raise McpServerError("The token endpoint's issuer does not match.")
    if is_downgrade(found.token_endpoint, named_by=server_url):
        raise McpServerError("The token endpoint must use HTTPS.")
    methods = found.token_endpoint_auth_methods_supported
    return TokenEndpoint(
        url=found.token_endpoint,
        resource=resource.resource or server_url,
        issuer=found.issuer,
        named_by=url,
        methods=_words(methods) if isinstance(methods, list) else _DEFAULT_METHODS,
        scopes=scopes_in(_words(resource.scopes_supported)),
    )


def _is_issuer(found: str, expected: str | None, server_url: str) -> bool:
    if expected is not None:
        return issuers_match(found, expected)
    # Servers of the protocol's first version issue tokens themselves, some below a path.
    return origin_of(found) == origin_of(server_url)


async def _resource(
    documents: "_Documents", destinations: Destinations, server_url: str, challenge: Challenge
) -> _Resource | None:
    named = challenge.resource_metadata
    if named is not None and is_downgrade(named, named_by=server_url):
        named = None
    for url in build_protected_resource_metadata_discovery_urls(named, server_url):
        client = destinations.client_for(url, named_by=server_url)
        found = await documents.read(client, url, _Resource)
        if found is not None:
            _check_resource(found, server_url)
            return found
    return None


def _check_resource(found: _Resource, server_url: str) -> None:
    """Refuse metadata of another server: its tokens would be good for that one."""
    if found.resource is None:
        return
    if not is_web_url(found.resource) or not check_resource_allowed(
        requested_resource=server_url, configured_resource=found.resource
    ):
        raise McpServerError("The server's OAuth metadata is for a different resource.")


class _Documents:
    """Reads documents; `was_away` is whether one may be there later."""

    def __init__(self) -> None:
        self.was_away = False

    async def read(self, client: OutgoingClient, url: str, kind: type[_Found]) -> _Found | None:
        """Return a document; None if it isn't there, can't be reached, or is another."""
        try:
            answer = await client.request("GET", url, timeout_s=_TIMEOUT_S, max_bytes=_MAX_BYTES)
        except OutgoingError as error:
            self.was_away = self.was_away or not error.is_final
            return None
        self.was_away = self.was_away or is_away_by(answer.status)
        if answer.status != _OK:
            return None
        try:
            return kind.model_validate_json(answer.body)
        except ValidationError:
            return None


def _words(found: object) -> tuple[str, ...]:
    return tuple(w for w in found if isinstance(w, str)) if isinstance(found, list) else ()
