"""External issuers whose access tokens are accepted, and the identities that these tokens name.

Their keys are in issuer_keys.py, the accounts of identities in external_accounts.py. A role in an
external token is not even read.
"""

import asyncio
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias

import httpx2
import jwt
import structlog
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from schema.users import Email
from schema.wire import StorableText
from services.auth.credentials import OWN_ISSUER
from services.auth.issuer_keys import Clock, IssuerKeys, KeyProvider, trusted_url

_log = structlog.get_logger(__name__)

_MAX_TOKEN_LENGTH: Final = 16 * 1024
_LONGEST_SHOWN: Final = 200
_TIMEOUT: Final = timedelta(seconds=5)

# No HS*: its key is a secret shared with the issuer, with which we could sign tokens ourselves.
SigningAlgorithm: TypeAlias = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"
]


def _issuer_url(text: str) -> str:
    if {"?", "#"} & set(trusted_url(text)):
        raise ValueError("must not have a query or a fragment")
    return text


class ExternalIssuer(BaseModel):
    """An issuer whose access tokens are accepted.

    `issuer` must equal the claim `iss` exactly, a trailing slash included. Tokens must be issued
    for `audience`: that of this API, not of the page where people sign in. Without `jwks_url` the
    URL of the keys is discovered.

    Units: `leeway` is in seconds if it is a number: how far the clocks may differ.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: Annotated[str, AfterValidator(_issuer_url)]
    audience: Annotated[str, Field(min_length=1, max_length=255)]
    jwks_url: Annotated[str, AfterValidator(trusted_url)] | None = None
    algorithms: Annotated[frozenset[SigningAlgorithm], Field(min_length=1)] = frozenset(
        {"RS256", "ES256"}
    )
    leeway: Annotated[timedelta, Field(ge=timedelta(0), le=timedelta(minutes=5))] = timedelta(
        seconds=30
    )


def _each_once(issuers: tuple[ExternalIssuer, ...]) -> tuple[ExternalIssuer, ...]:
    if len({issuer.issuer for issuer in issuers}) < len(issuers):
        raise ValueError("must name each issuer once")
    return issuers


ExternalIssuerList: TypeAlias = Annotated[tuple[ExternalIssuer, ...], AfterValidator(_each_once)]


class ExternalIdentity(BaseModel):
    """The identity in a token of an external issuer; issuer and subject together identify it.

    `email` is set only if the issuer has verified it.
    """

    model_config = ConfigDict(frozen=True)

    issuer: str
    subject: str
    email: str | None
    name: str | None


class _RefusedError(Exception):
    """A token is refused before its signature is checked."""


class ExternalIssuers:
    """Reads access tokens of trusted issuers.

    Source: RFC 7519; RFC 8725.
    """

    def __init__(
        self,
        issuers: Iterable[ExternalIssuer],
        http: httpx2.AsyncClient,
        *,
        timeout: timedelta = _TIMEOUT,
        clock: Clock = time.monotonic,
    ) -> None:
        self._trusted = {
            issuer.issuer: _Trusted(issuer, _keys_of(issuer, http, timeout, clock=clock))
            for issuer in issuers
        }

    async def read(self, token: str) -> ExternalIdentity | None:
        """Return the identity in a token, or None unless a trusted issuer's token is valid.

        Why a token of an issuer is refused is logged: the caller only gets a 401.
        Errors: IssuerUnavailableError if it can't be verified now.
        """
        unverified = _unverified(token)
        if unverified is None:
            return None
        try:
            return await self._verify(token, unverified)
        except _RefusedError as error:
            reason = str(error)
        except jwt.PyJWTError as error:
            reason = f"{type(error).__name__}: {error}"
        except ValidationError:
            reason = "its subject can't be stored"
        # Anyone can have written the issuer, and the algorithm.
        _log.info(
            "external_token_refused",
            issuer=unverified.issuer[:_LONGEST_SHOWN],
            reason=reason[:_LONGEST_SHOWN],
        )
        return None

    async def _verify(self, token: str, unverified: "_Unverified") -> ExternalIdentity:
        trusted = self._trusted.get(unverified.issuer)
        if trusted is None:
            raise _RefusedError("the issuer is not in EVERTURN_ISSUERS")
        if unverified.algorithm not in trusted.issuer.algorithms:
            raise _RefusedError(f"the algorithm {unverified.algorithm} is not allowed")
        key = await trusted.keys.find(unverified.kid, unverified.algorithm)
        if key is None:
            raise _RefusedError("the issuer has no such key")
        return _identity(trusted.issuer.issuer, _claims(token, key, trusted.issuer))

    async def close(self) -> None:
        """Cancel requests for keys."""
        await asyncio.gather(*(trusted.keys.close() for trusted in self._trusted.values()))


class _Trusted(NamedTuple):
    issuer: ExternalIssuer
    keys: IssuerKeys


class _Unverified(NamedTuple):
    """Claims that choose the key to verify a token with; anyone can have written them."""

    issuer: str
    kid: str | None
    algorithm: str


def _keys_of(
    issuer: ExternalIssuer, http: httpx2.AsyncClient, timeout: timedelta, *, clock: Clock
) -> IssuerKeys:
    provider = KeyProvider(
        issuer.issuer,
        http,
        jwks_url=issuer.jwks_url,
        algorithms=issuer.algorithms,
        timeout=timeout,
    )
    return IssuerKeys(provider, clock=clock)


def _unverified(token: str) -> _Unverified | None:
    if len(token) > _MAX_TOKEN_LENGTH or not token.isascii():
        return None
    try:
        read = jwt.decode_complete(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return None
    header, issuer = read["header"], read["payload"].get("iss")
    algorithm = header.get("alg")
    if not isinstance(issuer, str) or not isinstance(algorithm, str) or issuer == OWN_ISSUER:
        return None
    return _Unverified(issuer, header.get("kid"), algorithm)


def _claims(token: str, key: jwt.PyJWK, issuer: ExternalIssuer) -> dict[str, Any]:
    """Return the claims of a valid token. `nbf` is optional: many issuers leave it out.

    Errors: jwt.PyJWTError.
    """
    claims: dict[str, Any] = jwt.decode(
        token,
        key,
        algorithms=sorted(issuer.algorithms),
        audience=issuer.audience,
        issuer=issuer.issuer,
        leeway=issuer.leeway,
        options={"require": ["exp", "iat", "aud", "iss", "sub"]},
    )
    return claims


def _or_none(value: object, check: ValidatorFunctionWrapHandler) -> object:
    try:
        return check(value)
    except ValidationError:
        return None


_Subject: TypeAlias = Annotated[StorableText, Field(min_length=1, max_length=255)]
_Name: TypeAlias = Annotated[
    StorableText,
    StringConstraints(strip_whitespace=True),
    Field(min_length=1, max_length=100),  # of what is left
]


class _Claims(BaseModel):
    """A subject that can't be stored is refused; a name or an email is left out."""

    sub: _Subject
    email: Annotated[Email | None, WrapValidator(_or_none)] = None
    email_verified: object = None
    name: Annotated[_Name | None, WrapValidator(_or_none)] = None


def _identity(issuer: str, claims: dict[str, Any]) -> ExternalIdentity:
    read = _Claims.model_validate(claims)
    return ExternalIdentity(
        issuer=issuer,
        subject=read.sub,
        email=read.email if read.email_verified is True else None,
        name=read.name,
    )
