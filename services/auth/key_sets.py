"""Owns reading a JSON Web Key Set: which of its keys can verify tokens, and by which algorithms.

Where key sets come from, and how long they are kept, is issuer_keys.py's.
"""

from collections.abc import Collection, Iterator
from typing import Annotated, Final, TypeAlias

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from pydantic import BaseModel, Field, ValidationError

_MOST_KEYS: Final = 100


class UnusableAnswerError(Exception):
    """An issuer answered, but not with what was asked for."""


class KeySet:
    """The keys of a JSON Web Key Set that can verify tokens.

    Errors: UnusableAnswerError from the constructor for a document that is no key set; keys that
    are private, weak, or meant for something else are left out instead.
    Source: RFC 7517.
    """

    def __init__(self, document: bytes, *, algorithms: Collection[str]) -> None:
        try:
            listed = _KeyList.model_validate_json(document).keys
        except ValidationError:
            raise UnusableAnswerError("the answer is no key set") from None
        self._keys = [key for entry in listed for key in _verifying_keys(entry, algorithms)]

    def find(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        """Return the key for a token's header; None where none fits, or more than one does."""
        fitting = [
            key
            for key in self._keys
            if key.algorithm_name == algorithm and (kid is None or key.key_id == kid)
        ]
        return fitting[0] if len(fitting) == 1 else None


_Member: TypeAlias = Annotated[str, Field(max_length=1400)] | None  # holds RSA of 8192 bits


class _JsonWebKey(BaseModel):
    """What a key says about itself, as far as it can be used here."""

    kty: str
    kid: str | None = None
    use: str | None = None
    key_ops: list[str] | None = None
    alg: str | None = None
    crv: _Member = None
    n: _Member = None
    e: _Member = None
    x: _Member = None
    y: _Member = None
    d: object = Field(None, exclude=True)

    def can_verify(self) -> bool:
        """Whether it is meant for it; a private key that anyone can fetch proves nothing."""
        for_verifying = self.key_ops is None or "verify" in self.key_ops
        return for_verifying and self.use in {None, "sig"} and self.d is None


class _KeyList(BaseModel):
    keys: Annotated[list[object], Field(max_length=_MOST_KEYS)]


def _verifying_keys(entry: object, algorithms: Collection[str]) -> Iterator[jwt.PyJWK]:
    """Yield the key once for each algorithm that it fits, bound to it."""
    try:
        jwk = _JsonWebKey.model_validate(entry)
    except ValidationError:
        return
    if not jwk.can_verify():
        return
    for algorithm in algorithms:
        if jwk.alg in {None, algorithm}:
            key = _bound(jwk, algorithm)
            if key is not None:
                yield key


def _bound(jwk: _JsonWebKey, algorithm: str) -> jwt.PyJWK | None:
    try:
        key = jwt.PyJWK(jwk.model_dump(exclude_none=True), algorithm)
        # This, and not the reading, refuses a curve that is not the algorithm's.
        prepared = key.Algorithm.prepare_key(key.key)
    except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError):
        return None
    too_weak = key.Algorithm.check_key_length(prepared)
    return None if too_weak else key
