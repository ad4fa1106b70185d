"""Users' preferences."""

import re
from typing import Annotated, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

from schema.tools import ApprovalPolicy, ToolName
from schema.wire import RequestModel, StorableText, VersionedModel

_ZONE: Final = re.compile(r"(?!right/|posix/)[A-Za-z][\w+-]*(?:/[A-Za-z][\w+-]*)*", re.ASCII)
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*")


def _known_zone(name: str) -> str:
    if not _ZONE.fullmatch(name):
        raise ValueError("must be a time zone, e.g. Europe/Berlin")
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder such as `America`
        raise ValueError("must be a time zone, e.g. Europe/Berlin") from None
    return name


def _language_tag(tag: str) -> str:
    if not _LANGUAGE.fullmatch(tag):
        raise ValueError("must be a language tag, e.g. en or pt-BR")
    return tag


def _each_once(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


# The syntax of BCP 47; whether the language exists is not checked.
Language = Annotated[str, Field(max_length=35, examples=["pt-BR"]), AfterValidator(_language_tag)]
TimeZone = Annotated[
    str, Field(max_length=64, examples=["Europe/Berlin"]), AfterValidator(_known_zone)
]
Instructions = Annotated[
    StorableText, Field(min_length=1, max_length=4000, examples=["Answer briefly."])
]
ModelName = Annotated[StorableText, Field(min_length=1, max_length=100)]


class Preferences(VersionedModel):
    """A user's preferences; null stands for the default."""

    language: str | None = None
    time_zone: str | None = None
    instructions: str | None = None
    default_model: str | None = None
    use_memories: bool = True
    use_knowledge: bool = True
    auto_accept_memories: bool = False
    extract_memories: bool = True
    disabled_tools: tuple[str, ...] = ()
    tool_approvals: dict[str, ApprovalPolicy] = Field(default_factory=dict)


class PreferencesRequest(RequestModel):
    """All preferences; omitted fields return to their defaults."""

    language: Language | None = None
    time_zone: TimeZone | None = None
    instructions: Instructions | None = None
    default_model: ModelName | None = None
    use_memories: bool = True
    use_knowledge: bool = True
    auto_accept_memories: bool = False
    extract_memories: Annotated[
        bool, Field(description="Whether memories are suggested from what the user writes.")
    ] = True
    disabled_tools: Annotated[list[ToolName], Field(max_length=200), AfterValidator(_each_once)] = (
        Field(default_factory=list)
    )
    tool_approvals: Annotated[
        dict[ToolName, Annotated[ApprovalPolicy, Field(strict=False)]],
        Field(
            max_length=200,
            examples=[{"github__create_issue": "ask"}],
            description="Approval policies by tool; stricter ones of the plan or the "
            "administrators take precedence.",
        ),
    ] = Field(default_factory=dict)
