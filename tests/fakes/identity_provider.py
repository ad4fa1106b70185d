"""An identity provider of loopback: OpenID configuration, key set, and tokens signed by its keys.

It can rotate its keys, and answer late, wrongly, too much or never.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, TypeAlias

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tests.fixtures.serving import serving

CONFIGURATION = "/.well-known/openid-configuration"
KEY_SET = "/keys/jwks.json"

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@cache
def rsa_key(number: int = 1) -> rsa.RSAPrivateKey:
    """Return one of a few keys that are generated once per run: generating one takes long."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def private_key(algorithm: str) -> PrivateKey:
    """Return a key for an algorithm."""
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm.startswith("ES"):
        return ec.generate_private_key(ec.SECP384R1() if algorithm == "ES384" else ec.SECP256R1())
    return rsa_key()


@dataclass(frozen=True)
class SigningKey:
    """A key of the provider, and the algorithm that it is meant for."""

    kid: str | None
    algorithm: str
    private: PrivateKey

    @classmethod
    def new(cls, kid: str | None, algorithm: str = "ES256") -> "SigningKey":
        return cls(kid, algorithm, private_key(algorithm))

    def jwk(self, **changed: object) -> dict[str, Any]:
        """Return its public half as it stands in the key set; `None` leaves a member out."""
        implementation: Any = jwt.get_algorithm_by_name(self.algorithm)
        public = implementation.to_jwk(self.private.public_key(), as_dict=True)
        members = {**public, "use": "sig", "alg": self.algorithm, "kid": self.kid, **changed}
        return {name: value for name, value in members.items() if value is not None}

    def sign(self, claims: dict[str, Any]) -> str:
        headers = {} if self.kid is None else {"kid": self.kid}
        return jwt.encode(claims, self.private, algorithm=self.algorithm, headers=headers)


class IdentityProvider:
    """The state of the provider, and a record of what it was asked."""

    def __init__(self) -> None:
        self.origin = ""
        self.hears = asyncio.Event()
        self._speaks = asyncio.Event()
        self._speaks.set()
        self.start_over()

    def start_over(self) -> None:
        """Forget all but the address."""
        self.keys = [SigningKey.new("first")]
        # The members of its key set, where they are not those of `keys`.
        self.jwks: list[object] | None = None
        self.cache_control: str | None = None
        self.configured: dict[str, Any] = {}
        # What paths are answered with instead of what they hold.
        self.answers: dict[str, Response] = {}
        self.asked: list[str] = []

    @property
    def fetches(self) -> int:
        """How often the key set was asked for."""
        return self.asked.count(KEY_SET)

    def rotate(self, key: SigningKey) -> None:
        """Sign with another key, and publish only that one."""
        self.keys = [key]

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Answer nothing until the block ends; `hears` is set by the first who asks."""
        self.hears.clear()
        self._speaks.clear()
        try:
            yield
        finally:
            self._speaks.set()

    def claims(self, **changed: object) -> dict[str, Any]:
        """Return the claims of a valid token; `None` leaves one out."""
        now = datetime.now(UTC)
        claims: dict[str, Any] = {
            "iss": self.origin,
            "sub": "user|42",
            "aud": "everturn-api",
            "iat": now,
            "exp": now + timedelta(minutes=5),
            "email": "ada@example.com",
            "email_verified": True,
            "name": "Ada Lovelace",
            **changed,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, **changed: object) -> str:
        """Return a token that is valid except for the changed claims."""
        return self.keys[0].sign(self.claims(**changed))

    def application(self) -> FastAPI:
        """Return the ASGI application."""
        routes: list[BaseRoute] = [
            Route(CONFIGURATION, self._configuration),
            Route(KEY_SET, self._key_set),
        ]
        return FastAPI(routes=routes, openapi_url=None)

    async def _configuration(self, request: Request) -> Response:
        found = {"issuer": self.origin, "jwks_uri": f"{self.origin}{KEY_SET}", **self.configured}
        return await self._answer(request, JSONResponse(found))

    async def _key_set(self, request: Request) -> Response:
        keys = [key.jwk() for key in self.keys] if self.jwks is None else self.jwks
        headers = {} if self.cache_control is None else {"Cache-Control": self.cache_control}
        document = json.dumps({"keys": keys})
        return await self._answer(
            request, Response(document, media_type="application/json", headers=headers)
        )

    async def _answer(self, request: Request, usual: Response) -> Response:
        self.asked.append(request.url.path)
        self.hears.set()
        await self._speaks.wait()
        return self.answers.get(request.url.path, usual)


@asynccontextmanager
async def identity_provider() -> AsyncIterator[IdentityProvider]:
    """Serve a provider on a free port of loopback, in the running loop."""
    provider = IdentityProvider()
    async with serving(provider.application()) as origin:
        provider.origin = origin
        yield provider
