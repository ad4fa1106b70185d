"""Owns which outside issuers are trusted, and whom their access tokens speak for.

Their keys are issuer_keys.py's. Which account an outside identity has is no matter of this module,
and neither is what it may do: a role in an outside token is not even read.
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
from services.auth.issuer_keys import Clock, IssuerKeys, KeyProvider, trusted_url

_log = structlog.get_logger(__name__)

_LONGEST_TOKEN: Final = 16 * 1024
_ANSWER_WITHIN: Final = timedelta(seconds=5)

# No HS*: their key would be a secret that we share with the issuer, and could sign with.
SigningAlgorithm: TypeAlias = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"
]


def _issuer_url(text: str) -> str:
    if {"?", "#"} & set(trusted_url(text)):
        raise ValueError("must have no query and no fragment")
    return text


class OutsideIssuer(BaseModel):
    """An issuer whose access tokens are taken.

    `issuer` is compared with the claim `iss` to the letter, a slash at the end included. The
    tokens have to be meant for `audience`: that of this API, not of the page that people sign in
    to. Without `jwks_url` the issuer is asked where its keys are.

    Units: `leeway` is in seconds where it is a number: how far the clocks may be apart.
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


def _each_once(issuers: tuple[OutsideIssuer, ...]) -> tuple[OutsideIssuer, ...]:
    if len({issuer.issuer for issuer in issuers}) < len(issuers):
        raise ValueError("must name each issuer once")
    return issuers


OutsideIssuerList: TypeAlias = Annotated[tuple[OutsideIssuer, ...], AfterValidator(_each_once)]


class OutsideIdentity(BaseModel):
    """Whom a token of an outside issuer speaks for; only issuer and subject together name them.

    `email` is there only where the issuer has verified it.
    """

    model_config = ConfigDict(frozen=True)

    issuer: str
    subject: str
    email: str | None
    name: str | None


class OutsideIssuers:
    """Reads access tokens of the issuers that are trusted.

    Source: RFC 7519; RFC 8725.
    """

    def __init__(
        self,
        issuers: Iterable[OutsideIssuer],
        http: httpx2.AsyncClient,
        *,
        answer_within: timedelta = _ANSWER_WITHIN,
        clock: Clock = time.monotonic,
    ) -> None:
        self._trusted = {
            issuer.issuer: _Trusted(issuer, _keys_of(issuer, http, answer_within, clock=clock))
            for issuer in issuers
        }

    async def read(self, token: str) -> OutsideIdentity | None:
        """Return whom a token speaks for, or None if it is no valid token of a trusted issuer.

        Errors: IssuerUnavailableError where it can't be told now.
        """
        unverified = _unverified(token)
        trusted = None if unverified is None else self._trusted.get(unverified.issuer)
        if unverified is None or trusted is None:
            return None
        if unverified.algorithm not in trusted.issuer.algorithms:
            return None
        key = await trusted.keys.find(unverified.kid, unverified.algorithm)
        return None if key is None else _verified(token, key, trusted.issuer)

    async def close(self) -> None:
        """Give up asking issuers for keys."""
        await asyncio.gather(*(trusted.keys.close() for trusted in self._trusted.values()))


class _Trusted(NamedTuple):
    issuer: OutsideIssuer
    keys: IssuerKeys


class _Unverified(NamedTuple):
    """What decides whose key has to verify a token; anyone can have written it."""

    issuer: str
    kid: str | None
    algorithm: str


def _keys_of(
    issuer: OutsideIssuer, http: httpx2.AsyncClient, answer_within: timedelta, *, clock: Clock
) -> IssuerKeys:
    provider = KeyProvider(
        issuer.issuer,
        http,
        jwks_url=issuer.jwks_url,
        algorithms=issuer.algorithms,
        timeout=answer_within,
    )
    return IssuerKeys(provider, clock=clock)


def _unverified(token: str) -> _Unverified | None:
    if len(token) > _LONGEST_TOKEN or not token.isascii():
        return None
    try:
        read = jwt.decode_complete(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return None
    header, issuer = read["header"], read["payload"].get("iss")
    algorithm = header.get("alg")
    if not isinstance(issuer, str) or not isinstance(algorithm, str):
        return None
    return _Unverified(issuer, header.get("kid"), algorithm)


def _verified(token: str, key: jwt.PyJWK, issuer: OutsideIssuer) -> OutsideIdentity | None:
    """Not before `nbf`, where there is one: many issuers write none."""
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=sorted(issuer.algorithms),
            audience=issuer.audience,
            issuer=issuer.issuer,
            leeway=issuer.leeway,
            options={"require": ["exp", "iat", "aud", "iss", "sub"]},
        )
        return _identity(issuer.issuer, claims)
    except (jwt.PyJWTError, ValidationError) as error:
        _log.debug("outside_token_refused", issuer=issuer.issuer, reason=type(error).__name__)
        return None


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
    """A subject that can't be stored is refused; a name or an e-mail address is left out."""

    sub: _Subject
    email: Annotated[Email | None, WrapValidator(_or_none)] = None
    email_verified: object = None
    name: Annotated[_Name | None, WrapValidator(_or_none)] = None


def _identity(issuer: str, claims: dict[str, Any]) -> OutsideIdentity:
    read = _Claims.model_validate(claims)
    return OutsideIdentity(
        issuer=issuer,
        subject=read.sub,
        email=read.email if read.email_verified is True else None,
        name=read.name,
    )
