"""MCP servers as administrators register them, and the payloads of their refresh."""

import re
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from schema.web_addresses import WebAddress
from schema.wire import (
    ChangeModel,
    Payload,
    RequestModel,
    StorableText,
    Timestamp,
    VersionedModel,
    WireModel,
    unset,
)


class McpTransport(StrEnum):
    """How a server is reached."""

    STDIO = "stdio"
    HTTP = "http"


class McpServerStatus(StrEnum):
    """The result of the last contact with a server: a refresh, or a tool call."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    FAILING = "failing"


# Headers of the connection or the protocol can't be configured.
_RESERVED_HEADERS: Final = frozenset(
    {
        *("accept", "accept-encoding", "connection", "content-encoding", "content-length"),
        *("content-type", "expect", "host", "keep-alive", "last-event-id", "te", "trailer"),
        *("transfer-encoding", "upgrade"),
    }
)
_HEADER_VALUE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")


def _header_name(name: str) -> str:
    if name.lower() in _RESERVED_HEADERS or name.lower().startswith(("mcp-", "proxy-")):
        raise ValueError("must not be a header of the connection or the protocol")
    return name


def _header_value(value: str) -> str:
    if not _HEADER_VALUE.fullmatch(value):
        raise ValueError("must be printable ASCII without surrounding spaces")
    return value


def _each_once(headers: dict[str, str]) -> dict[str, str]:
    if len({name.lower() for name in headers}) < len(headers):
        raise ValueError("must not repeat a header, in any case")
    return headers


McpServerName = Annotated[
    StorableText, Field(pattern=r"^[a-zA-Z][a-zA-Z0-9-]{0,31}$", examples=["github"])
]


def names_authorization(headers: Iterable[str]) -> bool:
    """Return whether one of the headers is the one that OAuth sets."""
    return any(name.lower() == "authorization" for name in headers)


Command = Annotated[
    StorableText,
    Field(
        min_length=1,
        max_length=1000,
        examples=["npx"],
        description="The command that the workers run.",
    ),
]
Arguments = Annotated[
    list[Annotated[StorableText, Field(max_length=4000)]],
    Field(max_length=100, examples=[["-y", "@modelcontextprotocol/server-everything"]]),
]
Environment = Annotated[
    dict[
        Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")],
        Annotated[StorableText, Field(max_length=8192)],
    ],
    Field(
        max_length=50,
        repr=False,
        examples=[{"GITHUB_TOKEN": "..."}],
        description="The process's environment variables, beside PATH and HOME; never returned.",
    ),
]
Headers = Annotated[
    dict[
        Annotated[
            str,
            Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$"),
            AfterValidator(_header_name),
        ],
        Annotated[str, Field(max_length=8192), AfterValidator(_header_value)],
    ],
    AfterValidator(_each_once),
    Field(
        max_length=50,
        repr=False,
        examples=[{"Authorization": "Bearer ..."}],
        description="Sent with every request; never shown again.",
    ),
]


class OAuthClientRequest(RequestModel):
    """Client credentials to get a server's tokens with."""

    client_id: Annotated[StorableText, Field(min_length=1, max_length=500, examples=["everturn"])]
    client_secret: Annotated[
        StorableText,
        Field(
            min_length=1,
            max_length=8192,
            repr=False,
            description="Never shown again. A private key in PEM is not sent: it signs an "
            "assertion, by `private_key_jwt`.",
        ),
    ]
    token_url: WebAddress | None = Field(
        None, description="The token endpoint; discovered from the server by default."
    )
    scope: (
        Annotated[
            str, Field(min_length=1, max_length=1000, pattern=r"^[\x21-\x7e]+( [\x21-\x7e]+)*$")
        ]
        | None
    ) = Field(
        None,
        examples=["tools:read"],
        description="The scopes to request; by default those that the server asks for.",
    )


class OAuthClient(WireModel):
    """Client credentials without their secret."""

    client_id: str
    token_url: str | None
    scope: str | None


class CreateStdioServerRequest(RequestModel):
    """A server that the workers run as a process."""

    name: McpServerName
    transport: Literal["stdio"]
    command: Command
    args: Arguments = Field(default_factory=list)
    env: Environment = Field(default_factory=dict)


class CreateHttpServerRequest(RequestModel):
    """A server reached over streamable HTTP."""

    name: McpServerName
    transport: Literal["http"]
    url: WebAddress
    headers: Headers = Field(default_factory=dict)
    oauth: OAuthClientRequest | None = None

    @model_validator(mode="after")
    def _check_single_authorization(self) -> Self:
        if self.oauth is not None and names_authorization(self.headers):
            raise ValueError("must not contain Authorization together with `oauth`, which sets it")
        return self


CreateMcpServerRequest = Annotated[
    CreateStdioServerRequest | CreateHttpServerRequest, Field(discriminator="transport")
]


class ChangeMcpServerRequest(ChangeModel):
    """A change of a server's configuration.

    `env`, `headers` and `oauth` are replaced as a whole; null removes `oauth`.
    """

    enabled: bool = unset()
    command: Command = unset()
    args: Arguments = unset()
    env: Environment = unset()
    url: WebAddress = unset()
    headers: Headers = unset()
    oauth: OAuthClientRequest | None = None


class McpServer(VersionedModel):
    """A registered server. Secrets are listed by name only."""

    name: str
    transport: McpTransport
    command: str | None
    args: tuple[str, ...]
    url: str | None
    secret_names: tuple[str, ...] = Field(description="The names in its `env` or `headers`.")
    oauth: OAuthClient | None
    enabled: bool
    status: McpServerStatus
    problem: str | None = Field(
        description="Why it is failing, or which tools of a healthy server were left out or have "
        "output schemas that can't be used."
    )
    tool_count: int = Field(description="The number of tools at the last successful refresh.")
    checked_at: Timestamp | None
    created_at: Timestamp
    updated_at: Timestamp


class RefreshMcpServerInput(Payload):
    """The server whose tools to list, as configured at `configured_at`."""

    name: str
    configured_at: datetime


class RefreshMcpServerOutput(Payload):
    """The result of a refresh; `superseded` if the configuration has changed since."""

    status: McpServerStatus
    tool_count: int = 0
    superseded: bool = False


class McpServersToRefresh(Payload):
    """The servers whose tools are due for a refresh."""

    servers: tuple[RefreshMcpServerInput, ...] = ()


class McpSweepOutcome(Payload):
    """Result of the workflow `SweepMcpServers`: the number of servers by outcome."""

    healthy: int
    failing: int


def refresh_workflow_id(refresh: RefreshMcpServerInput) -> str:
    """Return the id of the workflow that lists these tools; at most one such workflow runs."""
    return f"refresh-{refresh.name}-{refresh.configured_at:%Y%m%dT%H%M%S.%fZ}"
