"""Owns the decision which tools somebody may use: the administrators', the plan's, their own."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from schema.users import UserRole
from services.tools.definition import ApprovalPolicy, ToolDefinition


@dataclass(frozen=True, slots=True)
class ToolSetting:
    """What the administrators decided about a tool; null leaves it as the tool defines it."""

    enabled: bool = True
    approval: ApprovalPolicy | None = None
    roles: frozenset[UserRole] | None = None


UNDECIDED = ToolSetting()


class Verdict(StrEnum):
    """Whether somebody may use a tool: nobody may use one that is switched off."""

    PERMITTED = "permitted"
    SWITCHED_OFF = "switched_off"
    FORBIDDEN = "forbidden"


@dataclass(frozen=True, slots=True)
class Audience:
    """For whom it is decided; `tools` are those of the plan, null means all."""

    role: UserRole
    tools: Collection[str] | None


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
        as_decided(tool, setting)
        for tool, setting in decided
        if verdict(tool.name, setting, audience) is Verdict.PERMITTED
    )


def unasked(tools: Sequence[ToolDefinition]) -> tuple[ToolDefinition, ...]:
    """Return the tools that a model may call: those that nobody has to be asked for.

    A turn can't ask yet, so what is to be asked for is as good as denied.
    """
    return tuple(tool for tool in tools if tool.approval is ApprovalPolicy.AUTO)


def as_decided(tool: ToolDefinition, setting: ToolSetting) -> ToolDefinition:
    """Return the tool under the approval policy that holds now."""
    if setting.approval in {None, tool.approval}:
        return tool
    return tool.model_copy(update={"approval": setting.approval})
