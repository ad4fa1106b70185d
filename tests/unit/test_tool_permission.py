"""Permission to use a tool: settings, roles and plans decide, in this order."""

from datetime import timedelta

import pytest

from schema.tools import ApprovalPolicy, RetryClass, ToolDefinition
from schema.users import UserRole
from services.tools.permission import (
    DEFAULT_SETTINGS,
    Audience,
    ToolSettings,
    Verdict,
    permitted,
    verdict,
)

ANYONE = Audience(UserRole.USER, None)


def tool(name: str, approval: ApprovalPolicy = ApprovalPolicy.AUTO) -> ToolDefinition:
    return ToolDefinition(
        name=name,
        description="",
        input_schema={"type": "object"},
        timeout=timedelta(seconds=1),
        retry_class=RetryClass.IDEMPOTENT,
        approval=approval,
    )


TOOLS = (tool("zeta"), tool("alpha"), tool("mid"))


def names(settings: dict[str, ToolSettings], audience: Audience = ANYONE) -> list[str]:
    return [one.name for one in permitted(TOOLS, settings, audience)]


def test_all_users_may_use_tools_without_settings_in_the_order_of_the_definitions() -> None:
    assert names({}) == ["zeta", "alpha", "mid"]


def test_a_disabled_tool_is_available_to_no_user() -> None:
    off = {"alpha": ToolSettings(enabled=False)}

    assert names(off) == ["zeta", "mid"]
    assert names(off, Audience(UserRole.ADMIN, None)) == ["zeta", "mid"]


def test_roles_restrict_a_tool() -> None:
    reserved = {"zeta": ToolSettings(roles=frozenset({UserRole.ADMIN}))}

    assert names(reserved) == ["alpha", "mid"]
    assert names(reserved, Audience(UserRole.ADMIN, None)) == ["zeta", "alpha", "mid"]


@pytest.mark.parametrize(
    ("tools", "expected"),
    [((), []), (("mid",), ["mid"]), (("mid", "gone"), ["mid"]), (None, ["zeta", "alpha", "mid"])],
)
def test_a_plan_names_its_tools_or_allows_all(
    tools: tuple[str, ...] | None, expected: list[str]
) -> None:
    assert names({}, Audience(UserRole.USER, tools)) == expected


def test_an_administrator_needs_the_plan_too() -> None:
    assert names({}, Audience(UserRole.ADMIN, ("mid",))) == ["mid"]


def test_the_approval_policy_set_by_administrators_applies() -> None:
    settings = {
        "zeta": ToolSettings(approval=ApprovalPolicy.ASK),
        "alpha": ToolSettings(approval=None),
    }

    policies = {one.name: one.approval for one in permitted(TOOLS, settings, ANYONE)}

    assert policies == {"zeta": "ask", "alpha": "auto", "mid": "auto"}


def test_settings_can_loosen_the_policy_of_the_definition() -> None:
    strict = (tool("zeta", ApprovalPolicy.ASK),)

    found = permitted(strict, {"zeta": ToolSettings(approval=ApprovalPolicy.AUTO)}, ANYONE)

    assert [one.approval for one in found] == ["auto"]
    assert strict[0].approval == "ask"


def test_a_disabled_tool_is_disabled_even_for_users_who_may_not_use_it() -> None:
    setting = ToolSettings(enabled=False, roles=frozenset({UserRole.ADMIN}))

    assert verdict("zeta", setting, ANYONE) is Verdict.SWITCHED_OFF


def test_a_tool_for_other_roles_is_forbidden() -> None:
    admins = ToolSettings(roles=frozenset({UserRole.ADMIN}))

    assert verdict("zeta", admins, ANYONE) is Verdict.FORBIDDEN
    assert verdict("zeta", DEFAULT_SETTINGS, Audience(UserRole.USER, ())) is Verdict.FORBIDDEN
