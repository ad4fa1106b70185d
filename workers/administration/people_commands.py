"""Owns the commands about users, their plans, what they have used, and the audit log."""

from typing import Annotated

import typer

from workers.administration.options import AsJson, Limit, UserName, administration

app = typer.Typer()

_USERS = {
    "id": "id",
    "e-mail": "email",
    "name": "displayName",
    "role": "role",
    "status": "status",
    "plan": "planId",
    "made": "createdAt",
}
_PLANS = {
    "id": "id",
    "name": "name",
    "default": "isDefault",
    "active": "active",
    "models": "entitlements.models",
    "budget in USD": "entitlements.budgetUsd",
}
_GROUPS = {"user": "userId"}
_USAGE = {
    "calls": "calls",
    "turns": "turns",
    "tokens in": "usage.inputTokens",
    "tokens out": "usage.outputTokens",
    "cost in USD": "costUsd",
}
_AUDIT = {
    "when": "createdAt",
    "who": "actorId",
    "as": "actorType",
    "did": "action",
    "to": "resourceId",
    "of": "subjectId",
    "from": "address",
}


@app.command()
def users(
    context: typer.Context,
    *,
    search: Annotated[str | None, typer.Option(help="In the e-mail address or name.")] = None,
    role: Annotated[str | None, typer.Option(help="Only those of this role.")] = None,
    status: Annotated[str | None, typer.Option(help="Only those of this status.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List users, the newest first."""
    with administration(context) as admin:
        rows = admin.rows("users", limit=limit, search=search, role=role, status=status)
        admin.show_rows(rows, _USERS, as_json=as_json)


@app.command()
def user(
    context: typer.Context,
    who: UserName,
    *,
    role: Annotated[str | None, typer.Option(help="Give this role.")] = None,
    status: Annotated[str | None, typer.Option(help="`active`, or `disabled`.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a user, with another role or status if one is named."""
    with administration(context) as admin:
        wanted = {"role": role, "status": status}
        change = {name: value for name, value in wanted.items() if value is not None}
        path = ("users", admin.user_id(who))
        shown = admin.send("PATCH", *path, body=change) if change else admin.send("GET", *path)
        admin.show(shown, as_json=as_json)


@app.command()
def plans(context: typer.Context, *, limit: Limit = 50, as_json: AsJson = False) -> None:
    """List plans."""
    with administration(context) as admin:
        admin.show_rows(admin.rows("plans", limit=limit), _PLANS, as_json=as_json)


@app.command()
def subscribe(
    context: typer.Context,
    who: UserName,
    plan: Annotated[str, typer.Argument(help="An id or a name.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Give a user a plan."""
    with administration(context) as admin:
        body = {"planId": admin.plan_id(plan)}
        path = ("users", admin.user_id(who), "subscription")
        admin.show(admin.send("PUT", *path, body=body), as_json=as_json)


@app.command()
def usage(
    context: typer.Context,
    *,
    by: Annotated[str, typer.Option(help="`user`, `model` or `day`.")] = "user",
    since: Annotated[str | None, typer.Option(help="As 2026-01-31T00:00:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="As 2026-01-31T00:00:00Z.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """Add up what was used, by default in the last 30 days."""
    with administration(context) as admin:
        rows = admin.rows("usage", limit=limit, **{"groupBy": by, "from": since, "to": until})
        admin.show_rows(rows, {"of": _GROUPS.get(by, by), **_USAGE}, as_json=as_json)


@app.command()
def audit(
    context: typer.Context,
    *,
    action: Annotated[str | None, typer.Option(help="As user.changed.")] = None,
    actor: Annotated[str | None, typer.Option(help="The id of who did it.")] = None,
    subject: Annotated[str | None, typer.Option(help="The id of whose thing it was.")] = None,
    resource: Annotated[str | None, typer.Option(help="The id of what it was done to.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """Search the audit log, the newest first."""
    with administration(context) as admin:
        chosen = {"actorId": actor, "subjectId": subject, "resourceId": resource}
        rows = admin.rows("audit", limit=limit, action=action, **chosen)
        admin.show_rows(rows, _AUDIT, as_json=as_json)
