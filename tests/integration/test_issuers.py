"""Access tokens of external issuers, whose keys are fetched from a provider on loopback."""

import base64
import json
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from structlog.testing import capture_logs

from schema.ids import UserId, new_id
from services.auth.credentials import AccessTokens
from services.auth.issuers import ExternalIdentity, ExternalIssuers
from tests.fakes.identity_provider import (
    KEY_SET,
    IdentityProvider,
    SigningKey,
    rsa_key,
)
from tests.fixtures.trusted_issuers import ALGORITHMS, SetClock, moment, trusting


def put_together(header: dict[str, Any], claims: object, signature: bytes = b"signed") -> str:
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_token_of_a_trusted_issuer_speaks_for_its_subject(
    provider: IdentityProvider, issuers: ExternalIssuers, algorithm: str
) -> None:
    provider.rotate(SigningKey.new("k", algorithm))

    identity = await issuers.read(provider.token())

    assert identity == ExternalIdentity(
        issuer=provider.origin, subject="user|42", email="ada@example.com", name="Ada Lovelace"
    )


async def test_an_issuer_with_a_fixed_key_url_is_asked_for_nothing_else(
    provider: IdentityProvider, clock: SetClock
) -> None:
    async with trusting(
        provider.origin, clock=clock, jwks_url=f"{provider.origin}{KEY_SET}"
    ) as issuers:
        assert await issuers.read(provider.token()) is not None

    assert provider.asked == [KEY_SET]


async def test_a_token_for_several_audiences_is_read(
    provider: IdentityProvider, issuers: ExternalIssuers
) -> None:
    assert await issuers.read(provider.token(aud=["other", "everturn-api"])) is not None


@pytest.mark.parametrize(
    "changed",
    [
        {"exp": moment(minutes=-1)},
        {"exp": None},
        {"exp": "soon"},
        {"exp": float("inf")},
        {"nbf": moment(minutes=60)},
        {"nbf": "now"},
        {"iat": moment(minutes=60)},
        {"iat": None},
        {"aud": "another-api"},
        {"aud": []},
        {"aud": {"everturn-api": 1}},
        {"aud": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 42},
        {"sub": "s" * 256},
        {"sub": "nul\x00"},
        {"sub": "half \ud800"},
    ],
    ids=", ".join,
)
async def test_a_token_with_other_claims_is_invalid(
    provider: IdentityProvider, issuers: ExternalIssuers, changed: dict[str, Any]
) -> None:
    assert await issuers.read(provider.token(**changed)) is None


async def test_clocks_may_be_apart_by_the_leeway(
    provider: IdentityProvider, issuers: ExternalIssuers
) -> None:
    token = provider.token(exp=moment(seconds=-10), iat=moment(seconds=10), nbf=moment(seconds=10))

    assert await issuers.read(token) is not None


@pytest.mark.parametrize(
    ("changed", "email"),
    [
        ({}, "ada@example.com"),
        ({"email_verified": False}, None),
        ({"email_verified": None}, None),
        ({"email_verified": "true"}, None),
        ({"email_verified": 1}, None),
        ({"email": None}, None),
        ({"email": "not an address"}, None),
        ({"email": ["ada@example.com"]}, None),
        ({"email": f"{'a' * 300}@example.com"}, None),
        ({"email": "ada\x00@example.com"}, None),
    ],
    ids=ascii,
)
async def test_only_an_email_that_the_issuer_has_verified_is_returned(
    provider: IdentityProvider,
    issuers: ExternalIssuers,
    changed: dict[str, Any],
    email: str | None,
) -> None:
    identity = await issuers.read(provider.token(**changed))

    assert identity is not None
    assert identity.email == email


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("  Ada ", "Ada"),
        (" ", None),
        (7, None),
        ("n" * 101, None),
        ("\x00", None),
        ("\udc00", None),
        (None, None),
    ],
    ids=ascii,
)
async def test_an_unusable_name_is_skipped(
    provider: IdentityProvider, issuers: ExternalIssuers, given: object, expected: str | None
) -> None:
    identity = await issuers.read(provider.token(name=given))

    assert identity is not None
    assert identity.name == expected


@pytest.mark.parametrize(
    "name", [None, "https://example.com", "{origin}/", "{origin}/realms/one", ""], ids=str
)
async def test_an_untrusted_issuer_is_not_contacted(
    provider: IdentityProvider, issuers: ExternalIssuers, name: str | None
) -> None:
    claimed = None if name is None else name.format(origin=provider.origin)

    assert await issuers.read(provider.token(iss=claimed)) is None
    assert provider.asked == []


async def test_a_token_with_another_signature_is_invalid(
    provider: IdentityProvider, issuers: ExternalIssuers
) -> None:
    forged = SigningKey.new(provider.keys[0].kid).sign(provider.claims())

    assert await issuers.read(forged) is None


async def test_a_token_with_changed_claims_is_invalid(
    provider: IdentityProvider, issuers: ExternalIssuers
) -> None:
    header, _, signature = provider.token().split(".")
    _, claims, _ = provider.token(sub="somebody else").split(".")

    assert await issuers.read(f"{header}.{claims}.{signature}") is None


async def test_an_unsigned_token_is_invalid(
    provider: IdentityProvider, issuers: ExternalIssuers
) -> None:
    for name in ("none", "None", "NONE", ""):
        claims = {"iss": provider.origin, "sub": "user|42", "aud": "everturn-api"}
        unsigned = put_together({"alg": name, "kid": "first"}, claims, b"")
        assert await issuers.read(unsigned) is None

    assert provider.asked == []


async def test_a_public_key_is_not_a_signing_secret(
    provider: IdentityProvider, issuers: ExternalIssuers
) -> None:
    key = SigningKey.new("first", "RS256")
    provider.rotate(key)
    pem = key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    hs256 = jwt.get_algorithm_by_name("HS256")
    claims = {**provider.claims(), "iat": 0, "exp": 2**40}
    for secret in (pem, pem.strip(), json.dumps(key.jwk()).encode()):
        unsigned = put_together({"alg": "HS256", "kid": "first"}, claims).rpartition(".")[0]
        signature = base64.urlsafe_b64encode(hs256.sign(unsigned.encode(), secret))
        assert await issuers.read(f"{unsigned}.{signature.rstrip(b'=').decode()}") is None

    assert await issuers.read(provider.token()) is not None


async def test_a_disallowed_algorithm_is_rejected(
    provider: IdentityProvider, clock: SetClock
) -> None:
    async with trusting(provider.origin, clock=clock, algorithms=["RS256"]) as issuers:
        assert await issuers.read(provider.token()) is None

    assert provider.asked == []


async def test_a_key_is_used_only_for_its_own_algorithm(
    provider: IdentityProvider, issuers: ExternalIssuers
) -> None:
    provider.rotate(SigningKey("k", "RS256", rsa_key()))
    other = SigningKey("k", "PS256", rsa_key()).sign(provider.claims())

    assert await issuers.read(other) is None
    assert await issuers.read(provider.token()) is not None


@pytest.mark.parametrize(
    "text",
    ["", "x", "a.b.c", "...", "\x00", "\u00e9", "\ud800", "a" * 20_000],
    ids=lambda text: ascii(text[:8]),
)
async def test_other_text_is_not_a_token(
    provider: IdentityProvider, issuers: ExternalIssuers, text: str
) -> None:
    assert await issuers.read(text) is None
    assert provider.asked == []


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        ({"alg": "ES256", "kid": 7}, {"iss": "{origin}"}),
        ({"alg": "ES256", "kid": None}, {"iss": "{origin}"}),
        ({"alg": ["ES256"], "kid": "first"}, {"iss": "{origin}"}),
        ({"kid": "first"}, {"iss": "{origin}"}),
        ({"alg": "ES256", "crit": ["exp"], "exp": 1}, {"iss": "{origin}"}),
        ({"alg": "ES256", "crit": ["b64"], "b64": False}, {"iss": "{origin}"}),
        ({"alg": "ES256"}, {"iss": ["{origin}"]}),
        ({"alg": "ES256"}, ["{origin}"]),
    ],
    ids=ascii,
)
async def test_a_token_of_another_shape_is_invalid(
    provider: IdentityProvider, issuers: ExternalIssuers, header: dict[str, Any], claims: object
) -> None:
    named = json.loads(json.dumps(claims).replace("{origin}", provider.origin))

    assert await issuers.read(put_together(header, named)) is None
    assert provider.asked == []


async def test_a_token_that_is_too_large_is_invalid(
    provider: IdentityProvider, issuers: ExternalIssuers
) -> None:
    assert await issuers.read(provider.token(padding="p" * 16 * 1024)) is None
    assert await issuers.read(provider.token(padding="p" * 8 * 1024)) is not None


async def test_a_token_without_a_key_id_is_read_with_the_only_key_that_fits(
    provider: IdentityProvider, issuers: ExternalIssuers
) -> None:
    provider.keys = [SigningKey.new(None), SigningKey.new("r", "RS256")]

    assert await issuers.read(provider.token()) is not None


async def test_a_token_without_a_key_id_is_refused_where_several_keys_fit(
    provider: IdentityProvider, issuers: ExternalIssuers
) -> None:
    provider.keys = [SigningKey.new(None), SigningKey.new("other")]

    assert await issuers.read(provider.token()) is None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"aud": "another-api"}, "InvalidAudienceError: Audience doesn't match"),
        ({"exp": moment(minutes=-5)}, "ExpiredSignatureError: Signature has expired"),
        ({"sub": "nul\x00"}, "its subject can't be stored"),
        ({"iss": "https://other.example"}, "the issuer is not in EVERTURN_ISSUERS"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_why_a_token_is_refused_is_logged(
    provider: IdentityProvider, issuers: ExternalIssuers, changed: dict[str, Any], reason: str
) -> None:
    with capture_logs() as logs:
        assert await issuers.read(provider.token(**changed)) is None

    [line] = [log for log in logs if log["event"] == "external_token_refused"]
    assert (line["log_level"], line["reason"]) == ("info", reason)
    assert line["issuer"] == changed.get("iss", provider.origin)


async def test_an_expired_token_of_our_own_is_no_external_one(issuers: ExternalIssuers) -> None:
    tokens = AccessTokens("s" * 48, lifetime=-timedelta(minutes=1))

    with capture_logs() as logs:
        assert await issuers.read(tokens.issue(UserId(new_id()))) is None

    assert logs == []
