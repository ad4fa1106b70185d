"""The address at which workflow tools answer later: shape, statuses, and who is believed."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import uuid4

import httpx
import pytest
from redis.asyncio import Redis

from api.app import create_app
from services.rate_limits.limiter import RateLimiter, RateLimitService
from services.rate_limits.rules import AuthLimits
from tests.contracts.conftest import Documented
from tests.fakes.webhook_engine import (
    SECRET,
    WebhookEngine,
    call_back,
    signature_of,
    signed_headers,
)
from tests.fixtures.api_user import ApiUser
from tests.fixtures.serving import BEHIND_PROXY, serving
from tests.fixtures.stack import Stack, api_client
from tests.fixtures.workflow_tools import engine_for, register_tool, running_call

BODY = b'{"output": "Done."}'
ROUTE = "/api/v1/tool-callbacks/{callback_id}"


@pytest.fixture(scope="module")
async def engine(stack: Stack) -> AsyncIterator[WebhookEngine]:
    """A workflow engine."""
    async with engine_for(stack) as opened:
        yield opened


@pytest.fixture
async def path(stack: Stack, admin: ApiUser, user: ApiUser, engine: WebhookEngine) -> str:
    """Where a call that waits may be answered."""
    call = await running_call(stack, user, await register_tool(admin, engine))
    await call.change("tool_calls", "callback_id = gen_random_uuid()")
    return f"/tool-callbacks/{(await call.stored())['callback_id']}"


async def test_a_signed_answer_is_accepted_once(recorded: httpx.AsyncClient, path: str) -> None:
    first = await call_back(recorded, path, {"output": {"ticket": 7}})
    second = await call_back(recorded, path, {"output": {"ticket": 7}})

    assert first.status_code == 200
    assert first.json()["data"] == {"status": "completed"}
    assert set(first.json()) == {"data", "meta"}
    assert second.status_code == 409
    assert second.json()["error"]["code"] == "CONFLICT"


async def test_no_sign_in_is_needed(recorded: httpx.AsyncClient, path: str) -> None:
    headers = signed_headers(BODY, path) | {"Authorization": "Bearer nonsense"}

    response = await recorded.post(path, content=BODY, headers=headers)

    assert response.status_code == 200


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
async def test_an_answer_without_a_signature_is_refused(
    recorded: httpx.AsyncClient, path: str, missing: str
) -> None:
    headers = signed_headers(BODY, path)
    del headers[missing]

    response = await recorded.post(path, content=BODY, headers=headers)

    assert response.status_code == 401
    assert response.json()["error"]["code"] == "UNAUTHENTICATED"
    assert missing in response.json()["error"]["message"]


@pytest.mark.parametrize("age_s", [301, -302])
async def test_an_answer_that_was_signed_too_long_ago_or_ahead_is_refused(
    recorded: httpx.AsyncClient, path: str, age_s: int
) -> None:
    response = await call_back(recorded, path, {"output": "Done."}, age_s=age_s)

    assert response.status_code == 401
    assert "five minutes" in response.json()["error"]["message"]


async def test_an_answer_with_a_wrong_secret_is_rejected_and_leaves_the_call_open(
    recorded: httpx.AsyncClient, path: str
) -> None:
    wrong = await call_back(recorded, path, {"output": "Evil."}, secret="not the secret of it")
    right = await call_back(recorded, path, {"output": "Good."})

    assert (wrong.status_code, right.status_code) == (401, 200)
    assert SECRET not in wrong.text


async def test_a_body_that_changed_on_its_way_is_refused(
    recorded: httpx.AsyncClient, path: str
) -> None:
    response = await recorded.post(path, content=BODY + b"\n", headers=signed_headers(BODY, path))

    assert response.status_code == 401


async def test_an_answer_signed_under_an_id_of_the_senders_own_is_refused(
    recorded: httpx.AsyncClient, path: str
) -> None:
    timestamp = str(int(time.time()))
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": timestamp,
        "webhook-signature": signature_of(
            BODY, secret=SECRET, message_id="msg_1", timestamp=timestamp
        ),
    }

    assert (await recorded.post(path, content=BODY, headers=headers)).status_code == 401


async def test_one_of_several_signatures_is_enough(recorded: httpx.AsyncClient, path: str) -> None:
    headers = signed_headers(BODY, path)
    headers["webhook-signature"] = f"v1,AAAA v1a,BBBB {headers['webhook-signature']}"

    assert (await recorded.post(path, content=BODY, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"Done."',
        b"{}",
        b'{"isError": true}',
        b'{"output": "Done.", "isError": "true"}',
        b'{"output": "Done.", "isError": null}',
        b'{"output": "Done.", "status": "completed"}',
        b'{"output": NaN}',
        b"[" * 100_000,
        b"\xff\xfe\xff",
    ],
)
async def test_an_invalid_signed_body_is_rejected_and_leaves_the_call_open(
    recorded: httpx.AsyncClient, path: str, body: bytes
) -> None:
    refused = await call_back(recorded, path, body)
    corrected = await call_back(recorded, path, {"output": "Done."})

    assert refused.status_code == 400
    assert refused.json()["error"]["details"][0]["path"] == "body"
    assert corrected.status_code == 200


async def test_unknown_callbacks_are_not_found_signed_or_not(
    recorded: httpx.AsyncClient,
) -> None:
    path = f"/tool-callbacks/{uuid4()}"

    unsigned = await recorded.post(path, content=BODY)
    signed = await call_back(recorded, path, {"output": "Done."})
    nonsense = await recorded.post("/tool-callbacks/1", content=BODY)

    assert (unsigned.status_code, signed.status_code, nonsense.status_code) == (404, 404, 400)


async def test_an_oversized_answer_is_rejected(
    recorded: httpx.AsyncClient, path: str, stack: Stack
) -> None:
    response = await call_back(recorded, path, {"output": "x" * stack.settings.max_body_bytes})

    assert response.status_code == 413


def test_the_headers_and_the_body_are_documented(documented: Documented) -> None:
    operation = documented.paths[ROUTE]["post"]

    assert {"webhook-id", "webhook-timestamp", "webhook-signature"} <= {
        parameter["name"] for parameter in operation["parameters"]
    }
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == {"output", "isError"}
    assert schema["required"] == ["output"]
    assert "security" not in operation


async def test_guesses_from_one_address_are_limited_and_answers_in_order_are_not(
    stack: Stack, path: str
) -> None:
    async with Redis.from_url(stack.settings.redis_url.get_secret_value()) as redis:
        limits = RateLimitService(RateLimiter(redis), AuthLimits(wrong_credentials_per_minute=2))
        services = replace(
            stack.services, operations=replace(stack.services.operations, rate_limits=limits)
        )
        app = create_app(services, max_body_bytes=10_000)
        async with (
            serving(app, bounds=BEHIND_PROXY) as origin,
            api_client(origin) as http,
        ):
            http.headers["X-Forwarded-For"] = f"2001:db8:{uuid4().hex[:4]}:{uuid4().hex[:4]}::1"
            guesses = [
                (await call_back(http, path, {"output": "?"}, secret="a guess of mine")).status_code
                for _ in range(4)
            ]
            right = await call_back(http, path, {"output": "Done."})

    assert guesses == [401, 401, 429, 429]
    assert right.status_code == 200
