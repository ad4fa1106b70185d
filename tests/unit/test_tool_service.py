"""Who may use which tool: administrators, roles and plans decide, in this order."""

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


def test_everybody_may_use_what_nobody_decided_about_in_the_order_of_the_registry() -> None:
    assert names({}) == ["zeta", "alpha", "mid"]


def test_nobody_may_use_what_is_switched_off() -> None:
    off = {"alpha": ToolSettings(enabled=False)}

    assert names(off) == ["zeta", "mid"]
    assert names(off, Audience(UserRole.ADMIN, None)) == ["zeta", "mid"]


def test_roles_leave_a_tool_to_some() -> None:
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


def test_the_approval_policy_is_the_one_decided_on() -> None:
    settings = {
        "zeta": ToolSettings(approval=ApprovalPolicy.ASK),
        "alpha": ToolSettings(approval=None),
    }

    policies = {one.name: one.approval for one in permitted(TOOLS, settings, ANYONE)}

    assert policies == {"zeta": "ask", "alpha": "auto", "mid": "auto"}


def test_a_decision_can_loosen_what_a_tool_defines() -> None:
    strict = (tool("zeta", ApprovalPolicy.ASK),)

    found = permitted(strict, {"zeta": ToolSettings(approval=ApprovalPolicy.AUTO)}, ANYONE)

    assert [one.approval for one in found] == ["auto"]
    assert strict[0].approval == "ask"


def test_what_is_switched_off_is_so_for_those_too_who_might_not_use_it() -> None:
    setting = ToolSettings(enabled=False, roles=frozenset({UserRole.ADMIN}))

    assert verdict("zeta", setting, ANYONE) is Verdict.SWITCHED_OFF


def test_what_is_for_others_is_forbidden() -> None:
    admins = ToolSettings(roles=frozenset({UserRole.ADMIN}))

    assert verdict("zeta", admins, ANYONE) is Verdict.FORBIDDEN
    assert verdict("zeta", DEFAULT_SETTINGS, Audience(UserRole.USER, ())) is Verdict.FORBIDDEN
