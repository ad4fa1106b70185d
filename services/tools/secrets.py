"""Encryption of the secrets that administrators store in Everturn.

A sealed secret opens only for its owner: copied to another tool's row, it can't be read there. Keys
are a setting; the first one seals, all of them open, so that a key can be rotated.

WeakEncryptionKeyError    a key is too short to resist guessing
SecretError
├── NoEncryptionKeyError  no key to seal with is set
└── UnreadableSecretError the key is missing, or the secret is another owner's or damaged
"""

import os
from dataclasses import dataclass
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.setup_errors import SetupError

_SHORTEST_KEY: Final = 32
_FORMAT: Final = b"\x01"
_ID_BYTES: Final = 8
_NONCE_BYTES: Final = 12


class WeakEncryptionKeyError(SetupError):
    """A key is too short to resist guessing."""

    def __init__(self, variable: str) -> None:
        super().__init__(
            f"Each key in {variable} must have at least {_SHORTEST_KEY} random "
            "characters: python -c 'import secrets; print(secrets.token_urlsafe(48))'"
        )


class SecretError(Exception):
    """A secret can't be sealed or opened."""


class NoEncryptionKeyError(SecretError):
    """No key to seal with is set."""

    def __init__(self) -> None:
        super().__init__("EVERTURN_ENCRYPTION_KEYS is not set.")


class UnreadableSecretError(SecretError):
    """The key is missing, or the secret is another owner's or damaged."""

    def __init__(self) -> None:
        super().__init__(
            "Its secrets can't be decrypted: their key is not in EVERTURN_ENCRYPTION_KEYS."
        )


@dataclass(frozen=True, slots=True, repr=False)
class _Key:
    id: bytes
    cipher: AESGCM

    @classmethod
    def of(cls, words: str) -> Self:
        return cls(_derived(words, b"id", _ID_BYTES), AESGCM(_derived(words, b"cipher", 32)))


class SecretVault:
    """Seals and opens secrets with AES-256-GCM under keys derived from those of the settings.

    Errors: WeakEncryptionKeyError from the constructor.
    Source: NIST SP 800-38D; RFC 5869 for the derivation.
    """

    def __init__(self, keys: str, *, variable: str = "EVERTURN_ENCRYPTION_KEYS") -> None:
        """Parse the comma-separated keys of a setting; without any, secrets can't be sealed."""
        words = [key.strip() for key in keys.split(",") if key.strip()]
        if any(len(key) < _SHORTEST_KEY for key in words):
            raise WeakEncryptionKeyError(variable)
        self._keys = [_Key.of(key) for key in words]

    @property
    def has_key(self) -> bool:
        """Whether secrets can be sealed."""
        return bool(self._keys)

    def seal(self, secret: bytes, *, owner: str) -> bytes:
        """Return the encrypted secret. Errors: NoEncryptionKeyError."""
        if not self._keys:
            raise NoEncryptionKeyError
        key, nonce = self._keys[0], os.urandom(_NONCE_BYTES)
        return _FORMAT + key.id + nonce + key.cipher.encrypt(nonce, secret, owner.encode())

    def open(self, sealed: bytes, *, owner: str) -> bytes:
        """Return the secret sealed for this owner. Errors: UnreadableSecretError."""
        header, rest = sealed[: 1 + _ID_BYTES], sealed[1 + _ID_BYTES :]
        for key in self._keys:
            if header == _FORMAT + key.id:
                return _decrypted(key, rest, owner)
        raise UnreadableSecretError


def _decrypted(key: _Key, rest: bytes, owner: str) -> bytes:
    nonce, ciphertext = rest[:_NONCE_BYTES], rest[_NONCE_BYTES:]
    try:
        return key.cipher.decrypt(nonce, ciphertext, owner.encode())
    except (InvalidTag, ValueError) as error:
        raise UnreadableSecretError from error


def _derived(words: str, purpose: bytes, length: int) -> bytes:
    info = b"everturn secrets 1 " + purpose
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(words.encode())
