"""Execution of tool calls: the tool is found, its input validated, its outcome bounded.

Does not store, publish or retry: `services/turns/tool_calls.py` and `tool_attempts.py` do.
"""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from pydantic import JsonValue

from schema.result import Err, Ok, Result
from schema.tools import ApprovalPolicy, ToolDefinition, ToolKind
from services.auth.accounts import AccountCache
from services.tools.catalogue import ToolCatalogue, ToolSnapshot
from services.tools.definition import ToolExecution, ToolOutcome, bounded
from services.tools.offered_schema import names_of_input
from services.tools.permission import ToolSettings, Verdict, audience_of, verdict
from services.tools.schema_errors import SAME_NAMES, shortened
from services.tools.validation import InputValidation


@dataclass(frozen=True, slots=True)
class AnswersLater:
    """The tool accepted the call and will answer with a callback of this id."""

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
        """Return the outcome for a validated input.

        Errors: ToolUnavailableError for an outage; any other exception is a bug.
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

    async def known(self, names: Collection[str]) -> ToolSnapshot:
        """Return all tools as they were a few seconds ago at most; now, if some name is newer."""
        found = await self._catalogue.snapshot()
        if all(name in found.definitions for name in names):
            return found
        return await self._catalogue.current_snapshot()

    async def find(self, name: str) -> ToolDefinition | None:
        """Return the tool with this name, with the administrators' settings applied."""
        return (await self.known([name])).find(name)

    async def ready(
        self,
        name: str,
        tool_input: Mapping[str, JsonValue],
        execution: ToolExecution,
        *,
        schema: Mapping[str, JsonValue] | None = None,
    ) -> Result[ToolDefinition, ToolOutcome]:
        """Return the tool if it may be run on the input; otherwise an error for the model.

        Shapes: `schema` is the one that the model was offered, if it is no longer the tool's own.
        The input is in the tool's own names.
        """
        tools = await self.known([name])
        tool = tools.find(name)
        if tool is None:
            return Err(_refusal(f"Tool `{shortened(name)}` not found."))
        if not await self._may_run(tool, tools.settings_of(name), execution):
            return Err(_refusal(f"Tool `{name}` is not available."))
        schema = schema or tool.input_schema
        # Only a model knows the properties by other names.
        names = SAME_NAMES if execution.turn_id is None else names_of_input(schema).to_model
        problem = self._validation.problem(schema, tool_input, names=names)
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

        Errors: TimeoutError after the tool's timeout; ToolUnavailableError; any other exception is
        a bug.
        """
        async with asyncio.timeout(tool.timeout.total_seconds()):
            outcome = await self._runners[tool.kind].run(tool, tool_input, execution)
        if isinstance(outcome, AnswersLater):
            return outcome
        return bounded(outcome)

    async def _may_run(
        self, tool: ToolDefinition, settings: ToolSettings, execution: ToolExecution
    ) -> bool:
        """Return whether the permission that the tool was offered with still holds.

        A trial, which is outside a turn, needs none.
        """
        if execution.turn_id is None:
            return True
        account = await self._accounts.get(execution.actor.user_id)
        if account is None or tool.approval is ApprovalPolicy.DENY:
            return False
        return verdict(tool.name, settings, audience_of(account)) is Verdict.PERMITTED


def _refusal(sentence: str) -> ToolOutcome:
    return ToolOutcome(output=sentence, is_error=True)
