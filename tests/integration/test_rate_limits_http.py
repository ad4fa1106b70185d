"""Rate limits as clients meet them: the refusal, the headers, and who counts as one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis
from structlog.testing import capture_logs

from api.access import limited
from api.app import create_app
from schema.plans import RateLimits
from services.auth.callers import Caller, Callers
from services.rate_limits.limiter import KEY_PREFIX, RateLimiter, RateLimitService
from services.rate_limits.rules import AuthLimits, Group
from tests.fixtures.api_user import PASSWORD, ApiUser, unique
from tests.fixtures.serving import BEHIND_PROXY, serving
from tests.fixtures.stack import Stack, api_client
from tests.integration.test_rate_limits import PATIENT, client_of
from workers.composition.api import open_api_services

LIMITS = RateLimits(requests_per_minute=20, messages_per_minute=3)
AUTH = AuthLimits(
    requests_per_minute=8,
    wrong_credentials_per_minute=5,
    logins_per_hour=3,
    shared_reads_per_minute=4,
)
UNKNOWN_ID = "0190b5a8-0000-7000-8000-000000000000"
LIMIT_HEADERS = ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "ratelimit-policy")


class NarrowPlans(Callers):
    """Knows callers as the stack does, but for the rates of their plans."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    async def authenticate(self, bearer_token: str) -> Caller | None:
        caller = await self._callers.authenticate(bearer_token)
        if caller is None:
            return None
        entitlements = caller.account.entitlements.model_copy(update={"rates": LIMITS})
        return replace(caller, account=replace(caller.account, entitlements=entitlements))


def limited_app(stack: Stack, redis: Redis) -> FastAPI:
    limiter = RateLimiter(redis, redis_timeout=PATIENT)
    services = replace(
        stack.services,
        accounts=replace(
            stack.services.accounts, callers=NarrowPlans(stack.services.accounts.callers)
        ),
        operations=replace(stack.services.operations, rate_limits=RateLimitService(limiter, AUTH)),
    )
    app = create_app(
        services,
        max_body_bytes=stack.settings.max_body_bytes,
    )

    @app.get("/broken", dependencies=[limited(Group.REQUESTS)])
    async def broken() -> None:
        raise RuntimeError("a defect")

    return app


@pytest.fixture(scope="module")
async def origin(stack: Stack) -> AsyncIterator[str]:
    """An API with narrow limits, behind a proxy that it trusts."""
    async with (
        client_of(stack.addresses.redis) as redis,
        serving(limited_app(stack, redis), bounds=BEHIND_PROXY) as served,
    ):
        yield served


@asynccontextmanager
async def client_at(origin: str, address: str) -> AsyncIterator[httpx.AsyncClient]:
    async with api_client(origin) as client:
        client.headers["X-Forwarded-For"] = address
        yield client


def some_address() -> str:
    """Return an address that no other test, and no other run on this Redis, uses."""
    number = uuid4().int
    return ".".join(["10", *(str(number >> shift & 255) for shift in (0, 8, 16))])


@pytest.fixture
async def client(origin: str) -> AsyncIterator[httpx.AsyncClient]:
    async with client_at(origin, some_address()) as opened:
        yield opened


@pytest.fixture
async def limited_user(client: httpx.AsyncClient, user: ApiUser) -> ApiUser:
    return ApiUser(client, user.session, email=user.email)


async def log_in(client: httpx.AsyncClient, email: str, password: str = "wrong") -> httpx.Response:
    return await client.post("/auth/login", json={"email": email, "password": password})


async def renew(client: httpx.AsyncClient) -> httpx.Response:
    """Ask what anybody may ask, and what costs the least to answer."""
    return await client.post("/auth/refresh", json={"refreshToken": "x"})


def check_refused(response: httpx.Response) -> None:
    assert response.status_code == 429, response.text
    body = response.json()
    assert set(body) == {"error", "meta"}
    assert body["error"]["code"] == "RATE_LIMITED"
    assert body["error"]["retryable"] is True
    assert body["meta"]["requestId"] == response.headers["x-request-id"]
    assert int(response.headers["retry-after"]) >= 1
    assert response.headers["ratelimit-reset"] == response.headers["retry-after"]
    assert response.headers["ratelimit-remaining"] == "0"


def check_limit_headers(response: httpx.Response) -> None:
    assert [name for name in LIMIT_HEADERS if name not in response.headers] == []
    assert "retry-after" not in response.headers


async def test_concurrent_requests_respect_the_plans_limit(
    limited_user: ApiUser,
) -> None:
    responses = await asyncio.gather(*(limited_user.request("GET", "/chats") for _ in range(50)))

    refused = [response for response in responses if response.status_code == 429]
    assert len(refused) == 30
    for response in refused:
        check_refused(response)
        assert response.headers["ratelimit-policy"] == "20;w=60"


async def test_readers_of_shared_branches_have_a_limit_of_their_own(
    client: httpx.AsyncClient,
) -> None:
    read = [await client.get("/shared/nothing") for _ in range(5)]

    assert [response.status_code for response in read] == [404] * 4 + [429]
    check_refused(read[-1])
    assert (await renew(client)).headers["ratelimit-remaining"] == "7"


async def test_every_response_reports_the_remaining_limit(limited_user: ApiUser) -> None:
    responses = [await limited_user.request("GET", "/auth/me") for _ in range(3)]

    for response in responses:
        check_limit_headers(response)
        assert response.headers["ratelimit-limit"] == "20"
        assert 1 <= int(response.headers["ratelimit-reset"]) <= 60
    left = [int(response.headers["ratelimit-remaining"]) for response in responses]
    assert left == [19, 18, 17]


async def test_an_error_of_the_route_reports_the_remaining_limit_too(limited_user: ApiUser) -> None:
    missing = await limited_user.request("GET", f"/chats/{UNKNOWN_ID}")
    invalid = await limited_user.request("POST", "/chats", json={"title": ""})

    assert (missing.status_code, invalid.status_code) == (404, 400)
    check_limit_headers(missing)
    check_limit_headers(invalid)


async def test_an_internal_error_reports_the_remaining_limit_too(
    origin: str, limited_user: ApiUser
) -> None:
    with capture_logs():
        response = await limited_user.request("GET", f"{origin}/broken")

    assert response.status_code == 500
    check_limit_headers(response)


async def test_a_stream_reports_the_remaining_limit_and_counts_once(
    limited_user: ApiUser, stack: Stack
) -> None:
    chat_id = await limited_user.create_chat()
    async with limited_user.stream(chat_id, unique()) as stream:
        headers = stream.response.headers
        await stream.all()
    after = await limited_user.request("GET", "/auth/me")

    assert headers["content-type"].startswith("text/event-stream")
    assert (headers["ratelimit-limit"], headers["ratelimit-remaining"]) == ("3", "2")
    assert after.headers["ratelimit-remaining"] == "17"


async def test_messages_have_their_own_limit(limited_user: ApiUser) -> None:
    chat_id = await limited_user.create_chat()
    responses = [await limited_user.post(chat_id, unique()) for _ in range(4)]

    assert [response.status_code for response in responses] == [200, 200, 200, 429]
    check_refused(responses[-1])
    assert responses[-1].headers["ratelimit-policy"] == "3;w=60"
    assert len(await limited_user.messages(chat_id)) == 6


async def test_users_at_one_address_do_not_share_a_limit(
    limited_user: ApiUser, other_user: ApiUser
) -> None:
    mine = [await limited_user.request("GET", "/chats") for _ in range(25)]
    other = await limited_user.http.get("/chats", headers=other_user.headers)

    check_refused(mine[-1])
    assert other.status_code == 200


async def test_one_address_asks_to_be_let_in_only_so_often(client: httpx.AsyncClient) -> None:
    responses = [await renew(client) for _ in range(10)]

    assert [response.status_code for response in responses] == [401] * 8 + [429] * 2
    check_refused(responses[-1])
    check_refused(await log_in(client, f"{uuid4().hex}@example.com"))
    check_refused(await client.post("/auth/logout", json={"refreshToken": "x"}))
    signup = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}
    check_refused(await client.post("/auth/signup", json=signup))


async def test_many_addresses_together_have_no_more_guesses_at_an_account(
    origin: str, user: ApiUser
) -> None:
    statuses = []
    for _ in range(5):
        async with client_at(origin, some_address()) as elsewhere:
            statuses.append((await log_in(elsewhere, user.email.upper())).status_code)

    assert statuses == [401, 401, 401, 429, 429]


async def test_a_repeated_sign_up_is_no_way_to_more_guesses(origin: str) -> None:
    email, key = f"{uuid4().hex}@example.com", uuid4().hex
    statuses = []
    for password in (PASSWORD, "a first guess", "a second guess", PASSWORD):
        async with client_at(origin, some_address()) as elsewhere:
            body = {"email": email, "password": password}
            signed_up = await elsewhere.post(
                "/auth/signup", json=body, headers={"Idempotency-Key": key}
            )
            statuses.append(signed_up.status_code)

    assert statuses == [201, 409, 409, 429]


async def test_a_stolen_token_gives_few_guesses_at_the_password(limited_user: ApiUser) -> None:
    guess = {"currentPassword": "a guess"}
    refused = [
        await limited_user.request("DELETE", "/users/me", json=guess),
        await limited_user.request("PATCH", "/users/me", json=guess | {"displayName": "Ada"}),
        await limited_user.request("DELETE", "/users/me", json=guess),
        await limited_user.request("DELETE", "/users/me", json={"currentPassword": PASSWORD}),
    ]

    assert [response.status_code for response in refused] == [403, 403, 403, 429]
    check_refused(refused[-1])


async def test_tokens_keep_working_while_the_password_is_guessed(
    origin: str, user: ApiUser
) -> None:
    for _ in range(4):
        async with client_at(origin, some_address()) as elsewhere:
            await log_in(elsewhere, user.email)
    async with client_at(origin, some_address()) as mine:
        log_in_again = await log_in(mine, user.email, PASSWORD)
        me = await mine.get("/auth/me", headers=user.headers)
        refresh_token = user.session["refreshToken"]
        refreshed = await mine.post("/auth/refresh", json={"refreshToken": refresh_token})

    check_refused(log_in_again)
    assert (me.status_code, refreshed.status_code) == (200, 200)


async def test_a_rate_limited_address_uses_no_login_attempts_of_an_account(
    origin: str, client: httpx.AsyncClient, user: ApiUser
) -> None:
    for _ in range(8):
        await renew(client)
    for _ in range(5):
        check_refused(await log_in(client, user.email))

    async with client_at(origin, some_address()) as elsewhere:
        assert (await log_in(elsewhere, user.email, PASSWORD)).status_code == 200


async def test_an_ipv6_network_counts_as_one_client(origin: str) -> None:
    network = f"2001:db8:{uuid4().hex[:4]}:{uuid4().hex[:4]}"
    statuses = []
    for host in range(10):
        async with client_at(origin, f"{network}::{host:x}") as elsewhere:
            statuses.append((await renew(elsewhere)).status_code)

    assert statuses == [401] * 8 + [429] * 2


async def test_forged_forwarded_addresses_gain_nothing(origin: str) -> None:
    address = some_address()
    statuses = []
    for _ in range(10):
        async with client_at(origin, f"{some_address()}, {address}") as client:
            statuses.append((await renew(client)).status_code)

    assert statuses == [401] * 8 + [429] * 2


async def test_a_forwarded_address_is_ignored_unless_the_proxy_is_trusted(
    stack: Stack,
) -> None:
    counted = f"{KEY_PREFIX}:{{auth/address:127.0.0.1/8/60/second}}"
    await stack.foundation.redis.delete(counted, f"{counted}/-1")
    statuses = []
    async with (
        client_of(stack.addresses.redis) as redis,
        serving(limited_app(stack, redis)) as direct,
    ):
        for _ in range(10):
            async with client_at(direct, some_address()) as client:
                statuses.append((await renew(client)).status_code)

    assert statuses == [401] * 8 + [429] * 2


async def test_one_address_guesses_at_tokens_and_keys_only_so_often(
    client: httpx.AsyncClient, user: ApiUser
) -> None:
    guesses = [f"evk_{uuid4().hex}" if n % 2 else uuid4().hex for n in range(8)]
    responses = [
        await client.get("/chats", headers={"Authorization": f"Bearer {guess}"})
        for guess in guesses
    ]
    valid = await client.get("/chats", headers=user.headers)
    renewed = await renew(client)

    assert [response.status_code for response in responses] == [401] * 5 + [429] * 3
    check_refused(responses[-1])
    assert (valid.status_code, renewed.status_code) == (200, 401)


async def test_a_request_without_credentials_is_refused_and_not_counted(
    client: httpx.AsyncClient,
) -> None:
    responses = [await client.get("/chats") for _ in range(30)]

    assert {response.status_code for response in responses} == {401}


async def test_limits_hold_unless_they_are_switched_off(stack: Stack) -> None:
    policies = []
    for rate_limits in (True, False):
        settings = stack.settings.model_copy(update={"rate_limits": rate_limits})
        foundation = replace(stack.foundation, settings=settings)
        async with AsyncExitStack() as opened:
            services = await opened.enter_async_context(
                open_api_services(foundation, stack.temporal, eager=False)
            )
            app = create_app(services, max_body_bytes=settings.max_body_bytes)
            http = api_client(await opened.enter_async_context(serving(app)))
            response = await renew(await opened.enter_async_context(http))
        policies.append((response.status_code, response.headers.get("ratelimit-policy")))

    assert policies == [(401, "60;w=60"), (401, None)]


async def test_health_and_documentation_are_never_limited(
    origin: str, client: httpx.AsyncClient
) -> None:
    for path in ("/api/v1/health/live", "/openapi.json"):
        responses = [await client.get(f"{origin}{path}") for _ in range(30)]

        assert {response.status_code for response in responses} == {200}
        assert "ratelimit-limit" not in responses[-1].headers


def test_rate_limited_routes_document_the_429(stack: Stack) -> None:
    for path, operations in stack.app.openapi()["paths"].items():
        for method, operation in operations.items():
            refusal = operation["responses"].get("429")
            if path == "/" or "/health/" in path:
                assert refusal is None, (method, path)
            else:
                assert {"Retry-After", "RateLimit-Reset"} <= set(refusal["headers"]), (method, path)
