"""The tools that users have, by the settings of administrators, plans and users."""

import asyncio
from uuid import UUID

import pytest

from api.service_groups import ApiServices
from schema.pages import PageRequest
from schema.tools import ApprovalPolicy
from services.tools.catalogue import ToolCatalogue
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.actors import actor_of
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.local_tools import default_tools
from tests.fixtures.stack import Stack
from tests.fixtures.tool_settings import changed_settings

NOT_OFFERED = "The tool `calculator` is not available in this turn."
INSTANT = ("calculator", "datetime")


async def offered(services: ApiServices, person: ApiUser) -> list[str]:
    """Return the instant tools that a user's model is offered."""
    page = await services.tools.available.list_tools(actor_of(person), PageRequest(limit=100))
    usable = [tool for tool in page.items if tool.enabled_by_user]
    names = {tool.name for tool in usable if tool.approval is not ApprovalPolicy.DENY}
    return [name for name in INSTANT if name in names]


async def disable(stack: Stack, person: ApiUser, *names: str) -> None:
    await stack.inspection.execute(
        "INSERT INTO preferences (user_id, disabled_tools) VALUES ($1, $2)",
        UUID(person.id),
        list(names),
    )


async def test_all_users_are_offered_all_tools_by_default(
    user: ApiUser, services: ApiServices
) -> None:
    assert await offered(services, user) == ["calculator", "datetime"]


async def test_a_tool_disabled_by_the_user_is_listed_but_not_offered(
    user: ApiUser, other_user: ApiUser, stack: Stack
) -> None:
    await disable(stack, user, "calculator", "gone")

    response = await user.request("GET", "/tools")

    assert await offered(stack.services, user) == ["datetime"]
    assert await offered(stack.services, other_user) == ["calculator", "datetime"]
    shown = {tool["name"]: tool["enabledByUser"] for tool in response.json()["data"]}
    assert {name: shown[name] for name in INSTANT} == {"calculator": False, "datetime": True}


async def test_a_tool_that_an_administrator_disabled_is_missing_for_all_users(
    user: ApiUser, admin: ApiUser, services: ApiServices
) -> None:
    async with changed_settings(admin, "datetime", enabled=False):
        assert await offered(services, user) == ["calculator"]
        assert await offered(services, admin) == ["calculator"]
        assert (await user.request("GET", "/tools/datetime")).status_code == 404

    assert await offered(services, user) == ["calculator", "datetime"]


async def test_a_tool_for_some_roles_is_forbidden_to_others(
    user: ApiUser, admin: ApiUser, services: ApiServices
) -> None:
    async with changed_settings(admin, "datetime", roles=["admin"]):
        assert await offered(services, user) == ["calculator"]
        assert await offered(services, admin) == ["calculator", "datetime"]
        assert (await user.request("GET", "/tools/datetime")).status_code == 403
        assert (await admin.request("GET", "/tools/datetime")).status_code == 200


async def test_a_plan_restricts_tools_to_its_subscribers(
    user: ApiUser, admin: ApiUser, services: ApiServices
) -> None:
    body = {"name": unique("plan"), "entitlements": {"tools": ["calculator"]}}
    plan = (await admin.request("POST", "/admin/plans", json=body)).json()["data"]["id"]
    response = await admin.request(
        "PUT", f"/admin/users/{user.id}/subscription", json={"planId": plan}
    )
    assert response.status_code == 200, response.text

    assert await offered(services, user) == ["calculator"]
    assert (await user.request("GET", "/tools/datetime")).status_code == 403


async def test_the_approval_policy_set_by_an_administrator_applies(
    user: ApiUser, admin: ApiUser
) -> None:
    async with changed_settings(admin, "calculator", approval="ask"):
        shown = (await user.request("GET", "/tools")).json()["data"]

    policies = {tool["name"]: tool["approval"] for tool in shown}
    assert {name: policies[name] for name in INSTANT} == {"calculator": "ask", "datetime": "auto"}


async def test_a_disabled_or_deleted_user_is_offered_nothing(user: ApiUser, stack: Stack) -> None:
    await stack.inspection.execute(
        "UPDATE users SET status = 'disabled' WHERE id = $1", UUID(user.id)
    )

    assert await offered(stack.services, user) == []


async def test_new_settings_reach_processes_with_a_cached_snapshot_at_their_next_turn(
    admin: ApiUser, stack: Stack
) -> None:
    remembering = ToolCatalogue(stack.foundation.database, default_tools(), lifetime_s=3600)
    before = await remembering.current_snapshot()

    async with changed_settings(admin, "calculator", enabled=False):
        remembered = await remembering.snapshot()
        after = await remembering.current_snapshot()

    assert remembered is before
    assert after.version > before.version
    assert not after.settings_of("calculator").enabled
    assert (await remembering.current_snapshot()).settings_of("calculator").enabled


async def test_one_of_two_updates_of_the_same_version_succeeds(admin: ApiUser) -> None:
    async with changed_settings(admin, "calculator", approval="ask") as version:
        answers = await asyncio.gather(
            *(
                admin.request(
                    "PATCH",
                    "/admin/tools/calculator",
                    json={"approval": approval},
                    headers={"If-Match": version},
                )
                for approval in ("deny", "auto")
            )
        )

    assert sorted(answer.status_code for answer in answers) == [200, 412]


@pytest.mark.parametrize("changes", [{"enabled": False}, {"roles": ["admin"]}])
async def test_changes_of_settings_are_audited_by_field_name(
    admin: ApiUser, stack: Stack, changes: dict[str, object]
) -> None:
    async with changed_settings(admin, "calculator", **changes):
        details = await stack.inspection.value(
            "SELECT details::text FROM audit_log WHERE actor_id = $1 AND action = 'tool.changed'",
            UUID(admin.id),
        )

    assert next(iter(changes)) in details


async def test_a_tool_that_the_model_was_not_offered_is_not_run(
    user: ApiUser, stack: Stack
) -> None:
    await disable(stack, user, "calculator")
    question = unique()
    call = ToolCall(name="calculator", input={"expression": "6 * 7"})
    stack.model.add(Script(match=question, tool_calls=(call,)))
    stack.model.add(Script(match=question, text="I can't."))

    events = await user.events_of(await user.create_chat(), question)

    ended = [event.data for event in events if event.name == "tool_call"][-1]
    assert (ended["status"], ended["output"]) == ("failed", NOT_OFFERED)
    assert events[-1].data["assistantMessage"]["content"] == "I can't."


@pytest.mark.parametrize(("approval", "expected"), [("ask", [*INSTANT]), ("deny", ["datetime"])])
async def test_a_tool_that_never_runs_is_not_offered(
    user: ApiUser,
    admin: ApiUser,
    services: ApiServices,
    *,
    approval: str,
    expected: list[str],
) -> None:
    async with changed_settings(admin, "calculator", approval=approval):
        assert await offered(services, user) == expected

    assert await offered(services, user) == list(INSTANT)


@pytest.mark.parametrize(
    ("of_admin", "of_user", "in_force"),
    [
        ("auto", "ask", "ask"),
        ("ask", "auto", "ask"),
        ("ask", "deny", "deny"),
        ("auto", "auto", "auto"),
    ],
)
async def test_the_strictest_approval_policy_applies(
    user: ApiUser, admin: ApiUser, *, of_admin: str, of_user: str, in_force: str
) -> None:
    preferences = {"toolApprovals": {"calculator": of_user}}
    assert (await user.request("PUT", "/users/me/preferences", json=preferences)).status_code == 200

    async with changed_settings(admin, "calculator", approval=of_admin):
        shown = (await user.request("GET", "/tools/calculator")).json()["data"]

    assert shown["approval"] == in_force


async def test_a_plan_can_ask_for_approval(user: ApiUser, admin: ApiUser) -> None:
    body = {"name": unique("plan"), "entitlements": {"toolApprovals": {"calculator": "ask"}}}
    plan = (await admin.request("POST", "/admin/plans", json=body)).json()["data"]["id"]
    await admin.request("PUT", f"/admin/users/{user.id}/subscription", json={"planId": plan})

    shown = (await user.request("GET", "/tools/calculator")).json()["data"]

    assert shown["approval"] == "ask"


async def test_administrators_set_how_a_tool_is_run(admin: ApiUser) -> None:
    decisions = {"retryClass": "never", "timeoutS": 2.5, "costUsd": "0.25"}
    async with changed_settings(admin, "calculator", **decisions):
        listed = (await admin.request("GET", "/admin/tools?limit=100")).json()["data"]

    shown = next(tool for tool in listed if tool["name"] == "calculator")
    assert {name: shown[name] for name in decisions} == decisions
