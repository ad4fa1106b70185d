"""Owns the decision which tools somebody may use: the administrators', the plan's, their own."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from schema.tools import ApprovalPolicy, RetryClass, ToolDefinition
from schema.users import UserRole

_STRICTNESS: Final = (ApprovalPolicy.AUTO, ApprovalPolicy.ASK, ApprovalPolicy.DENY)


@dataclass(frozen=True, slots=True)
class ToolSetting:
    """What the administrators decided about a tool; null leaves it as the tool defines it."""

    enabled: bool = True
    approval: ApprovalPolicy | None = None
    roles: frozenset[UserRole] | None = None
    retry_class: RetryClass | None = None
    timeout_s: float | None = None
    cost_usd: Decimal | None = None


UNDECIDED: Final = ToolSetting()


class Verdict(StrEnum):
    """Whether somebody may use a tool: nobody may use one that is switched off."""

    PERMITTED = "permitted"
    SWITCHED_OFF = "switched_off"
    FORBIDDEN = "forbidden"


@dataclass(frozen=True, slots=True)
class Audience:
    """For whom it is decided; `tools` are those of the plan, null means all.

    `approvals` are the policies that the plan and the user set for tools, one or both.
    """

    role: UserRole
    tools: Collection[str] | None
    approvals: Sequence[Mapping[str, ApprovalPolicy]] = field(default=())


def verdict(name: str, setting: ToolSetting, audience: Audience) -> Verdict:
    """Say whether the audience may use the tool of this name."""
    if not setting.enabled:
        return Verdict.SWITCHED_OFF
    if setting.roles is not None and audience.role not in setting.roles:
        return Verdict.FORBIDDEN
    if audience.tools is not None and name not in audience.tools:
        return Verdict.FORBIDDEN
    return Verdict.PERMITTED


def permitted(
    definitions: Sequence[ToolDefinition],
    settings: Mapping[str, ToolSetting],
    audience: Audience,
) -> tuple[ToolDefinition, ...]:
    """Return the tools that the audience may use, under the approval policy that holds now."""
    decided = ((tool, settings.get(tool.name, UNDECIDED)) for tool in definitions)
    return tuple(
        for_audience(as_decided(tool, setting), audience)
        for tool, setting in decided
        if verdict(tool.name, setting, audience) is Verdict.PERMITTED
    )


def offerable(tools: Sequence[ToolDefinition]) -> tuple[ToolDefinition, ...]:
    """Return the tools that a model may call: of one that never runs it is not told."""
    return tuple(tool for tool in tools if tool.approval is not ApprovalPolicy.DENY)


def as_decided(tool: ToolDefinition, setting: ToolSetting) -> ToolDefinition:
    """Return the tool as the administrators decided that it be run."""
    changes: dict[str, Any] = {
        "approval": setting.approval,
        "retry_class": setting.retry_class,
        "timeout": None if setting.timeout_s is None else timedelta(seconds=setting.timeout_s),
        "cost_usd": setting.cost_usd,
    }
    decided = {name: value for name, value in changes.items() if value is not None}
    return tool.model_copy(update=decided) if decided else tool


def for_audience(tool: ToolDefinition, audience: Audience) -> ToolDefinition:
    """Return the tool under the strictest policy that anybody has set for it."""
    policies = [tool.approval]
    policies += [
        policies_of[tool.name] for policies_of in audience.approvals if tool.name in policies_of
    ]
    strictest = max(policies, key=_STRICTNESS.index)
    return tool if strictest is tool.approval else tool.model_copy(update={"approval": strictest})
