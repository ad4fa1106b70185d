"""Signatures of webhooks: of outgoing requests, and of incoming callbacks.

The scheme is that of Standard Webhooks, symmetric (docs/decisions/0024-webhook-signatures.md).
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"
KEY_PREFIX: Final = "whsec_"
"""What a secret begins with that is base64."""

TOLERANCE: Final = timedelta(minutes=5)
"""The allowed difference between the clocks, including the time of transfer."""

_VERSION: Final = "v1"
_MAX_TIMESTAMP: Final = 12
_MAX_SIGNATURES: Final = 10


class SignatureProblem(StrEnum):
    """Why a message is not authentic."""

    MISSING = "missing"
    OUT_OF_TIME = "out_of_time"
    WRONG = "wrong"


def signing_key(secret: str) -> bytes:
    """Return the key of a secret: after `whsec_` it is base64, any other text is UTF-8."""
    if secret.startswith(KEY_PREFIX):
        encoded = secret.removeprefix(KEY_PREFIX).rstrip("=")
        try:
            key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if key:
            return key
    return secret.encode()


def signature_headers(
    key: bytes, body: bytes, *, message_id: str, moment: datetime
) -> dict[str, str]:
    """Return the headers that sign a message.

    Source: Standard Webhooks 1.0.0, "Signature scheme" and "Webhook headers".
    """
    timestamp = str(int(moment.timestamp()))
    digest = _digest(key, body, message_id=message_id, timestamp=timestamp)
    return {
        ID_HEADER: message_id,
        TIMESTAMP_HEADER: timestamp,
        SIGNATURE_HEADER: f"{_VERSION},{base64.b64encode(digest).decode()}",
    }


def problem_of_signature(
    key: bytes, body: bytes, headers: Mapping[str, str], *, message_id: str, now: datetime
) -> SignatureProblem | None:
    """Return why a message was not signed with the key under this id, or None.

    The id is not taken from the message: a signature for one purpose can't be used for another.
    Shapes: `headers` has lowercase names, or is case-insensitive.
    """
    timestamp = headers.get(TIMESTAMP_HEADER, "")
    signatures = headers.get(SIGNATURE_HEADER, "")
    if not (headers.get(ID_HEADER) and timestamp and signatures):
        return SignatureProblem.MISSING
    if not _is_timely(timestamp, now):
        return SignatureProblem.OUT_OF_TIME
    expected = _digest(key, body, message_id=message_id, timestamp=timestamp)
    # There are several while a secret is being replaced; those of other versions are ignored.
    given = signatures.split(" ", _MAX_SIGNATURES)[:_MAX_SIGNATURES]
    # All are compared, so that the time taken does not reveal which one matched.
    matches = [hmac.compare_digest(expected, _decoded(signature)) for signature in given]
    return None if any(matches) else SignatureProblem.WRONG


def _digest(key: bytes, body: bytes, *, message_id: str, timestamp: str) -> bytes:
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    return hmac.new(key, signed, hashlib.sha256).digest()


def _decoded(signature: str) -> bytes:
    """Return the bytes of one signature; empty for another version or invalid base64."""
    version, _, encoded = signature.partition(",")
    if version != _VERSION:
        return b""
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _is_timely(timestamp: str, now: datetime) -> bool:
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= _MAX_TIMESTAMP):
        return False
    return abs(now.timestamp() - int(timestamp)) <= TOLERANCE.total_seconds()
