"""The keys of external issuers: fetched once, kept fresh, and used while their provider is down."""

import asyncio
import socket
from typing import Any

import pytest
from starlette.responses import HTMLResponse, RedirectResponse, Response

from services.auth.issuer_keys import IssuerUnavailableError
from services.auth.issuers import ExternalIssuers
from tests.fakes.identity_provider import (
    CONFIGURATION,
    KEY_SET,
    IdentityProvider,
    SigningKey,
)
from tests.fixtures.trusted_issuers import BOUND_S, SetClock, moment, trusting

MINUTE = 60.0
DAY = 24 * 60 * MINUTE


async def test_keys_are_fetched_once_for_many_tokens(
    provider: IdentityProvider, issuers: ExternalIssuers
) -> None:
    for _ in range(5):
        assert await issuers.read(provider.token()) is not None

    assert provider.asked == [CONFIGURATION, KEY_SET]


async def test_concurrent_first_requests_share_one_fetch(
    provider: IdentityProvider, issuers: ExternalIssuers
) -> None:
    with provider.hanging():
        readers = [asyncio.create_task(issuers.read(provider.token())) for _ in range(20)]
        await asyncio.wait_for(provider.hears.wait(), BOUND_S)
    identities = await asyncio.gather(*readers)

    assert None not in identities
    assert provider.asked == [CONFIGURATION, KEY_SET]


async def test_the_first_who_asks_can_leave_without_disturbing_the_others(
    provider: IdentityProvider, issuers: ExternalIssuers
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
    provider: IdentityProvider, issuers: ExternalIssuers, clock: SetClock
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


async def test_a_new_key_is_fetched_once_and_then_cached(
    provider: IdentityProvider, issuers: ExternalIssuers, clock: SetClock
) -> None:
    await issuers.read(provider.token())
    provider.rotate(SigningKey.new("second"))
    clock.now_s += 11

    for _ in range(3):
        assert await issuers.read(provider.token()) is not None
    assert provider.fetches == 2


async def test_unknown_keys_cause_at_most_one_request_in_ten_seconds(
    provider: IdentityProvider, issuers: ExternalIssuers, clock: SetClock
) -> None:
    for number in range(100):
        stranger = SigningKey.new(f"stranger-{number}")
        assert await issuers.read(stranger.sign(provider.claims())) is None
        clock.now_s += 0.25

    assert provider.fetches == 3


async def test_old_keys_stay_in_use_for_a_day_while_the_provider_is_down(
    provider: IdentityProvider, issuers: ExternalIssuers, clock: SetClock
) -> None:
    token = provider.token(exp=moment(days=7))
    await issuers.read(token)
    provider.answers[CONFIGURATION] = Response(status_code=500)

    clock.now_s += DAY - 1
    assert await issuers.read(token) is not None
    clock.now_s += 1
    with pytest.raises(IssuerUnavailableError):
        await issuers.read(token)


async def test_an_unavailable_provider_is_rarely_asked_while_old_keys_are_cached(
    provider: IdentityProvider, issuers: ExternalIssuers, clock: SetClock
) -> None:
    await issuers.read(provider.token())
    provider.answers[KEY_SET] = Response(status_code=500)
    clock.now_s += 11 * MINUTE
    for _ in range(10):
        assert await issuers.read(provider.token()) is not None
        clock.now_s += 5

    assert provider.fetches == 2


async def test_a_key_that_may_be_new_is_not_called_wrong_while_the_provider_is_down(
    provider: IdentityProvider, issuers: ExternalIssuers, clock: SetClock
) -> None:
    known = provider.token()
    await issuers.read(known)
    provider.rotate(SigningKey.new("second"))
    provider.answers[KEY_SET] = Response(status_code=503)
    clock.now_s += 11

    with pytest.raises(IssuerUnavailableError, match=provider.origin):
        await issuers.read(provider.token())
    assert await issuers.read(known) is not None


async def test_an_unreachable_issuer_is_unavailable(clock: SetClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    gone = IdentityProvider()
    gone.origin = f"http://127.0.0.1:{port}"

    async with trusting(gone.origin, clock=clock) as issuers:
        with pytest.raises(IssuerUnavailableError):
            await issuers.read(gone.token())


async def test_a_provider_that_does_not_answer_times_out(
    provider: IdentityProvider, clock: SetClock
) -> None:
    async with trusting(provider.origin, clock=clock, answer_within=0.05) as issuers:
        with provider.hanging(), pytest.raises(IssuerUnavailableError):
            await issuers.read(provider.token())


async def test_a_failed_provider_is_retried_after_ten_seconds(
    provider: IdentityProvider, issuers: ExternalIssuers, clock: SetClock
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
async def test_an_unusable_answer_counts_as_no_answer(
    provider: IdentityProvider, issuers: ExternalIssuers, path: str, answer: Response
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
async def test_an_invalid_discovery_document_is_ignored(
    provider: IdentityProvider, issuers: ExternalIssuers, configured: dict[str, Any]
) -> None:
    provider.configured = configured

    with pytest.raises(IssuerUnavailableError):
        await issuers.read(provider.token())
    assert provider.fetches == 0


async def test_an_issuer_without_a_key_has_no_valid_token(
    provider: IdentityProvider, issuers: ExternalIssuers
) -> None:
    provider.jwks = []

    assert await issuers.read(provider.token()) is None


async def test_an_encryption_key_verifies_nothing(
    provider: IdentityProvider, issuers: ExternalIssuers
) -> None:
    provider.jwks = [provider.keys[0].jwk(use="enc"), provider.keys[0].jwk(key_ops=["encrypt"])]

    assert await issuers.read(provider.token()) is None


async def test_closing_abandons_pending_requests(
    provider: IdentityProvider, issuers: ExternalIssuers
) -> None:
    with provider.hanging():
        reader = asyncio.create_task(issuers.read(provider.token()))
        await asyncio.wait_for(provider.hears.wait(), BOUND_S)
        await issuers.close()
        await asyncio.wait([reader], timeout=BOUND_S)

    assert reader.cancelled()
    assert provider.fetches == 0
