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


def test_tools_have_their_servers_names_until_they_are_stored() -> None:
    listing = check_tools("jobs", [a_tool("admin.tools/list", None), a_tool("a\x00b", None)])

    assert [row.name for row in listing.tools] == ["admin.tools/list"]
    assert listing.problem == (
        "Skipped tools: `a�b` (invalid name: use 1 to 256 printable characters)."
    )
    assert not listing.has_failed


def test_of_too_many_tools_the_first_by_name_are_used() -> None:
    tools = [a_tool(f"tool{number:03}", None) for number in range(501)]

    listings = [check_tools("jobs", tools[::step]) for step in (1, -1)]

    expected = [f"tool{number:03}" for number in range(500)]
    assert [sorted(row.name for row in listing.tools) for listing in listings] == [expected] * 2
    for listing in listings:
        assert not listing.has_failed
        assert listing.problem == "More than 500 tools: only the first 500 by name are used."
    assert check_tools("jobs", tools[:500]).problem is None
