"""Encryption of the payloads that go through Temporal."""

import secrets

import pytest
from pydantic import SecretStr
from temporalio.api.common.v1 import Payload

from services.settings import Settings
from services.tools.secrets import WeakEncryptionKeyError
from workers.composition.payload_encryption import EncryptionCodec, UnreadablePayloadError
from workers.composition.temporal import make_data_converter

OLD, NEW = secrets.token_urlsafe(48), secrets.token_urlsafe(48)
PLAIN = Payload(metadata={"encoding": b"json/plain"}, data=b'"hush"')


async def test_payloads_are_encrypted_with_their_metadata() -> None:
    codec = EncryptionCodec(NEW)

    first, second = await codec.encode([PLAIN, PLAIN])

    assert dict(first.metadata) == {"encoding": b"binary/encrypted"}
    assert b"hush" not in first.data
    assert first.data != second.data
    assert await codec.decode([first, second]) == [PLAIN, PLAIN]


async def test_payloads_from_before_a_rotation_are_read_and_the_first_key_encrypts() -> None:
    (old,) = await EncryptionCodec(OLD).encode([PLAIN])
    rotated = EncryptionCodec(f"{NEW}, {OLD}")
    (new,) = await rotated.encode([PLAIN])

    assert await rotated.decode([old, new]) == [PLAIN, PLAIN]
    assert await EncryptionCodec(NEW).decode([new]) == [PLAIN]


async def test_payloads_from_before_the_encryption_are_left_as_they_are() -> None:
    assert await EncryptionCodec(NEW).decode([PLAIN]) == [PLAIN]


async def test_a_payload_whose_key_is_missing_says_where_to_put_it() -> None:
    (old,) = await EncryptionCodec(OLD).encode([PLAIN])

    with pytest.raises(UnreadablePayloadError, match="EVERTURN_TEMPORAL_ENCRYPTION_KEYS"):
        await EncryptionCodec(NEW).decode([old])


async def test_a_changed_payload_is_refused() -> None:
    codec = EncryptionCodec(NEW)
    (payload,) = await codec.encode([PLAIN])
    payload.data = payload.data[:-1] + bytes([payload.data[-1] ^ 1])

    with pytest.raises(UnreadablePayloadError):
        await codec.decode([payload])


def test_a_key_that_can_be_guessed_is_refused() -> None:
    settings = Settings(_env_file=None, temporal_encryption_keys=SecretStr("short"))

    with pytest.raises(WeakEncryptionKeyError, match="EVERTURN_TEMPORAL_ENCRYPTION_KEYS"):
        make_data_converter(settings)


def test_without_keys_nothing_is_encrypted() -> None:
    settings = Settings(_env_file=None, temporal_encryption_keys=None)

    assert make_data_converter(settings).payload_codec is None
