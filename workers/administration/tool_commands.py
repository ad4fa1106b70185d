"""The commands about tools, MCP servers and workflow tools."""

from typing import Annotated

import typer

from workers.administration.options import (
    AsJson,
    Limit,
    administration,
    given,
    json_object,
    pairs,
)

app = typer.Typer()
mcp_servers = typer.Typer(no_args_is_help=True, help="MCP servers, whose tools turns can use.")
workflow_tools = typer.Typer(no_args_is_help=True, help="Webhooks that turns can use as tools.")
app.add_typer(mcp_servers, name="mcp-servers")
app.add_typer(workflow_tools, name="workflow-tools")

ToolName = Annotated[str, typer.Argument(metavar="NAME", help="The tool's name.")]
ServerName = Annotated[str, typer.Argument(metavar="NAME", help="The server's name.")]
Approval = Annotated[str | None, typer.Option(help="Approval policy: auto, ask or deny.")]

_TOOLS = {
    "name": "name",
    "kind": "kind",
    "server": "server",
    "enabled": "enabled",
    "approval": "approval",
    "roles": "roles",
    "retries": "retryClass",
}
_SERVERS = {
    "name": "name",
    "transport": "transport",
    "status": "status",
    "enabled": "enabled",
    "tools": "toolCount",
    "checked": "checkedAt",
    "problem": "problem",
}
_WORKFLOW_TOOLS = {
    "name": "name",
    "url": "url",
    "enabled": "enabled",
    "approval": "approval",
    "retries": "retryClass",
    "timeout in s": "timeoutS",
}


@app.command()
def tools(context: typer.Context, *, limit: Limit = 100, as_json: AsJson = False) -> None:
    """List tools of all kinds."""
    with administration(context) as admin:
        admin.show_rows(admin.api.tools.list().first(limit), _TOOLS, as_json=as_json)


@app.command()
def tool(
    context: typer.Context,
    name: ToolName,
    *,
    on: Annotated[bool | None, typer.Option("--on/--off", help="Enable or disable it.")] = None,
    approval: Approval = None,
    as_json: AsJson = False,
) -> None:
    """Show a tool, after changing its settings if given."""
    with administration(context) as admin:
        changes = given(enabled=on, approval=approval)
        if changes:
            admin.show(admin.api.tools.update(name, **changes), as_json=as_json)
        else:
            admin.show(admin.tool(name), as_json=as_json)


@app.command()
def tool_test(
    context: typer.Context,
    name: ToolName,
    tool_input: Annotated[
        str, typer.Argument(metavar="JSON", help='The input, e.g. {"expression": "6*7"}.')
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Run a tool; the exit code is 1 if it fails."""
    parsed = json_object(tool_input, name="JSON")
    with administration(context) as admin:
        outcome = admin.api.tools.test(name, parsed)
        admin.show(outcome, as_json=as_json)
    raise typer.Exit(1 if outcome.is_error else 0)


@mcp_servers.command("list")
def list_servers(context: typer.Context, *, limit: Limit = 100, as_json: AsJson = False) -> None:
    """List MCP servers."""
    with administration(context) as admin:
        admin.show_rows(admin.api.mcp_servers.list().first(limit), _SERVERS, as_json=as_json)


@mcp_servers.command("add")
def add_server(
    context: typer.Context,
    name: ServerName,
    command: Annotated[
        list[str] | None, typer.Argument(help="The command that the workers run, after --.")
    ] = None,
    *,
    url: Annotated[str | None, typer.Option(help="The server's URL, instead of a command.")] = None,
    env: Annotated[
        list[str] | None, typer.Option(help="Environment variable NAME=VALUE; repeatable.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="HTTP header NAME=VALUE; repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Register a server: a command to run, or a URL."""
    if (url is None) == (not command):
        raise typer.BadParameter("pass either a command or a URL", param_hint="--url")
    variables, headers = pairs(env, name="--env"), pairs(header, name="--header")
    with administration(context) as admin:
        if command:
            added = admin.api.mcp_servers.create_stdio(
                name=name, command=command[0], args=command[1:], env=variables
            )
        else:
            added = admin.api.mcp_servers.create_http(name=name, url=url or "", headers=headers)
        admin.show(added, as_json=as_json)


@mcp_servers.command("remove")
def remove_server(context: typer.Context, name: ServerName) -> None:
    """Remove a server and its tools."""
    with administration(context) as admin:
        admin.api.mcp_servers.delete(name)


@mcp_servers.command("refresh")
def refresh_server(context: typer.Context, name: ServerName, *, as_json: AsJson = False) -> None:
    """Refresh a server's list of tools."""
    with administration(context) as admin:
        admin.show(admin.api.mcp_servers.refresh(name), as_json=as_json)


@workflow_tools.command("list")
def list_workflow_tools(
    context: typer.Context, *, limit: Limit = 100, as_json: AsJson = False
) -> None:
    """List workflow tools."""
    with administration(context) as admin:
        found = admin.api.workflow_tools.list().first(limit)
        admin.show_rows(found, _WORKFLOW_TOOLS, as_json=as_json)


@workflow_tools.command("add")
def add_workflow_tool(  # noqa: PLR0913 -- one for each field of a tool
    context: typer.Context,
    name: ToolName,
    url: Annotated[str, typer.Argument(help="The URL that calls are sent to.")],
    *,
    description: Annotated[str, typer.Option(help="The description for the model.")],
    secret: Annotated[
        str,
        typer.Option(
            envvar="EVERTURN_TOOL_SECRET",
            prompt=True,
            hide_input=True,
            help="Signs the calls. Prefer the environment variable: options show in process lists.",
        ),
    ],
    input_schema: Annotated[
        str, typer.Option(help="JSON Schema of the input.")
    ] = '{"type": "object"}',
    approval: Approval = "auto",
    retries: Annotated[
        str, typer.Option(help="Retry class: idempotent, keyed or never.")
    ] = "keyed",
    timeout_s: Annotated[float, typer.Option(help="Timeout of a call, in seconds.")] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Register a webhook as a tool."""
    schema = json_object(input_schema, name="--input-schema")
    with administration(context) as admin:
        added = admin.api.workflow_tools.create(
            name=name,
            description=description,
            url=url,
            input_schema=schema,
            secret=secret,
            timeout_s=timeout_s,
            retry_class=retries,
            approval=approval,
        )
        admin.show(added, as_json=as_json)


@workflow_tools.command("remove")
def remove_workflow_tool(context: typer.Context, name: ToolName) -> None:
    """Remove a workflow tool."""
    with administration(context) as admin:
        admin.api.workflow_tools.delete(name)
