"""Access tokens of outside issuers, whose keys are fetched from a provider of loopback."""

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.responses import HTMLResponse, RedirectResponse, Response

from services.auth.issuer_keys import IssuerUnavailableError
from services.auth.issuers import OutsideIdentity, OutsideIssuer, OutsideIssuers
from tests.fakes.identity_provider import (
    CONFIGURATION,
    KEY_SET,
    IdentityProvider,
    SigningKey,
    identity_provider,
    rsa_key,
)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
MINUTE = 60.0
DAY = 24 * 60 * MINUTE
BOUND_S = 10


class SetClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(scope="module")
async def served_provider() -> AsyncIterator[IdentityProvider]:
    async with identity_provider() as served:
        yield served


@pytest.fixture
def provider(served_provider: IdentityProvider) -> IdentityProvider:
    served_provider.start_over()
    return served_provider


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@asynccontextmanager
async def trusting(
    name: str, *, clock: SetClock, answer_within: float = BOUND_S, **given: object
) -> AsyncIterator[OutsideIssuers]:
    fields = {"issuer": name, "audience": "everturn-api", "algorithms": ALGORITHMS, **given}
    async with httpx.AsyncClient() as http:
        issuers = OutsideIssuers(
            [OutsideIssuer.model_validate(fields)],
            http,
            answer_within=timedelta(seconds=answer_within),
            clock=clock,
        )
        yield issuers
        await issuers.close()


@pytest.fixture
async def issuers(provider: IdentityProvider, clock: SetClock) -> AsyncIterator[OutsideIssuers]:
    async with trusting(provider.origin, clock=clock) as made:
        yield made


def moment(**from_now: float) -> datetime:
    return datetime.now(UTC) + timedelta(**from_now)


def put_together(header: dict[str, Any], claims: object, signature: bytes = b"signed") -> str:
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_token_of_a_trusted_issuer_speaks_for_its_subject(
    provider: IdentityProvider, issuers: OutsideIssuers, algorithm: str
) -> None:
    provider.rotate(SigningKey.new("k", algorithm))

    identity = await issuers.read(provider.token())

    assert identity == OutsideIdentity(
        issuer=provider.origin, subject="user|42", email="ada@example.com", name="Ada Lovelace"
    )


async def test_an_issuer_whose_keys_have_a_fixed_address_is_asked_for_nothing_else(
    provider: IdentityProvider, clock: SetClock
) -> None:
    async with trusting(
        provider.origin, clock=clock, jwks_url=f"{provider.origin}{KEY_SET}"
    ) as issuers:
        assert await issuers.read(provider.token()) is not None

    assert provider.asked == [KEY_SET]


async def test_a_token_for_several_audiences_is_read(
    provider: IdentityProvider, issuers: OutsideIssuers
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
async def test_a_token_with_other_claims_speaks_for_nobody(
    provider: IdentityProvider, issuers: OutsideIssuers, changed: dict[str, Any]
) -> None:
    assert await issuers.read(provider.token(**changed)) is None


async def test_clocks_may_be_apart_by_the_leeway(
    provider: IdentityProvider, issuers: OutsideIssuers
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
async def test_only_an_email_address_that_the_issuer_has_verified_is_told(
    provider: IdentityProvider,
    issuers: OutsideIssuers,
    changed: dict[str, Any],
    email: str | None,
) -> None:
    identity = await issuers.read(provider.token(**changed))

    assert identity is not None
    assert identity.email == email


@pytest.mark.parametrize(
    ("given", "told"),
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
async def test_a_name_that_can_not_be_used_is_left_out(
    provider: IdentityProvider, issuers: OutsideIssuers, given: object, told: str | None
) -> None:
    identity = await issuers.read(provider.token(name=given))

    assert identity is not None
    assert identity.name == told


@pytest.mark.parametrize(
    "name", [None, "https://example.com", "{origin}/", "{origin}/realms/one", ""], ids=str
)
async def test_an_issuer_that_is_not_trusted_is_not_even_asked(
    provider: IdentityProvider, issuers: OutsideIssuers, name: str | None
) -> None:
    claimed = None if name is None else name.format(origin=provider.origin)

    assert await issuers.read(provider.token(iss=claimed)) is None
    assert provider.asked == []


async def test_a_token_of_another_signature_speaks_for_nobody(
    provider: IdentityProvider, issuers: OutsideIssuers
) -> None:
    forged = SigningKey.new(provider.keys[0].kid).sign(provider.claims())

    assert await issuers.read(forged) is None


async def test_a_token_whose_claims_were_changed_speaks_for_nobody(
    provider: IdentityProvider, issuers: OutsideIssuers
) -> None:
    header, _, signature = provider.token().split(".")
    _, claims, _ = provider.token(sub="somebody else").split(".")

    assert await issuers.read(f"{header}.{claims}.{signature}") is None


async def test_a_token_that_nobody_signed_speaks_for_nobody(
    provider: IdentityProvider, issuers: OutsideIssuers
) -> None:
    for name in ("none", "None", "NONE", ""):
        claims = {"iss": provider.origin, "sub": "user|42", "aud": "everturn-api"}
        unsigned = put_together({"alg": name, "kid": "first"}, claims, b"")
        assert await issuers.read(unsigned) is None

    assert provider.asked == []


async def test_a_public_key_is_no_secret_to_sign_with(
    provider: IdentityProvider, issuers: OutsideIssuers
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


async def test_an_algorithm_that_is_not_allowed_is_refused(
    provider: IdentityProvider, clock: SetClock
) -> None:
    async with trusting(provider.origin, clock=clock, algorithms=["RS256"]) as issuers:
        assert await issuers.read(provider.token()) is None

    assert provider.asked == []


async def test_a_key_is_used_for_its_own_algorithm_alone(
    provider: IdentityProvider, issuers: OutsideIssuers
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
async def test_what_is_no_token_speaks_for_nobody(
    provider: IdentityProvider, issuers: OutsideIssuers, text: str
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
async def test_a_token_of_another_shape_speaks_for_nobody(
    provider: IdentityProvider, issuers: OutsideIssuers, header: dict[str, Any], claims: object
) -> None:
    named = json.loads(json.dumps(claims).replace("{origin}", provider.origin))

    assert await issuers.read(put_together(header, named)) is None
    assert provider.asked == []


async def test_a_token_that_is_too_large_speaks_for_nobody(
    provider: IdentityProvider, issuers: OutsideIssuers
) -> None:
    assert await issuers.read(provider.token(padding="p" * 16 * 1024)) is None
    assert await issuers.read(provider.token(padding="p" * 8 * 1024)) is not None


async def test_a_token_without_a_key_id_is_read_with_the_only_key_that_fits(
    provider: IdentityProvider, issuers: OutsideIssuers
) -> None:
    provider.keys = [SigningKey.new(None), SigningKey.new("r", "RS256")]

    assert await issuers.read(provider.token()) is not None


async def test_a_token_without_a_key_id_is_refused_where_several_keys_fit(
    provider: IdentityProvider, issuers: OutsideIssuers
) -> None:
    provider.keys = [SigningKey.new(None), SigningKey.new("other")]

    assert await issuers.read(provider.token()) is None


async def test_keys_are_fetched_once_for_many_tokens(
    provider: IdentityProvider, issuers: OutsideIssuers
) -> None:
    for _ in range(5):
        assert await issuers.read(provider.token()) is not None

    assert provider.asked == [CONFIGURATION, KEY_SET]


async def test_those_who_come_first_at_once_share_one_fetch(
    provider: IdentityProvider, issuers: OutsideIssuers
) -> None:
    with provider.hanging():
        readers = [asyncio.create_task(issuers.read(provider.token())) for _ in range(20)]
        await asyncio.wait_for(provider.hears.wait(), BOUND_S)
    identities = await asyncio.gather(*readers)

    assert None not in identities
    assert provider.asked == [CONFIGURATION, KEY_SET]


async def test_the_first_who_asks_can_leave_without_disturbing_the_others(
    provider: IdentityProvider, issuers: OutsideIssuers
) -> None:
    with provider.hanging():
        first = asyncio.create_task(issuers.read(provider.token()))
        await asyncio.wait_for(provider.hears.wait(), BOUND_S)
        second = asyncio.create_task(issuers.read(provider.token()))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    assert await second is not None
    assert first.cancelled()
    assert provider.fetches == 1


async def test_keys_are_fetched_again_when_they_are_no_longer_fresh(
    provider: IdentityProvider, issuers: OutsideIssuers, clock: SetClock
) -> None:
    provider.cache_control = "max-age=120"
    old = provider.token()
    assert await issuers.read(old) is not None
    provider.rotate(SigningKey.new("second"))

    clock.now_s += 119
    assert await issuers.read(old) is not None
    clock.now_s += 1
    assert await issuers.read(old) is None
    assert provider.fetches == 2


async def test_a_new_key_is_asked_for_once_and_then_known(
    provider: IdentityProvider, issuers: OutsideIssuers, clock: SetClock
) -> None:
    await issuers.read(provider.token())
    provider.rotate(SigningKey.new("second"))
    clock.now_s += 11

    for _ in range(3):
        assert await issuers.read(provider.token()) is not None
    assert provider.fetches == 2


async def test_keys_that_are_not_known_make_nobody_ask_more_than_every_ten_seconds(
    provider: IdentityProvider, issuers: OutsideIssuers, clock: SetClock
) -> None:
    for number in range(100):
        stranger = SigningKey.new(f"stranger-{number}")
        assert await issuers.read(stranger.sign(provider.claims())) is None
        clock.now_s += 0.25

    assert provider.fetches == 3


async def test_old_keys_stay_in_use_for_a_day_while_the_provider_is_down(
    provider: IdentityProvider, issuers: OutsideIssuers, clock: SetClock
) -> None:
    token = provider.token(exp=moment(days=7))
    await issuers.read(token)
    provider.answers[CONFIGURATION] = Response(status_code=500)

    clock.now_s += DAY - 1
    assert await issuers.read(token) is not None
    clock.now_s += 1
    with pytest.raises(IssuerUnavailableError):
        await issuers.read(token)


async def test_a_provider_that_is_down_is_seldom_asked_while_old_keys_are_there(
    provider: IdentityProvider, issuers: OutsideIssuers, clock: SetClock
) -> None:
    await issuers.read(provider.token())
    provider.answers[KEY_SET] = Response(status_code=500)
    clock.now_s += 11 * MINUTE
    for _ in range(10):
        assert await issuers.read(provider.token()) is not None
        clock.now_s += 5

    assert provider.fetches == 2


async def test_a_key_that_may_be_new_is_not_called_wrong_while_the_provider_is_down(
    provider: IdentityProvider, issuers: OutsideIssuers, clock: SetClock
) -> None:
    known = provider.token()
    await issuers.read(known)
    provider.rotate(SigningKey.new("second"))
    provider.answers[KEY_SET] = Response(status_code=503)
    clock.now_s += 11

    with pytest.raises(IssuerUnavailableError, match=provider.origin):
        await issuers.read(provider.token())
    assert await issuers.read(known) is not None


async def test_an_issuer_that_nobody_can_reach_is_unavailable(clock: SetClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    gone = IdentityProvider()
    gone.origin = f"http://127.0.0.1:{port}"

    async with trusting(gone.origin, clock=clock) as issuers:
        with pytest.raises(IssuerUnavailableError):
            await issuers.read(gone.token())


async def test_a_provider_without_an_answer_is_given_up_after_a_while(
    provider: IdentityProvider, clock: SetClock
) -> None:
    async with trusting(provider.origin, clock=clock, answer_within=0.05) as issuers:
        with provider.hanging(), pytest.raises(IssuerUnavailableError):
            await issuers.read(provider.token())


async def test_a_provider_that_failed_is_asked_again_after_ten_seconds(
    provider: IdentityProvider, issuers: OutsideIssuers, clock: SetClock
) -> None:
    provider.answers[CONFIGURATION] = Response(status_code=500)
    for _ in range(5):
        with pytest.raises(IssuerUnavailableError):
            await issuers.read(provider.token())
    assert provider.asked == [CONFIGURATION]

    provider.answers.clear()
    clock.now_s += 10
    assert await issuers.read(provider.token()) is not None


@pytest.mark.parametrize("path", [CONFIGURATION, KEY_SET])
@pytest.mark.parametrize(
    "answer",
    [
        Response(status_code=500),
        Response(status_code=404),
        Response(status_code=204),
        HTMLResponse("<html>Sign in</html>"),
        Response(b'{"keys": [], "padding": "' + b"p" * 300_000 + b'"}'),
        Response(b"\x1f\x8b", headers={"Content-Encoding": "gzip"}),
        Response(b"[" * 100_000),
        Response(b'{"keys": 7, "issuer": 7, "jwks_uri": 7}'),
        RedirectResponse("/elsewhere"),
        RedirectResponse("http://example.com/keys"),
    ],
    ids=["500", "404", "204", "html", "huge", "packed", "nested", "typed", "moved", "other-host"],
)
async def test_an_answer_that_can_not_be_used_is_as_good_as_none(
    provider: IdentityProvider, issuers: OutsideIssuers, path: str, answer: Response
) -> None:
    provider.answers[path] = answer

    with pytest.raises(IssuerUnavailableError):
        await issuers.read(provider.token())
    assert provider.asked[-1] == path


@pytest.mark.parametrize(
    "configured",
    [
        {"issuer": "https://example.com"},
        {"jwks_uri": "http://example.com/keys"},
        {"jwks_uri": "/keys/jwks.json"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "https://"},
    ],
    ids=ascii,
)
async def test_a_configuration_that_can_not_be_right_is_not_followed(
    provider: IdentityProvider, issuers: OutsideIssuers, configured: dict[str, Any]
) -> None:
    provider.configured = configured

    with pytest.raises(IssuerUnavailableError):
        await issuers.read(provider.token())
    assert provider.fetches == 0


async def test_an_issuer_without_a_key_has_no_valid_token(
    provider: IdentityProvider, issuers: OutsideIssuers
) -> None:
    provider.jwks = []

    assert await issuers.read(provider.token()) is None


async def test_a_key_that_is_meant_for_encrypting_verifies_nothing(
    provider: IdentityProvider, issuers: OutsideIssuers
) -> None:
    provider.jwks = [provider.keys[0].jwk(use="enc"), provider.keys[0].jwk(key_ops=["encrypt"])]

    assert await issuers.read(provider.token()) is None


async def test_closing_gives_up_what_is_asked(
    provider: IdentityProvider, issuers: OutsideIssuers
) -> None:
    with provider.hanging():
        reader = asyncio.create_task(issuers.read(provider.token()))
        await asyncio.wait_for(provider.hears.wait(), BOUND_S)
        await issuers.close()
        await asyncio.wait([reader], timeout=BOUND_S)

    assert reader.cancelled()
    assert provider.fetches == 0
