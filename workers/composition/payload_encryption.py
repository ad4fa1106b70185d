"""Encryption of what goes through Temporal: payloads of workflows, activities and failures.

Search attributes and the names of workflows and activities stay readable: Temporal indexes them.

UnreadablePayloadError    the key of a payload is not configured
"""

from collections.abc import Sequence
from typing import Final

from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from services.tools.secrets import SecretVault, UnreadableSecretError

_ENCODING: Final = b"binary/encrypted"
_OWNER: Final = "temporal payload"


class UnreadablePayloadError(Exception):
    """The key of a payload is not configured."""

    def __init__(self) -> None:
        super().__init__(
            "A payload from Temporal can't be decrypted: its key is not in "
            "EVERTURN_TEMPORAL_ENCRYPTION_KEYS."
        )


class EncryptionCodec(PayloadCodec):
    """Encrypts payloads with the first of some keys, and decrypts with all of them.

    Payloads from before the encryption are left as they are.
    Errors: WeakEncryptionKeyError from the constructor.
    """

    def __init__(self, keys: str) -> None:
        self._vault = SecretVault(keys, variable="EVERTURN_TEMPORAL_ENCRYPTION_KEYS")

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypt payloads, their metadata included."""
        return [
            Payload(
                metadata={"encoding": _ENCODING},
                data=self._vault.seal(payload.SerializeToString(), owner=_OWNER),
            )
            for payload in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypt payloads. Errors: UnreadablePayloadError."""
        return [self._decrypted(payload) for payload in payloads]

    def _decrypted(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != _ENCODING:
            return payload
        try:
            return Payload.FromString(self._vault.open(payload.data, owner=_OWNER))
        except UnreadableSecretError as error:
            raise UnreadablePayloadError from error
