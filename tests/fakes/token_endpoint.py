"""An authorization server that issues tokens for client credentials, with scripted behaviour."""

from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote_plus

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from tests.fixtures.serving import serving

CLIENT = ("everturn", "s3cret & more")


@dataclass
class TokenEndpoint:
    """`asked` are the requests for tokens; `given` is called with each token that is given."""

    origin: str = ""
    lifetime_s: int | None = 3600
    takes_header: bool = True
    broken: Response | None = None
    names_issuer: str | None = None
    asked: list[dict[str, str]] = field(default_factory=list)
    given: Callable[[str], object] = lambda _: None

    @property
    def url(self) -> str:
        """Where tokens are to be had."""
        return f"{self.origin}/token"


@asynccontextmanager
async def serving_tokens() -> AsyncIterator[TokenEndpoint]:
    """Serve on a free port."""
    endpoint, app = TokenEndpoint(), FastAPI()

    @app.post("/token")
    async def token(request: Request) -> Response:
        form = {key: values[0] for key, values in parse_qs((await request.body()).decode()).items()}
        endpoint.asked.append(form)
        if endpoint.broken is not None:
            return endpoint.broken
        if _client_of(request, form, takes_header=endpoint.takes_header) != CLIENT:
            return JSONResponse({"error": "invalid_client"}, status_code=401)
        value = f"token-{len(endpoint.asked)}"
        endpoint.given(value)
        answer: dict[str, Any] = {"access_token": value, "token_type": "bearer"}
        if endpoint.lifetime_s is not None:
            answer["expires_in"] = endpoint.lifetime_s
        return JSONResponse(answer)

    @app.get("/.well-known/oauth-authorization-server")
    async def metadata() -> dict[str, str]:
        issuer = endpoint.names_issuer or endpoint.origin
        return {"issuer": issuer, "token_endpoint": endpoint.url}

    async with serving(app) as origin:
        endpoint.origin = origin
        yield endpoint


def _client_of(
    request: Request, form: dict[str, str], *, takes_header: bool
) -> tuple[str, str] | None:
    sent = request.headers.get("authorization", "")
    if takes_header and sent.startswith("Basic "):
        name, _, secret = b64decode(sent.removeprefix("Basic ")).decode().partition(":")
        return unquote_plus(name), unquote_plus(secret)
    if "client_secret" in form:
        return form["client_id"], form["client_secret"]
    return None
