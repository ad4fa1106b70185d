"""Owns the way from a tool call to its bounded outcome: found, checked, run by its kind.

Does not store, tell or retry: `services/turns/tool_calls.py` and `tool_attempts.py` do.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from pydantic import JsonValue

from schema.result import Err, Ok, Result
from schema.tools import ApprovalPolicy, ToolDefinition, ToolKind
from services.auth.accounts import AccountCache
from services.tools.bounds import bounded
from services.tools.catalogue import ToolCatalogue
from services.tools.definition import ToolExecution, ToolOutcome
from services.tools.permission import Audience, Verdict, verdict
from services.tools.schema_errors import shortened
from services.tools.validation import InputValidation


@dataclass(frozen=True, slots=True)
class AnswersLater:
    """The tool took the call and will answer it by a callback of this id."""

    callback_id: UUID


class ToolRunner(Protocol):
    """Runs the tools of one kind."""

    async def run(
        self,
        definition: ToolDefinition,
        tool_input: Mapping[str, JsonValue],
        execution: ToolExecution,
        /,
    ) -> ToolOutcome | AnswersLater:
        """Return the outcome for an input that was checked.

        Errors: ToolUnavailableError for an outage; what else raises is a bug.
        """
        ...


class ToolExecutor:
    """Executes tool calls. Errors: DatabaseUnavailableError."""

    def __init__(
        self,
        catalogue: ToolCatalogue,
        accounts: AccountCache,
        runners: Mapping[ToolKind, ToolRunner],
    ) -> None:
        self._catalogue = catalogue
        self._accounts = accounts
        self._runners = runners
        self._validation = InputValidation()

    async def find(self, name: str) -> ToolDefinition | None:
        """Return the tool of this name as the administrators decided that it be run."""
        tool = (await self._catalogue.known()).find(name)
        # Another process may know of a tool that is newer than what is remembered here.
        return (await self._catalogue.current()).find(name) if tool is None else tool

    async def ready(
        self,
        name: str,
        tool_input: Mapping[str, JsonValue],
        execution: ToolExecution,
        *,
        schema: Mapping[str, JsonValue] | None = None,
    ) -> Result[ToolDefinition, ToolOutcome]:
        """Return the tool if it may be run on the input; else what the model is told.

        Shapes: `schema` is the one that the model was told, where that is not the tool's own.
        """
        tool = await self.find(name)
        if tool is None:
            return Err(_refusal(f"There is no tool called `{shortened(name)}` (any more)."))
        if not await self._may_run(tool, execution):
            return Err(_refusal(f"The tool `{name}` may not be used now."))
        problem = self._validation.problem(schema or tool.input_schema, tool_input)
        if problem is not None:
            return Err(_refusal(f"Invalid input to {name}: {problem}."))
        return Ok(tool)

    async def run(
        self,
        tool: ToolDefinition,
        tool_input: Mapping[str, JsonValue],
        execution: ToolExecution,
    ) -> ToolOutcome | AnswersLater:
        """Run a tool that is ready, within its timeout.

        Errors: TimeoutError once the tool's time is over; ToolUnavailableError; what a runner
        raises else is a bug.
        """
        async with asyncio.timeout(tool.timeout.total_seconds()):
            outcome = await self._runners[tool.kind].run(tool, tool_input, execution)
        if isinstance(outcome, AnswersLater):
            return outcome
        return bounded(outcome)

    async def _may_run(self, tool: ToolDefinition, execution: ToolExecution) -> bool:
        """Whether what held when the tool was offered still does; a trial asks nobody."""
        if execution.turn_id is None:
            return True
        account = await self._accounts.of(execution.actor.user_id)
        if account is None or tool.approval is ApprovalPolicy.DENY:
            return False
        decision = (await self._catalogue.known()).decision(tool.name)
        audience = Audience(account.role, account.entitlements.tools)
        return verdict(tool.name, decision, audience) is Verdict.PERMITTED


def _refusal(words: str) -> ToolOutcome:
    return ToolOutcome(output=words, is_error=True)
