"""The tools of an MCP server as it lists them: which can be called, and what is said of others."""

from typing import Any, Final, Literal

import pytest
from mcp_types import Tool, ToolExecution

from services.mcp.refresh import check_tools

SCHEMA: Final[dict[str, Any]] = {"type": "object"}


def a_tool(name: str, task: Literal["forbidden", "optional", "required"] | None) -> Tool:
    return Tool(name=name, input_schema=SCHEMA, execution=ToolExecution(task_support=task))


def test_a_tool_that_runs_only_as_a_task_is_left_out_and_named() -> None:
    listing = check_tools("jobs", [a_tool("quick", "optional"), a_tool("slow", "required")])

    why = "runs only as a task, which is not supported"
    assert {row.name: row.problem for row in listing.tools} == {
        "quick": None,
        "slow": f"Skipped: {why}.",
    }
    assert not listing.has_failed
    assert listing.problem == f"Skipped tools: `slow` ({why})."


@pytest.mark.parametrize("task", ["forbidden", "optional", None])
def test_a_tool_that_need_not_run_as_a_task_is_called_without(task: Any) -> None:  # noqa: ANN401 -- one of the literals
    listing = check_tools("jobs", [a_tool("quick", task)])

    assert (len(listing.tools), listing.problem) == (1, None)
