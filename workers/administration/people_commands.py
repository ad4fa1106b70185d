"""The commands about users, plans, usage, alerts and the audit log."""

from typing import Annotated, Any

import typer

from workers.administration.options import (
    AsJson,
    Limit,
    Since,
    Until,
    UserFilter,
    UserName,
    administration,
    given,
    json_object,
)

app = typer.Typer()
plans = typer.Typer(no_args_is_help=True, help="Plans, which set limits, models and tools.")
app.add_typer(plans, name="plans")
budget = typer.Typer(
    no_args_is_help=True, help="Budgets of one user, or without USER of the whole server."
)
app.add_typer(budget, name="budget")

PlanName = Annotated[str, typer.Argument(metavar="PLAN", help="The plan's ID or name.")]
EntitlementsJson = Annotated[
    str | None,
    typer.Option(help='What the plan allows, as JSON, e.g. {"budgetUsd": "5"}.'),
]

_USERS = {
    "id": "id",
    "email": "email",
    "name": "displayName",
    "role": "role",
    "status": "status",
    "plan": "planId",
    "created": "createdAt",
}
_PLANS = {
    "id": "id",
    "name": "name",
    "default": "isDefault",
    "active": "active",
    "models": "entitlements.models",
    "budget in USD": "entitlements.budgetUsd",
}
Someone = Annotated[
    str | None,
    typer.Argument(metavar="[USER]", help="The user's ID or email; without, the whole server."),
]
Dollars = Annotated[str | None, typer.Option(help="In USD, e.g. 25.00.")]
Tokens = Annotated[int | None, typer.Option(help="In tokens of all kinds.")]

_GROUPS = {"user": "userId"}
_USAGE = {
    "calls": "calls",
    "turns": "turns",
    "tokens in": "usage.inputTokens",
    "tokens out": "usage.outputTokens",
    "cost in USD": "costUsd",
}
_AUDIT = {
    "time": "createdAt",
    "actor": "actorId",
    "type": "actorType",
    "action": "action",
    "resource": "resourceId",
    "owner": "subjectId",
    "address": "address",
}
_ALERTS = {
    "time": "createdAt",
    "severity": "severity",
    "kind": "kind",
    "user": "userId",
    "type": "resourceType",
    "resource": "resourceId",
    "details": "details",
    "delivery": "deliveryStatus",
}


@app.command()
def users(
    context: typer.Context,
    *,
    search: Annotated[str | None, typer.Option(help="Search in emails and names.")] = None,
    role: Annotated[str | None, typer.Option(help="Filter by role: user or admin.")] = None,
    status: Annotated[
        str | None, typer.Option(help="Filter by status: active or disabled.")
    ] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List users, newest first."""
    with administration(context) as admin:
        found = admin.api.users.list(search=search, role=role, status=status)
        admin.show_rows(found.first(limit), _USERS, as_json=as_json)


@app.command()
def user(
    context: typer.Context,
    name: UserName,
    *,
    role: Annotated[str | None, typer.Option(help="Set the role: user or admin.")] = None,
    status: Annotated[str | None, typer.Option(help="Set the status: active or disabled.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a user, after setting their role or status if given."""
    with administration(context) as admin:
        user_id, changes = admin.user_id(name), given(role=role, status=status)
        update, get = admin.api.users.update, admin.api.users.get
        admin.show(update(user_id, **changes) if changes else get(user_id), as_json=as_json)


@app.command()
def subscribe(
    context: typer.Context, name: UserName, plan: PlanName, *, as_json: AsJson = False
) -> None:
    """Assign a plan to a user."""
    with administration(context) as admin:
        plan_id = admin.plan_id(plan)
        assigned = admin.api.users.assign_plan(admin.user_id(name), plan_id)
        admin.show(assigned, as_json=as_json)


@app.command()
def usage(
    context: typer.Context,
    *,
    by: Annotated[str, typer.Option(help="Group by user, model or day.")] = "user",
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """Total the usage, by default of the last 30 days."""
    with administration(context) as admin:
        found = admin.api.usage(group_by=by, since=since, until=until)
        columns = {by: _GROUPS.get(by, by), **_USAGE}
        admin.show_rows(found.first(limit), columns, as_json=as_json)


@app.command()
def audit(
    context: typer.Context,
    *,
    action: Annotated[str | None, typer.Option(help="Filter by action, e.g. user.changed.")] = None,
    actor: Annotated[str | None, typer.Option(help="Filter by the actor's ID.")] = None,
    subject: Annotated[str | None, typer.Option(help="Filter by the owner's ID.")] = None,
    resource: Annotated[str | None, typer.Option(help="Filter by the resource's ID.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List entries of the audit log, newest first."""
    with administration(context) as admin:
        found = admin.api.audit(
            action=action, actor_id=actor, subject_id=subject, resource_id=resource
        )
        admin.show_rows(found.first(limit), _AUDIT, as_json=as_json)


@app.command()
def alerts(
    context: typer.Context,
    *,
    kind: Annotated[str | None, typer.Option(help="Filter by kind, e.g. budget.reached.")] = None,
    severity: Annotated[
        str | None, typer.Option(help="Filter by severity: info, warning or critical.")
    ] = None,
    user: UserFilter = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List alerts, newest first."""
    with administration(context) as admin:
        found = admin.api.alerts(
            kind=kind,
            severity=severity,
            user_id=None if user is None else admin.user_id(user),
            since=since,
            until=until,
        )
        admin.show_rows(found.first(limit), _ALERTS, as_json=as_json)


@plans.command("list")
def list_plans(context: typer.Context, *, limit: Limit = 50, as_json: AsJson = False) -> None:
    """List plans."""
    with administration(context) as admin:
        admin.show_rows(admin.api.plans.list().first(limit), _PLANS, as_json=as_json)


@plans.command("show")
def show_plan(context: typer.Context, plan: PlanName, *, as_json: AsJson = False) -> None:
    """Show a plan."""
    with administration(context) as admin:
        admin.show(admin.api.plans.get(admin.plan_id(plan)), as_json=as_json)


@plans.command("create")
def create_plan(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The plan's name.")],
    *,
    description: Annotated[str | None, typer.Option(help="The plan's description.")] = None,
    entitlements: EntitlementsJson = None,
    default: Annotated[bool, typer.Option("--default", help="Make it the default plan.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create a plan."""
    allowed = json_object(entitlements, name="--entitlements") if entitlements else None
    with administration(context) as admin:
        created = admin.api.plans.create(
            name=name, description=description, entitlements=allowed, is_default=default or None
        )
        admin.show(created, as_json=as_json)


@plans.command("update")
def update_plan(
    context: typer.Context,
    plan: PlanName,
    *,
    name: Annotated[str | None, typer.Option(help="Rename the plan.")] = None,
    description: Annotated[str | None, typer.Option(help="Set the description.")] = None,
    entitlements: EntitlementsJson = None,
    default: Annotated[bool, typer.Option("--default", help="Make it the default plan.")] = False,
    active: Annotated[
        bool | None, typer.Option("--active/--inactive", help="Whether it can be assigned.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Update a plan; `--entitlements` replaces all of them."""
    allowed = json_object(entitlements, name="--entitlements") if entitlements else None
    changes = given(
        name=name,
        description=description,
        entitlements=allowed,
        is_default=default or None,
        active=active,
    )
    if not changes:
        raise typer.BadParameter("pass at least one option to change")
    with administration(context) as admin:
        admin.show(admin.api.plans.update(admin.plan_id(plan), **changes), as_json=as_json)


@budget.command("show")
def show_budget(context: typer.Context, user: Someone = None, *, as_json: AsJson = False) -> None:
    """Show the limits, and what was spent today and this month."""
    with administration(context) as admin:
        api = admin.api
        found = api.budget() if user is None else api.users.budget(admin.user_id(user))
        admin.show(found, as_json=as_json)


@budget.command("set")
def set_budget(
    context: typer.Context,
    user: Someone = None,
    *,
    month: Dollars = None,
    day: Dollars = None,
    month_tokens: Tokens = None,
    day_tokens: Tokens = None,
    as_json: AsJson = False,
) -> None:
    """Set all limits; those that are left out are lifted."""
    limits: dict[str, Any] = {
        "budget_usd": month,
        "daily_budget_usd": day,
        "budget_tokens": month_tokens,
        "daily_budget_tokens": day_tokens,
    }
    if not given(**limits):
        raise typer.BadParameter("pass at least one limit, or use `budget remove`")
    with administration(context) as admin:
        api = admin.api
        if user is None:
            admin.show(api.set_budget(**limits), as_json=as_json)
        else:
            admin.show(api.users.set_budget(admin.user_id(user), **limits), as_json=as_json)


@budget.command("remove")
def remove_budget(context: typer.Context, user: Someone = None) -> None:
    """Return a user to the limits of their plan, or lift those of the whole server."""
    with administration(context) as admin:
        if user is None:
            admin.api.delete_budget()
        else:
            admin.api.users.delete_budget(admin.user_id(user))
