"""Access tokens: ours, whole and young, or none."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt
import pytest

from schema.ids import UserId
from services.auth.credentials import AccessClaims, AccessTokens, WeakSecretError

SECRET = "s" * 40
USER = UserId(uuid4())


def tokens(minutes: float = 5) -> AccessTokens:
    return AccessTokens(SECRET, lifetime=timedelta(minutes=minutes))


def claims(**changed: object) -> dict[str, Any]:
    now = datetime.now(UTC)
    created = {
        "iss": "everturn",
        "sub": str(USER),
        "iat": now,
        "exp": now + timedelta(minutes=1),
        **changed,
    }
    return {name: value for name, value in created.items() if value is not None}


def test_a_token_speaks_for_whom_it_was_issued() -> None:
    assert tokens().read(tokens().issue(USER)) == AccessClaims(USER, None)


def test_a_token_names_the_sign_in_that_it_belongs_to() -> None:
    session_id = uuid4()

    token = tokens().issue(USER, session_id=session_id)

    assert tokens().read(token) == AccessClaims(USER, session_id)


def test_an_expired_token_is_invalid() -> None:
    assert tokens().read(tokens(minutes=-1).issue(USER)) is None


def test_a_token_that_was_read_before_gets_too_old_like_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = tokens()
    token = reader.issue(USER)
    read = reader.read(token)
    later = time.time() + timedelta(minutes=5).total_seconds()

    monkeypatch.setattr(time, "time", lambda: later)

    assert read == AccessClaims(USER, None)
    assert reader.read(token) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "another"},
        {"iss": None},
        {"sub": None},
        {"sub": "nobody"},
        {"sid": "no id"},
        {"exp": None},
        {"iat": None},
        {"iat": "soon"},
        {"nbf": datetime(2999, 1, 1, tzinfo=UTC)},
    ],
    ids=str,
)
def test_a_token_with_other_claims_is_invalid(changed: dict[str, Any]) -> None:
    token = jwt.encode(claims(**changed), SECRET, algorithm="HS256")

    assert tokens().read(token) is None


def test_claims_as_we_write_them_are_read() -> None:
    assert tokens().read(jwt.encode(claims(), SECRET, algorithm="HS256")) == AccessClaims(
        USER, None
    )


def test_a_token_with_another_signature_is_invalid() -> None:
    for forged in (
        jwt.encode(claims(), "t" * 40, algorithm="HS256"),
        jwt.encode(claims(), "s" * 64, algorithm="HS512"),
        jwt.encode(claims(), "", algorithm="none"),
    ):
        assert tokens().read(forged) is None


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "...", "\x00", "\u00e9"])
def test_other_text_is_not_a_token(text: str) -> None:
    assert tokens().read(text) is None


@pytest.mark.parametrize("secret", ["", "s" * 31])
def test_a_secret_that_can_be_guessed_is_refused(secret: str) -> None:
    with pytest.raises(WeakSecretError, match="EVERTURN_AUTH_SECRET"):
        AccessTokens(secret, lifetime=timedelta(minutes=5))
