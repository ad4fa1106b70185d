"""Every route against every actor, as the authorisation matrix says."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from api.routing import API_PREFIX
from tests.contracts.authorisation import MATRIX, Row
from tests.contracts.conftest import Documented
from tests.fixtures.api_user import PASSWORD, ApiUser
from tests.fixtures.every_table import Things, insert, rows_of, things_of
from tests.fixtures.stack import Stack

_MADE_BY_SIGNING_UP: Final = {"credentials"}


@dataclass(frozen=True)
class Scene:
    """Who asks, and what there is to ask for."""

    stack: Stack
    owner: ApiUser
    other: ApiUser
    admin: ApiUser
    key: str
    things: Things
    session: dict[str, Any]

    def path(self, template: str) -> str:
        """Return the path of the owner's resource."""
        ids: dict[str, object] = {
            "chat_id": self.things.chat,
            "turn_id": self.things.turn,
            "message_id": self.things.message,
            "memory_id": self.things.memory,
            "document_id": self.things.document,
            "file_id": self.things.file,
            "prompt_id": self.things.prompt,
            "plan_id": self.things.plan,
            "key_id": self.things.api_key,
            "session_id": self.things.session,
            "share_id": self.things.share,
            "token": self.things.name,
            "callback_id": uuid4(),
            "tool_call_id": "c",
            "user_id": self.things.user,
            "number": 1,
            "name": "calculator" if "tools/{name}" in template else self.things.name,
        }
        if "workflow-tools" in template:
            ids["name"] = self.things.name
        return template.format(**ids)

    def headers(self, actor: str) -> dict[str, str]:
        """Return the headers that say who asks."""
        if actor == "anonymous":
            return {}
        if actor == "key":
            return {"Authorization": f"Bearer {self.key}"}
        person: ApiUser = getattr(self, actor)
        return person.headers


def signing_up(_: Scene) -> dict[str, Any]:
    return {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}


def logging_in(scene: Scene) -> dict[str, Any]:
    return {"email": scene.owner.email, "password": PASSWORD}


def naming(**fields: Any) -> Callable[[Scene], dict[str, Any]]:  # noqa: ANN401 -- any JSON
    """Return a function that builds a body with a unique name."""
    return lambda _: {"name": f"n{uuid4().hex[:20]}", **fields}


def always(**fields: Any) -> Callable[[Scene], dict[str, Any]]:  # noqa: ANN401 -- any JSON
    return lambda _: fields


SCHEMA: Final = {"type": "object", "properties": {}}
BODIES: Final[dict[str, Callable[[Scene], dict[str, Any]]]] = {
    "POST /auth/signup": signing_up,
    "POST /auth/login": logging_in,
    "POST /auth/refresh": lambda scene: {"refreshToken": scene.session["refreshToken"]},
    "POST /auth/logout": lambda scene: {"refreshToken": scene.session["refreshToken"]},
    "POST /auth/password-reset": always(email="ada@example.com"),
    "POST /auth/password-reset/confirm": always(token="x", password=PASSWORD),
    "POST /auth/email-verification": always(),
    "POST /auth/email-verification/confirm": always(token="x"),
    "PATCH /users/me": always(displayName="Ada"),
    "DELETE /users/me": always(currentPassword=PASSWORD),
    "PUT /users/me/preferences": always(language="en"),
    "POST /users/me/api-keys": naming(),
    "POST /chats": always(title="A chat"),
    "PATCH /chats/{chat_id}": always(title="Another title"),
    "POST /chats/{chat_id}/messages": always(content="Hello"),
    "PUT /chats/{chat_id}/leaf": lambda scene: {"messageId": str(scene.things.message)},
    "POST /chats/{chat_id}/fork": always(),
    "POST /chats/{chat_id}/shares": always(),
    "PUT /messages/{message_id}/feedback": always(rating="up"),
    "POST /turns/{turn_id}/approvals/{tool_call_id}": always(decision="approve"),
    "POST /turns/{turn_id}/regenerate": always(),
    "POST /memories": always(content="Likes tea"),
    "POST /memories/search": always(query="tea"),
    "PATCH /memories/{memory_id}": always(importance=1),
    "POST /knowledge": always(title="Tea", content="Tea is a drink."),
    "POST /knowledge/search": always(query="tea"),
    "PATCH /knowledge/{document_id}": always(title="Another title"),
    "POST /knowledge/{document_id}/versions": always(content="Tea is a plant."),
    "POST /knowledge/{document_id}/publish": always(),
    "PATCH /admin/users/{user_id}": always(displayName="Ada"),
    "PUT /admin/users/{user_id}/subscription": lambda scene: {"planId": str(scene.things.plan)},
    "PUT /admin/users/{user_id}/budget": always(budgetUsd="5"),
    "PUT /admin/budget": always(),
    "POST /admin/prompts": naming(content="Be kind."),
    "POST /admin/prompts/{prompt_id}/versions": always(content="Be brief."),
    "PATCH /admin/tools/{name}": always(enabled=True),
    "POST /admin/tools/{name}/test": always(input={"expression": "1 + 1"}),
    "POST /admin/mcp-servers": naming(transport="stdio", command="false", args=[]),
    "PATCH /admin/mcp-servers/{name}": always(enabled=False),
    "POST /admin/workflow-tools": naming(
        description="A hook",
        url="https://hook.example/x",
        inputSchema=SCHEMA,
        secret="0123456789abcdef",
    ),
    "PATCH /admin/workflow-tools/{name}": always(enabled=False),
    "POST /admin/plans": naming(entitlements={}),
    "PATCH /admin/plans/{plan_id}": always(description="A plan"),
}


async def new_session(stack: Stack, user: ApiUser) -> dict[str, Any]:
    body = {"email": user.email, "password": PASSWORD}
    response = await stack.http.post("/auth/login", json=body)
    session: dict[str, Any] = response.json()["data"]
    return session


@pytest.fixture(scope="module")
async def lasting(stack: Stack) -> tuple[ApiUser, ApiUser]:
    """Another user and an administrator, for the routes that leave them as they are."""
    return await stack.sign_up(), await stack.sign_up_admin()


@pytest.fixture
async def scene(
    request: pytest.FixtureRequest, stack: Stack, user: ApiUser, lasting: tuple[ApiUser, ApiUser]
) -> AsyncIterator[Scene]:
    """A user with a resource of every kind, and the actors who request them."""
    others = lasting
    if getattr(request, "param", None) == "DELETE /users/me":
        others = await stack.sign_up(), await stack.sign_up_admin()
    made = await user.request(
        "POST", "/users/me/api-keys", json={"name": "Narrow", "permissions": ["tools:read"]}
    )
    assert made.status_code == 201, made.text
    things = things_of(user.id)
    connection = await asyncpg.connect(stack.addresses.superuser)
    try:
        for table, row in rows_of(things).items():
            if table not in _MADE_BY_SIGNING_UP:
                await insert(connection, table, row)
        await connection.execute("DELETE FROM erasures WHERE turn_id = $1", things.turn)
    finally:
        await connection.close()
    yield Scene(stack, user, *others, made.json()["data"]["key"], things, user.session)
    # There may be a hundred of these at most.
    await stack.inspection.execute("DELETE FROM mcp_servers WHERE name = $1", things.name)
    # It would be offered to every user.
    await stack.inspection.execute("DELETE FROM workflow_tools WHERE name = $1", things.name)


ENDLESS = {"/users/me/events"}


async def status_of(client: httpx.AsyncClient, scene: Scene, route: str, actor: str) -> int:
    """Call a route as one of the actors, and return the response."""
    method, template = route.split()
    body = BODIES[route](scene) if route in BODIES else None
    origin = client.base_url.copy_with(raw_path=b"/")
    prefix = "" if template == "/" else API_PREFIX
    async with client.stream(
        method,
        origin.join(f"{prefix}{scene.path(template)}"),
        json=body,
        files={"file": ("note.txt", b"A note.")} if route == "POST /files" else None,
        headers=scene.headers(actor),
    ) as response:
        if template not in ENDLESS or response.is_error:
            await response.aread()
        return response.status_code


@pytest.mark.parametrize(
    ("scene", "route"), [(route, route) for route in MATRIX], indirect=["scene"]
)
async def test_every_actor_gets_the_status_in_the_matrix(
    recorded: httpx.AsyncClient, scene: Scene, route: str
) -> None:
    expected = MATRIX[route]
    # Refused actors come first: they must leave the resource to the allowed ones.
    order = sorted(Row._fields, key=lambda actor: getattr(expected, actor) < 400)
    found: dict[str, int] = {}
    for actor in order:
        if route in {"POST /auth/refresh", "POST /auth/logout"}:
            scene.session.update(await new_session(scene.stack, scene.owner))
        found[actor] = await status_of(recorded, scene, route, actor)

    assert Row(**found) == expected


def test_every_route_is_in_the_matrix(documented: Documented) -> None:
    routes = {f"{method} {path.removeprefix(API_PREFIX)}" for method, path in documented.operations}

    assert set(MATRIX) == routes


def test_every_authenticated_route_documents_it(documented: Documented) -> None:
    for method, path in documented.operations:
        asks = MATRIX[f"{method} {path.removeprefix(API_PREFIX)}"].anonymous == 401
        operation = documented.paths[path][method.lower()]
        assert bool(operation.get("security")) == asks, (method, path)


async def test_a_user_who_is_disabled_gets_nowhere(
    stack: Stack, recorded: httpx.AsyncClient, scene: Scene
) -> None:
    await stack.inspection.execute(
        "UPDATE users SET status = 'disabled' WHERE id = $1", UUID(scene.owner.id)
    )
    asking = [route for route, row in MATRIX.items() if row.anonymous == 401]

    found = {
        (route, actor): await status_of(recorded, scene, route, actor)
        for route in asking
        for actor in ("owner", "key")
    }

    assert {asked for asked, status in found.items() if status != 401} == set()


async def test_unknown_ids_are_not_found(recorded: httpx.AsyncClient, scene: Scene) -> None:
    nothing = replace(scene, things=things_of(str(uuid4())))
    asking = {
        route: next(actor for actor in ("owner", "admin") if getattr(row, actor) < 400)
        for route, row in MATRIX.items()
        if "{" in route
        and min(row) < 400
        and not route.endswith(("/tools/{name}", "/tools/{name}/test"))
    }

    found = {
        route: await status_of(recorded, nothing, route, actor) for route, actor in asking.items()
    }

    assert {route: status for route, status in found.items() if status != 404} == {}
