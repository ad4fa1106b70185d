"""Owns the commands about tools of all kinds, and about where they come from."""

from typing import Annotated, Any

import typer

from workers.administration.arguments import json_object, pairs
from workers.administration.options import AsJson, Limit, administration

app = typer.Typer()
mcp_servers = typer.Typer(no_args_is_help=True, help="MCP servers, whose tools turns may use.")
workflow_tools = typer.Typer(no_args_is_help=True, help="Webhooks that turns may use as tools.")
app.add_typer(mcp_servers, name="mcp-servers")
app.add_typer(workflow_tools, name="workflow-tools")

Name = Annotated[str, typer.Argument()]

_TOOLS = {
    "name": "name",
    "kind": "kind",
    "server": "server",
    "on": "enabled",
    "approval": "approval",
    "roles": "roles",
    "retries": "retryClass",
}
_SERVERS = {
    "name": "name",
    "transport": "transport",
    "status": "status",
    "on": "enabled",
    "tools": "toolCount",
    "checked": "checkedAt",
    "problem": "problem",
}
_WORKFLOW_TOOLS = {
    "name": "name",
    "url": "url",
    "on": "enabled",
    "approval": "approval",
    "retries": "retryClass",
    "timeout in s": "timeoutS",
}


@app.command()
def tools(context: typer.Context, *, limit: Limit = 100, as_json: AsJson = False) -> None:
    """List all tools there are."""
    with administration(context) as admin:
        admin.show_rows(admin.rows("tools", limit=limit), _TOOLS, as_json=as_json)


@app.command()
def tool(
    context: typer.Context,
    name: Name,
    *,
    on: Annotated[bool | None, typer.Option("--on/--off", help="Let it be used, or not.")] = None,
    approval: Annotated[str | None, typer.Option(help="`auto`, `ask` or `deny`.")] = None,
    as_json: AsJson = False,
) -> None:
    """Decide about a tool; without an option, nothing is changed."""
    with administration(context) as admin:
        wanted: dict[str, Any] = {"enabled": on, "approval": approval}
        change = {key: value for key, value in wanted.items() if value is not None}
        if change:
            admin.show(admin.send("PATCH", "tools", name, body=change), as_json=as_json)
        else:
            admin.show(admin.named("tools", name), as_json=as_json)


@app.command()
def tool_test(
    context: typer.Context,
    name: Name,
    tool_input: Annotated[str, typer.Argument(metavar="JSON", help='As {"expression": "6*7"}.')],
    *,
    as_json: AsJson = False,
) -> None:
    """Run a tool on an input; the exit code is 1 where the tool fails."""
    body = {"input": json_object(tool_input, name="JSON")}
    with administration(context) as admin:
        outcome = admin.send("POST", "tools", name, "test", body=body)
        admin.show(outcome, as_json=as_json)
    raise typer.Exit(1 if outcome["isError"] else 0)


@mcp_servers.command("list")
def list_servers(context: typer.Context, *, limit: Limit = 100, as_json: AsJson = False) -> None:
    """List the servers."""
    with administration(context) as admin:
        admin.show_rows(admin.rows("mcp-servers", limit=limit), _SERVERS, as_json=as_json)


@mcp_servers.command("add")
def add_server(
    context: typer.Context,
    name: Name,
    command: Annotated[
        list[str] | None, typer.Argument(help="What the workers run, behind `--`.")
    ] = None,
    *,
    url: Annotated[str | None, typer.Option(help="Where it is, if nothing is to be run.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="As NAME=VALUE; repeatable.")] = None,
    header: Annotated[list[str] | None, typer.Option(help="As NAME=VALUE; repeatable.")] = None,
    as_json: AsJson = False,
) -> None:
    """Register a server that is run as a process, or reached at a URL."""
    if (url is None) == (not command):
        raise typer.BadParameter("name a command or a URL", param_hint="--url")
    body: dict[str, Any] = {"name": name}
    if command:
        variables = pairs(env, name="--env")
        body |= {"transport": "stdio", "command": command[0], "args": command[1:], "env": variables}
    else:
        body |= {"transport": "http", "url": url, "headers": pairs(header, name="--header")}
    with administration(context) as admin:
        admin.show(admin.send("POST", "mcp-servers", body=body), as_json=as_json)


@mcp_servers.command("remove")
def remove_server(context: typer.Context, name: Name) -> None:
    """Remove a server with its tools."""
    with administration(context) as admin:
        admin.send("DELETE", "mcp-servers", name)


@mcp_servers.command("refresh")
def refresh_server(context: typer.Context, name: Name, *, as_json: AsJson = False) -> None:
    """List a server's tools anew."""
    with administration(context) as admin:
        admin.show(admin.send("POST", "mcp-servers", name, "refresh"), as_json=as_json)


@workflow_tools.command("list")
def list_workflow_tools(
    context: typer.Context, *, limit: Limit = 100, as_json: AsJson = False
) -> None:
    """List the workflow tools."""
    with administration(context) as admin:
        rows = admin.rows("workflow-tools", limit=limit)
        admin.show_rows(rows, _WORKFLOW_TOOLS, as_json=as_json)


@workflow_tools.command("add")
def add_workflow_tool(  # noqa: PLR0913 -- one for each field of a tool
    context: typer.Context,
    name: Name,
    url: Annotated[str, typer.Argument(help="Where calls are sent.")],
    *,
    description: Annotated[str, typer.Option(help="What the model reads.")],
    secret: Annotated[
        str,
        typer.Option(
            envvar="EVERTURN_TOOL_SECRET",
            prompt=True,
            hide_input=True,
            help="Signs the calls. Better in the environment: others see what a command is given.",
        ),
    ],
    input_schema: Annotated[str, typer.Option(help="A JSON schema.")] = '{"type": "object"}',
    approval: Annotated[str, typer.Option(help="`auto`, `ask` or `deny`.")] = "auto",
    retries: Annotated[str, typer.Option(help="`idempotent`, `keyed` or `never`.")] = "keyed",
    timeout_s: Annotated[float, typer.Option(help="How long a call may take.")] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Register a webhook as a tool."""
    body: dict[str, Any] = {
        "name": name,
        "description": description,
        "url": url,
        "inputSchema": json_object(input_schema, name="--input-schema"),
        "secret": secret,
        "timeoutS": timeout_s,
        "retryClass": retries,
        "approval": approval,
    }
    with administration(context) as admin:
        admin.show(admin.send("POST", "workflow-tools", body=body), as_json=as_json)


@workflow_tools.command("remove")
def remove_workflow_tool(context: typer.Context, name: Name) -> None:
    """Remove a workflow tool."""
    with administration(context) as admin:
        admin.send("DELETE", "workflow-tools", name)
