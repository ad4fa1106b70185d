"""The two clients: `Everturn` blocks, `AsyncEverturn` awaits; both have the same groups."""

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Generic, Self

import httpx2
from pydantic import SecretStr

from everturn_client.account import ApiKeys, Auth, Sessions, Subscription, Users
from everturn_client.admin import Admin
from everturn_client.calls import Call
from everturn_client.chats import Chats, Messages, Models, Turns
from everturn_client.endpoints import RunnerT
from everturn_client.exchange import Exchange, MemoryTokenStore, Tokens, TokenStore
from everturn_client.files import Files
from everturn_client.knowledge import Knowledge, Memories, Tools
from everturn_client.runners import DIRECT, Awaiting, Blocking

DEFAULT_URL: Final = "http://127.0.0.1:8000"


class _Groups(Generic[RunnerT]):
    """The groups of the API."""

    def __init__(self, runner: RunnerT) -> None:
        self._runner = runner
        self.auth = Auth(runner)
        self.users = Users(runner)
        self.sessions = Sessions(runner)
        self.api_keys = ApiKeys(runner)
        self.chats = Chats(runner)
        self.messages = Messages(runner)
        self.turns = Turns(runner)
        self.models = Models(runner)
        self.memories = Memories(runner)
        self.files = Files(runner)
        self.knowledge = Knowledge(runner)
        self.tools = Tools(runner)
        self.subscription = Subscription(runner)
        self.admin = Admin(runner)

    @property
    def base_url(self) -> str:
        """Where the API is, without `/api/v1`."""
        return self._runner.exchange.url


class Everturn(_Groups[Blocking]):
    """The blocking client; safe to share between threads.

    It signs requests with an API key, with an access token, or with the tokens of
    `client.auth.login(…)`, which it refreshes by itself. `token_store` keeps them elsewhere.
    Units: seconds. `timeout_s` is for whole responses, `messages.create` among them, for which
    the API waits a minute by default; `max_retry_after_s` is the longest `Retry-After` to wait for.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | SecretStr | None = None,
        token: str | SecretStr | None = None,
        token_store: TokenStore | None = None,
        timeout_s: float = 90.0,
        max_retries: int = 2,
        max_retry_after_s: float = 60.0,
        http_client: httpx2.Client | None = None,
    ) -> None:
        exchange = Exchange(
            url=_origin(base_url),
            tokens=token_store or MemoryTokenStore(_tokens(api_key, token)),
            timeout_s=timeout_s,
            max_retries=max_retries,
            max_retry_after_s=max_retry_after_s,
        )
        super().__init__(Blocking(exchange, http_client or httpx2.Client(mounts=DIRECT)))

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 -- any JSON
        """Make a request that has no method here; `path` starts below `/api/v1`."""
        return self._runner.call(_request(method, path, query, body))

    def close(self) -> None:
        """Close the connections."""
        self._runner.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncEverturn(_Groups[Awaiting]):
    """The async client, for asyncio; its methods are those of `Everturn`, to be awaited."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | SecretStr | None = None,
        token: str | SecretStr | None = None,
        token_store: TokenStore | None = None,
        timeout_s: float = 90.0,
        max_retries: int = 2,
        max_retry_after_s: float = 60.0,
        http_client: httpx2.AsyncClient | None = None,
    ) -> None:
        exchange = Exchange(
            url=_origin(base_url),
            tokens=token_store or MemoryTokenStore(_tokens(api_key, token)),
            timeout_s=timeout_s,
            max_retries=max_retries,
            max_retry_after_s=max_retry_after_s,
        )
        super().__init__(Awaiting(exchange, http_client or httpx2.AsyncClient(mounts=DIRECT)))

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 -- any JSON
        """Make a request that has no method here; `path` starts below `/api/v1`."""
        return await self._runner.call(_request(method, path, query, body))

    async def close(self) -> None:
        """Close the connections."""
        await self._runner.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def _request(
    method: str,
    path: str,
    query: Mapping[str, str | int] | None,
    body: Mapping[str, Any] | None,
) -> Call[Any]:
    return Call(
        method=method,
        path=f"/{path.lstrip('/')}",
        answer=object,
        query=query or {},
        body=body,
        repeatable=method in {"GET", "HEAD", "PUT", "DELETE"},
    )


def _origin(base_url: str | None) -> str:
    """Return the origin of the API. Errors: ValueError for an invalid URL."""
    given = (base_url or os.environ.get("EVERTURN_URL") or DEFAULT_URL).rstrip("/")
    given = given.removesuffix("/api/v1")
    try:
        url = httpx2.URL(given)
    except httpx2.InvalidURL as error:
        raise ValueError(f"Invalid URL: {given}") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"Invalid URL: {given}")
    return given


def _tokens(api_key: str | SecretStr | None, token: str | SecretStr | None) -> Tokens | None:
    given = api_key or token or os.environ.get("EVERTURN_API_KEY")
    if not given:
        return None
    secret = given if isinstance(given, SecretStr) else SecretStr(given)
    return Tokens(access_token=secret)
