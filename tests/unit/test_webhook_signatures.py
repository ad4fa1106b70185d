"""Signatures of webhooks: what is signed is believed, and nothing else is."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest

from services.workflow_tools.signatures import (
    TOLERANCE,
    SignatureProblem,
    problem_of_signature,
    signature_headers,
    signing_key,
)

NOW = datetime(2026, 1, 31, 9, 0, tzinfo=UTC)
SECRET = "a secret of more than sixteen characters"
KEY = SECRET.encode()
BODY = b'{"tool":"create_ticket"}'
ID = "0190b5a8-0000-7000-8000-000000000000:1:toolu_1"


def signed(body: bytes = BODY, *, key: bytes = KEY, message_id: str = ID) -> dict[str, str]:
    return signature_headers(key, body, message_id=message_id, moment=NOW)


def problem(
    headers: dict[str, str], body: bytes = BODY, *, message_id: str = ID, now: datetime = NOW
) -> SignatureProblem | None:
    return problem_of_signature(KEY, body, headers, message_id=message_id, now=now)


def test_a_message_is_signed_as_other_libraries_sign_it() -> None:
    # Made by the package `standardwebhooks` 1.1.0.
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    moment = datetime.fromtimestamp(1614265330, UTC)

    headers = signature_headers(
        key, b'{"test": 2432232314}', message_id="msg_p5jXN8AQM9LWM0D4loKWxJek", moment=moment
    )

    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_the_signed_content_is_id_timestamp_and_body_joined_by_dots() -> None:
    content = f"{ID}.{int(NOW.timestamp())}.".encode() + BODY
    digest = base64.b64encode(hmac.digest(KEY, content, hashlib.sha256)).decode()

    assert signed()["webhook-signature"] == f"v1,{digest}"


def test_a_signed_message_is_accepted() -> None:
    assert problem(signed()) is None


def test_one_right_signature_among_several_is_enough() -> None:
    headers = signed()
    other = signed(key=b"the key from before the change")["webhook-signature"]
    headers["webhook-signature"] = f"v1a,AAAA {other} nonsense {headers['webhook-signature']}"

    assert problem(headers) is None


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_message_without_one_of_the_headers_is_rejected(missing: str) -> None:
    headers = signed()
    del headers[missing]

    assert problem(headers) is SignatureProblem.MISSING


def test_a_modified_body_is_rejected() -> None:
    assert problem(signed(), BODY + b" ") is SignatureProblem.WRONG


def test_a_message_signed_for_another_purpose_is_rejected() -> None:
    headers = signed(message_id="another")

    assert problem(headers) is SignatureProblem.WRONG


def test_a_signature_by_another_key_is_rejected() -> None:
    assert problem(signed(key=b"another key")) is SignatureProblem.WRONG


@pytest.mark.parametrize(
    "signature", ["v1,", "v1", ",", "v1,===", "v1,ÄÖ", "v2,AAAA", " " * 5000, "v1,A " * 5000]
)
def test_invalid_signatures_are_rejected(signature: str) -> None:
    headers = signed() | {"webhook-signature": signature}

    assert problem(headers) is SignatureProblem.WRONG


@pytest.mark.parametrize("away", [TOLERANCE, -TOLERANCE])
def test_clocks_may_be_a_little_apart(away: timedelta) -> None:
    assert problem(signed(), now=NOW + away) is None


@pytest.mark.parametrize("away", [TOLERANCE, -TOLERANCE])
def test_a_message_with_a_timestamp_out_of_tolerance_is_rejected(away: timedelta) -> None:
    late = NOW + away * 1.01

    assert problem(signed(), now=late) is SignatureProblem.OUT_OF_TIME


@pytest.mark.parametrize("timestamp", ["nan", "-1", "1e9", "1.5", "٣", "9" * 400, " 1"])
def test_invalid_timestamps_are_rejected(timestamp: str) -> None:
    headers = signed() | {"webhook-timestamp": timestamp}

    assert problem(headers) is SignatureProblem.OUT_OF_TIME


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        ("plain text of sixteen", b"plain text of sixteen"),
        ("geheime Wörter, viele", "geheime Wörter, viele".encode()),
        ("whsec_c2l4dGVlbiBjaGFyYWN0ZXJz", b"sixteen characters"),
        ("whsec_c2V2ZW50ZWVuIHNpZ25zIQ", b"seventeen signs!"),
        ("whsec_not base64 at all", b"whsec_not base64 at all"),
        ("whsec_", b"whsec_"),
    ],
)
def test_a_secret_is_base64_after_its_prefix_and_text_otherwise(secret: str, key: bytes) -> None:
    assert signing_key(secret) == key
