"""Several processes of the API: what changes on one is in force on the others at once.

They remember for a minute, which is longer than any of these tests waits.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from structlog.testing import capture_logs

from api.app import create_app
from api.service_groups import ApiServices
from schema.ids import TurnId, new_id
from services.auth.accounts import Account
from services.auth.invalidation import CacheInvalidation, Invalidation
from services.events.hub import EventHub
from services.events.writer import API_CHANNEL, turn_source
from tests.fixtures.api_user import PASSWORD, ApiUser
from tests.fixtures.plans import give_plan, make_plan, other_default
from tests.fixtures.redis_proxy import RedisProxy
from tests.fixtures.serving import serving
from tests.fixtures.stack import Stack, api_client
from tests.running_everturn.waiting import eventually
from workers.composition.api import make_known_people, open_api_services
from workers.composition.foundation import Foundation, open_foundation

LIFETIME_S = 60.0
WITHIN_S = 20.0


async def soon(look: Callable[[], Awaitable[object]], expected: object) -> None:
    """Wait until `look` sees the expected value, long before any entry expires."""
    await eventually(look, lambda seen: seen == expected, within_s=WITHIN_S)


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the API."""

    services: ApiServices
    http: httpx.AsyncClient

    @property
    def hub(self) -> EventHub:
        return self.services.turns.feed._hub

    def user(self, person: ApiUser) -> ApiUser:
        """Return a user whose requests come to this process."""
        return ApiUser(self.http, person.session, email=person.email)

    async def status(self, headers: dict[str, str], path: str = "/chats") -> int:
        return (await self.http.get(path, headers=headers)).status_code

    async def account(self, person: ApiUser) -> Account:
        """Return what this process has cached for a user."""
        caller = await self.services.accounts.callers.authenticate(
            person.headers["Authorization"].split()[1]
        )
        assert caller is not None
        return caller.account

    async def listens(self) -> None:
        """Return once it has received an invalidation."""

        async def is_connected() -> bool:
            return self.hub.is_connected

        await soon(is_connected, expected=True)
        # Redis acknowledges in order, so the other channel is listened to as well.
        async with self.hub.listen(turn_source(TurnId(new_id()))):
            pass


@asynccontextmanager
async def remembering(stack: Stack, foundation: Foundation) -> AsyncIterator[Process]:
    """Serve another API of the stack, which remembers for long."""
    settings = foundation.settings.model_copy(update={"account_cache_s": LIFETIME_S})
    async with (
        open_api_services(
            replace(foundation, settings=settings), stack.temporal, eager=False
        ) as services,
        serving(create_app(services, max_body_bytes=settings.max_body_bytes)) as origin,
        api_client(origin) as http,
    ):
        process = Process(services, http)
        await process.listens()
        yield process


@pytest.fixture(scope="module")
async def here(stack: Stack) -> AsyncIterator[Process]:
    async with remembering(stack, stack.foundation) as process:
        yield process


@pytest.fixture(scope="module")
async def there(stack: Stack) -> AsyncIterator[Process]:
    async with remembering(stack, stack.foundation) as process:
        yield process


@pytest.fixture
async def proxy(stack: Stack) -> AsyncIterator[RedisProxy]:
    async with RedisProxy.open(stack.addresses.redis) as opened:
        yield opened


@pytest.fixture
async def apart(stack: Stack, proxy: RedisProxy) -> AsyncIterator[Process]:
    """A process that reaches Redis by the proxy alone."""
    settings = stack.settings.model_copy(update={"redis_url": SecretStr(proxy.url)})
    async with (
        open_foundation(settings) as foundation,
        remembering(stack, foundation) as process,
    ):
        yield process
        # What is closed behind it waits for no Redis that hangs.
        proxy.resume()


async def signed_out(user: ApiUser, _: ApiUser) -> httpx.Response:
    body = {"refreshToken": user.session["refreshToken"]}
    return await user.http.post("/auth/logout", json=body)


async def refreshed_by_two(user: ApiUser, _: ApiUser) -> httpx.Response:
    body = {"refreshToken": user.session["refreshToken"]}
    await user.http.post("/auth/refresh", json=body)
    return await user.http.post("/auth/refresh", json=body, headers={"User-Agent": "a thief"})


async def out_by_another_password(user: ApiUser, _: ApiUser) -> httpx.Response:
    account = {"email": user.email, "password": PASSWORD}
    entered = (await user.http.post("/auth/login", json=account)).json()["data"]
    return await user.http.patch(
        "/users/me",
        json={"currentPassword": PASSWORD, "newPassword": f"another {PASSWORD}"},
        headers={"Authorization": f"Bearer {entered['accessToken']}"},
    )


async def disabled(user: ApiUser, admin: ApiUser) -> httpx.Response:
    return await admin.request("PATCH", f"/admin/users/{user.id}", json={"status": "disabled"})


async def disabled_and_enabled(user: ApiUser, admin: ApiUser) -> httpx.Response:
    await disabled(user, admin)
    return await admin.request("PATCH", f"/admin/users/{user.id}", json={"status": "active"})


async def deleted(user: ApiUser, _: ApiUser) -> httpx.Response:
    return await user.request("DELETE", "/users/me", json={"currentPassword": PASSWORD})


ENDS = pytest.mark.parametrize(
    ("end", "status"),
    [
        (signed_out, 204),
        (refreshed_by_two, 401),
        (out_by_another_password, 200),
        (disabled, 200),
        (disabled_and_enabled, 200),
        (deleted, 204),
    ],
)
"""All that ends a sign-in, and how it is answered."""

End = Callable[[ApiUser, ApiUser], Awaitable[httpx.Response]]


@ENDS
async def test_a_logout_on_one_process_holds_on_all(
    here: Process, there: Process, user: ApiUser, admin: ApiUser, *, end: End, status: int
) -> None:
    known = [await process.status(user.headers) for process in (here, there)]

    ended = await end(here.user(user), here.user(admin))

    assert (known, ended.status_code) == ([200, 200], status)
    assert await here.status(user.headers) == 401
    await soon(lambda: there.status(user.headers), 401)


@ENDS
async def test_a_logout_while_redis_hangs_holds_at_once_on_its_own_process(
    apart: Process, proxy: RedisProxy, user: ApiUser, admin: ApiUser, *, end: End, status: int
) -> None:
    known = await apart.status(user.headers)
    proxy.hang()

    ended = await end(apart.user(user), apart.user(admin))

    assert (known, ended.status_code) == (200, status)
    assert await apart.status(user.headers) == 401


async def test_a_key_revoked_on_one_process_is_invalid_on_all(
    here: Process, there: Process, user: ApiUser
) -> None:
    path = "/users/me/api-keys"
    created = (await here.user(user).request("POST", path, json={"name": "k"})).json()["data"]
    key = {"Authorization": f"Bearer {created['key']}"}
    known = [await process.status(key, "/users/me") for process in (here, there)]

    await here.user(user).request("DELETE", f"{path}/{created['id']}")

    assert known == [200, 200]
    assert await here.status(key, "/users/me") == 401
    await soon(lambda: there.status(key, "/users/me"), 401)


async def test_a_demotion_on_one_process_holds_on_all(
    here: Process, there: Process, stack: Stack, admin: ApiUser
) -> None:
    former = await stack.sign_up_admin()
    known = [await process.status(former.headers, "/admin/users") for process in (here, there)]

    path = f"/admin/users/{former.id}"
    await here.user(admin).request("PATCH", path, json={"role": "user"})

    assert known == [200, 200]
    assert await here.status(former.headers, "/admin/users") == 403
    await soon(lambda: there.status(former.headers, "/admin/users"), 403)


async def test_a_plan_assigned_or_changed_on_one_process_applies_on_all(
    here: Process, there: Process, user: ApiUser, admin: ApiUser
) -> None:
    async def room(process: Process) -> int | None:
        return (await process.account(user)).entitlements.max_memories

    plan = await make_plan(here.user(admin), maxMemories=7)
    known = [await room(process) for process in (here, there)]

    given = await give_plan(here.user(admin), user, plan["id"])
    at_once = await room(here)
    await soon(lambda: room(there), 7)
    path = f"/admin/plans/{plan['id']}"
    await here.user(admin).request("PATCH", path, json={"entitlements": {"maxMemories": 5}})

    assert given.status_code == 200, given.text
    assert (known, at_once, await room(here)) == ([10_000, 10_000], 7, 5)
    await soon(lambda: room(there), 5)


async def test_a_changed_default_plan_applies_on_all_processes(
    here: Process, there: Process, user: ApiUser, admin: ApiUser
) -> None:
    async def plan_id(process: Process) -> str:
        return str((await process.account(user)).plan_id)

    plan = await make_plan(here.user(admin))
    known = [await plan_id(process) for process in (here, there)]

    async with other_default(here.user(admin), plan["id"]):
        assert plan["id"] not in known
        assert await plan_id(here) == plan["id"]
        await soon(lambda: plan_id(there), plan["id"])


async def test_a_changed_preferred_model_applies_on_all_processes(
    here: Process, there: Process, user: ApiUser, stack: Stack
) -> None:
    async def model(process: Process) -> str | None:
        return (await process.account(user)).preferred_model

    wanted = stack.settings.models[-1]
    known = [await model(process) for process in (here, there)]

    body = {"defaultModel": wanted}
    stored = await here.user(user).request("PUT", "/users/me/preferences", json=body)

    assert (known, stored.status_code) == ([None, None], 200), stored.text
    assert await model(here) == wanted
    await soon(lambda: model(there), wanted)


async def test_a_tool_that_a_user_switches_off_is_off_for_all_processes(
    here: Process, there: Process, user: ApiUser
) -> None:
    async def switched_on(process: Process) -> list[str]:
        response = await process.user(user).request("GET", "/tools/calculator")
        tool = response.json()["data"]
        return [tool["name"]] if tool["enabledByUser"] else []

    known = [await switched_on(process) for process in (here, there)]

    body = {"disabledTools": ["calculator"]}
    stored = await here.user(user).request("PUT", "/users/me/preferences", json=body)

    assert (known, stored.status_code) == ([["calculator"]] * 2, 200), stored.text
    assert await switched_on(here) == []
    await soon(lambda: switched_on(there), [])


async def test_an_unreadable_message_ends_nothing(
    here: Process, there: Process, user: ApiUser, stack: Stack
) -> None:
    known = await there.status(user.headers)

    await stack.foundation.redis.publish(API_CHANNEL, b"\xff garbage")
    await signed_out(here.user(user), user)

    assert known == 200
    await soon(lambda: there.status(user.headers), 401)


async def test_with_its_connection_a_process_forgets_everything(
    here: Process, apart: Process, proxy: RedisProxy, user: ApiUser
) -> None:
    known = await apart.status(user.headers)
    proxy.hang()
    await signed_out(here.user(user), user)
    undelivered = await apart.status(user.headers)

    await proxy.cut()

    assert (known, undelivered) == (200, 200)
    await soon(lambda: apart.status(user.headers), 401)


async def test_a_reconnected_process_drops_what_it_cached_while_disconnected(
    here: Process, apart: Process, proxy: RedisProxy, user: ApiUser
) -> None:
    async def is_connected() -> bool:
        return apart.hub.is_connected

    proxy.hang()
    await proxy.cut()
    await soon(is_connected, expected=False)
    known = await apart.status(user.headers)
    await signed_out(here.user(user), user)
    undelivered = await apart.status(user.headers)

    proxy.resume()

    assert (known, undelivered) == (200, 200)
    await soon(lambda: apart.status(user.headers), 401)


async def test_an_unresponsive_redis_delays_no_change(stack: Stack, proxy: RedisProxy) -> None:
    known = make_known_people(stack.foundation)
    async with Redis.from_url(proxy.url, socket_timeout=None) as patient:
        await patient.ping()
        invalidation = CacheInvalidation(
            patient,
            accounts=known.accounts,
            sessions=known.sessions,
            api_keys=known.api_keys,
        )
        proxy.hang()

        with capture_logs() as logs:
            async with asyncio.timeout(WITHIN_S):
                await invalidation.publish(Invalidation(sessions=(uuid4(),)))

    (found,) = (log for log in logs if log["event"] == "cache_invalidation_not_published")
    assert found["error"] == "TimeoutError"
