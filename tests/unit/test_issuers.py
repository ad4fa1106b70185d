"""External issuers: valid configurations, keys that verify, and how long keys are fresh."""

import json
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from pydantic import TypeAdapter, ValidationError

from services.auth.issuer_keys import (
    KeyProvider,
    KeySet,
    UnusableAnswerError,
    freshness,
    trusted_url,
)
from services.auth.issuers import ExternalIssuer, ExternalIssuerList
from tests.fakes.identity_provider import SigningKey

ISSUER = "https://auth.example.com/realms/everturn"
WIDE = ("RS256", "PS256", "ES256", "ES384", "EdDSA")
# 2,048 bits whose factors are unknown.
MODULUS = "_" * 341 + "w"


def issuer(**given: Any) -> ExternalIssuer:  # noqa: ANN401 -- any field
    return ExternalIssuer.model_validate({"issuer": ISSUER, "audience": "everturn-api", **given})


def key_set(*keys: object, algorithms: tuple[str, ...] = WIDE) -> KeySet:
    return KeySet(json.dumps({"keys": keys}).encode(), algorithms=algorithms)


def rsa(**changed: object) -> dict[str, Any]:
    members = {"kty": "RSA", "kid": "r", "n": MODULUS, "e": "AQAB", **changed}
    return {name: value for name, value in members.items() if value is not None}


def test_issuers_are_read_from_json() -> None:
    text = json.dumps([{"issuer": ISSUER, "audience": "api", "algorithms": ["PS256"], "leeway": 5}])

    (read,) = TypeAdapter(ExternalIssuerList).validate_json(text)

    assert read.issuer == ISSUER
    assert read.jwks_url is None
    assert read.algorithms == {"PS256"}
    assert read.leeway == timedelta(seconds=5)


def test_an_issuer_needs_no_more_than_its_name_and_an_audience() -> None:
    assert issuer().algorithms == {"RS256", "ES256"}


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_name_of_an_issuer_stays_as_it_was_written(slash: str) -> None:
    assert issuer(issuer=ISSUER + slash).issuer == ISSUER + slash


@pytest.mark.parametrize(
    "given",
    [
        {"issuer": "auth.example.com"},
        {"issuer": "https://auth.example.com?realm=1"},
        {"issuer": "https://auth.example.com#"},
        {"audience": ""},
        {"audience": None},
        {"jwks_url": "http://auth.example.com/keys"},
        {"algorithms": []},
        {"algorithms": ["HS256"]},
        {"algorithms": ["RS256", "none"]},
        {"leeway": -1},
        {"leeway": 301},
        {"algoritms": ["RS256"]},
    ],
    ids=str,
)
def test_an_issuer_that_could_not_be_trusted_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(given))):
        issuer(**given)


def test_a_duplicate_issuer_is_rejected() -> None:
    with pytest.raises(ValidationError, match="each issuer once"):
        TypeAdapter(ExternalIssuerList).validate_python([issuer(), issuer(audience="another")])


@pytest.mark.parametrize(
    "url",
    [
        "https://auth.example.com",
        "https://auth.example.com:8443/keys?policy=1",
        "http://localhost:8080/keys",
        "http://127.0.0.1:8080",
        "http://[::1]:8080",
    ],
)
def test_keys_may_come_over_https_or_from_loopback(url: str) -> None:
    assert trusted_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/keys",
        "https://",
        "http://auth.example.com",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://10.0.0.1",
        "file:///etc/passwd",
        "https://user:secret@auth.example.com",
        "https://auth.example.com/#keys",
        "https://auth.example.com:port",
        "https://xn--\u00e9.example.com",
        "https://auth.example.com/\x00",
        f"https://auth.example.com/{'k' * 2048}",
    ],
)
def test_keys_may_not_come_from_any_other_url(url: str) -> None:
    with pytest.raises(ValueError, match="must"):
        trusted_url(url)


@pytest.mark.parametrize(
    ("cache_control", "expected"),
    [
        ("", timedelta(minutes=10)),
        ("no-cache", timedelta(minutes=10)),
        ("public, max-age=900", timedelta(minutes=15)),
        ("MAX-AGE=900", timedelta(minutes=15)),
        ("s-maxage=1800", timedelta(minutes=10)),
        ("max-age=0", timedelta(minutes=1)),
        ("max-age=31536000", timedelta(hours=1)),
        ("max-age=-5", timedelta(minutes=10)),
        ("max-age=99999999999999999999", timedelta(minutes=10)),
        ("max-age=soon", timedelta(minutes=10)),
    ],
)
def test_keys_are_fresh_as_long_as_the_issuer_says_within_bounds(
    cache_control: str, expected: timedelta
) -> None:
    assert freshness(cache_control) == expected


def test_a_key_is_found_by_its_id_and_its_algorithm() -> None:
    keys = key_set(SigningKey.new("e").jwk(), rsa(alg="RS256"))

    assert keys.find("e", "ES256") is not None
    assert keys.find("r", "RS256") is not None
    assert keys.find("e", "RS256") is None
    assert keys.find("r", "PS256") is None
    assert keys.find("other", "ES256") is None
    assert keys.find("", "ES256") is None


def test_a_key_that_names_no_algorithm_fits_all_of_its_kind_that_are_allowed() -> None:
    keys = key_set(rsa())

    assert keys.find("r", "RS256") is not None
    assert keys.find("r", "PS256") is not None
    assert keys.find("r", "RS512") is None
    assert keys.find("r", "ES256") is None


def test_a_curve_fits_only_its_own_algorithm() -> None:
    keys = key_set(SigningKey.new("e", "ES384").jwk(alg=None))

    assert keys.find("e", "ES384") is not None
    assert keys.find("e", "ES256") is None


def test_without_an_id_the_only_fitting_key_is_taken() -> None:
    keys = key_set(SigningKey.new("e").jwk(), rsa(alg="RS256"))

    assert keys.find(None, "ES256") is not None
    assert keys.find(None, "EdDSA") is None


def test_without_an_id_none_of_several_keys_is_taken() -> None:
    keys = key_set(SigningKey.new("one").jwk(), SigningKey.new("two").jwk())

    assert keys.find(None, "ES256") is None


def test_an_id_that_two_keys_share_names_neither() -> None:
    keys = key_set(SigningKey.new("e").jwk(), SigningKey.new("e").jwk())

    assert keys.find("e", "ES256") is None


@pytest.mark.parametrize(
    "unusable",
    [
        {"use": "enc"},
        {"key_ops": ["sign"]},
        {"alg": "HS256"},
        {"alg": "RSA-OAEP"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": None},
        {"n": None},
        {"n": 7},
        {"n": ""},
        {"n": "\u00e9"},
        {"n": "_" * 170 + "w"},  # 1,022 bits
        {"n": "_" * 1500},
        {"e": "AA"},
        {"d": "AQAB"},
    ],
    ids=str,
)
def test_a_key_that_cannot_verify_is_skipped(unusable: dict[str, Any]) -> None:
    keys = key_set(rsa(**unusable), "text", None, {}, SigningKey.new("e").jwk())

    assert keys.find("r", "RS256") is None
    assert keys.find("e", "ES256") is not None


def test_a_point_off_the_curve_is_not_a_key() -> None:
    assert key_set(SigningKey.new("e").jwk(x="A" * 43)).find("e", "ES256") is None


def test_a_set_without_keys_has_none() -> None:
    assert key_set().find(None, "ES256") is None


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b"\xff",
        b"[" * 100_000,
        b'{"keys": ' + b"[" * 100_000,
        json.dumps({"keys": [{}] * 101}).encode(),
    ],
    ids=lambda document: repr(document[:12]),
)
def test_invalid_key_sets_are_rejected(document: bytes) -> None:
    with pytest.raises(UnusableAnswerError):
        KeySet(document, algorithms=WIDE)


@pytest.mark.parametrize("url", ["HTTP://127.0.0.1:8500/keys", "https://localhost/keys"])
async def test_an_issuer_of_the_internet_does_not_send_us_to_our_own_machine(url: str) -> None:
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(str(request.url))
        found = json.dumps({"issuer": ISSUER, "jwks_uri": url}).encode()
        return httpx2.Response(200, stream=httpx2.ByteStream(found))

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http:
        provider = KeyProvider(
            ISSUER, http, jwks_url=None, algorithms=WIDE, timeout=timedelta(seconds=10)
        )
        with pytest.raises(UnusableAnswerError, match="loopback"):
            await provider.fetch()

    assert asked == [f"{ISSUER}/.well-known/openid-configuration"]
