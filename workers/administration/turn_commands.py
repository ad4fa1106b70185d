"""Owns the commands about turns."""

from typing import Annotated

import typer

from workers.administration.options import AsJson, Limit, administration

app = typer.Typer()

TurnId = Annotated[str, typer.Argument(metavar="TURN", help="Its id.")]

_TURNS = {
    "id": "id",
    "user": "userId",
    "status": "status",
    "model": "model",
    "cost in USD": "costUsd",
    "error": "error.code",
    "made": "createdAt",
}
_PARTS = {
    "messages": {"role": "role", "content": "content"},
    "steps": {
        "step": "step",
        "attempt": "attempt",
        "model": "model",
        "status": "status",
        "stopped by": "stopReason",
    },
    "toolCalls": {
        "step": "step",
        "tool": "name",
        "input": "input",
        "status": "status",
        "output": "output",
    },
    "charges": {
        "step": "step",
        "attempt": "attempt",
        "kind": "kind",
        "model": "model",
        "status": "status",
        "cost in USD": "costUsd",
    },
}


@app.command()
def turns(
    context: typer.Context,
    *,
    user: Annotated[str | None, typer.Option(help="An id or an e-mail address.")] = None,
    status: Annotated[str | None, typer.Option(help="As failed.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List turns of all users, the newest first."""
    with administration(context) as admin:
        owner = None if user is None else admin.user_id(user)
        rows = admin.rows("turns", limit=limit, userId=owner, status=status)
        admin.show_rows(rows, _TURNS, as_json=as_json)


@app.command()
def turn(context: typer.Context, turn_id: TurnId, *, as_json: AsJson = False) -> None:
    """Show all that happened in a turn; this is audited."""
    with administration(context) as admin:
        inspected = admin.send("GET", "turns", turn_id)
        if as_json:
            admin.show(inspected, as_json=True)
            return
        admin.show(inspected["turn"], as_json=False)
        for part, columns in _PARTS.items():
            admin.show_rows(inspected[part], columns, title=part, as_json=False)


@app.command()
def cancel(context: typer.Context, turn_id: TurnId, *, as_json: AsJson = False) -> None:
    """Stop a turn."""
    with administration(context) as admin:
        admin.show(admin.send("POST", "turns", turn_id, "cancel"), as_json=as_json)


@app.command()
def rerun(context: typer.Context, turn_id: TurnId, *, as_json: AsJson = False) -> None:
    """Answer the message of a chat's newest turn again."""
    with administration(context) as admin:
        admin.show(admin.send("POST", "turns", turn_id, "rerun"), as_json=as_json)
