"""Which tools an audience may use, and how: by the administrators' settings, the plan, the user."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from schema.tools import ApprovalPolicy, RetryClass, ToolDefinition
from schema.users import UserRole
from services.auth.accounts import Account

_FROM_LENIENT_TO_STRICT: Final = (ApprovalPolicy.AUTO, ApprovalPolicy.ASK, ApprovalPolicy.DENY)


class ToolSettings(BaseModel):
    """The administrators' settings of a tool; null keeps the value of its definition."""

    model_config = ConfigDict(frozen=True)

    enabled: bool = True
    approval: ApprovalPolicy | None = None
    roles: frozenset[UserRole] | None = None
    retry_class: RetryClass | None = None
    timeout_s: float | None = None
    cost_usd: Decimal | None = None


DEFAULT_SETTINGS: Final = ToolSettings()


class Verdict(StrEnum):
    """Whether an audience may use a tool; no audience may use a disabled one."""

    PERMITTED = "permitted"
    SWITCHED_OFF = "switched_off"
    FORBIDDEN = "forbidden"


@dataclass(frozen=True, slots=True)
class Audience:
    """Whom a verdict is for; `tools` are those of the plan, null means all.

    `approvals` are the policies that the plan and the user set for tools, one or both.
    """

    role: UserRole
    tools: Collection[str] | None
    approvals: Sequence[Mapping[str, ApprovalPolicy]] = field(default=())


def audience_of(account: Account) -> Audience:
    """Return the audience that an account is."""
    entitlements = account.entitlements
    policies = (entitlements.tool_approvals, account.tool_approvals)
    return Audience(account.role, entitlements.tools, policies)


def verdict(name: str, settings: ToolSettings, audience: Audience) -> Verdict:
    """Return whether the audience may use the tool with this name."""
    if not settings.enabled:
        return Verdict.SWITCHED_OFF
    if settings.roles is not None and audience.role not in settings.roles:
        return Verdict.FORBIDDEN
    if audience.tools is not None and name not in audience.tools:
        return Verdict.FORBIDDEN
    return Verdict.PERMITTED


def permitted(
    definitions: Sequence[ToolDefinition],
    settings: Mapping[str, ToolSettings],
    audience: Audience,
) -> tuple[ToolDefinition, ...]:
    """Return the tools that the audience may use, under the approval policy that applies to it."""
    pairs = ((tool, settings.get(tool.name, DEFAULT_SETTINGS)) for tool in definitions)
    return tuple(
        for_audience(with_settings(tool, setting), audience)
        for tool, setting in pairs
        if verdict(tool.name, setting, audience) is Verdict.PERMITTED
    )


def offerable(tools: Sequence[ToolDefinition]) -> tuple[ToolDefinition, ...]:
    """Return the tools to offer to a model: those whose calls are not always denied."""
    return tuple(tool for tool in tools if tool.approval is not ApprovalPolicy.DENY)


def with_settings(tool: ToolDefinition, settings: ToolSettings) -> ToolDefinition:
    """Return the tool with the administrators' settings applied."""
    changes: dict[str, Any] = {
        "approval": settings.approval,
        "retry_class": settings.retry_class,
        "timeout": None if settings.timeout_s is None else timedelta(seconds=settings.timeout_s),
        "cost_usd": settings.cost_usd,
    }
    changed = {name: value for name, value in changes.items() if value is not None}
    return tool.model_copy(update=changed) if changed else tool


def for_audience(tool: ToolDefinition, audience: Audience) -> ToolDefinition:
    """Return the tool under the strictest policy of its own, the plan's and the user's."""
    policies = [tool.approval]
    policies += [
        policies_of[tool.name] for policies_of in audience.approvals if tool.name in policies_of
    ]
    strictest = max(policies, key=_FROM_LENIENT_TO_STRICT.index)
    return tool if strictest is tool.approval else tool.model_copy(update={"approval": strictest})
