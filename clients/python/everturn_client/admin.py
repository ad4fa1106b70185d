"""The groups under `/admin`, for administrators.

Updates take the fields to change by name, in snake case: `update(plan_id, is_default=True)`.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from everturn_client import admin_models as models
from everturn_client.admin_content import AdminKnowledge, AdminTurns, within
from everturn_client.admin_tools import AdminTools, McpServers, WorkflowTools
from everturn_client.calls import (
    Call,
    change,
    creation,
    delete,
    fields,
    filters,
    get,
    listing,
    post,
)
from everturn_client.endpoints import Endpoint, Group, Listing, RunnerT
from everturn_client.models import Entitlements, UsageRow


class AdminUsers(Group[RunnerT]):
    """Users."""

    @Listing
    def list(
        self,
        *,
        search: str | None = None,
        role: str | None = None,
        status: str | None = None,
        plan_id: str | None = None,
        sort: str | None = None,
        limit: int | None = None,
    ) -> Call[models.ManagedUser]:
        """List users, the newest first, `limit` on a page."""
        query = filters(
            search=search, role=role, status=status, plan_id=plan_id, sort=sort, limit=limit
        )
        return listing(models.ManagedUser, "admin", "users", query=query)

    @Endpoint
    def get(self, user_id: str) -> Call[models.ManagedUser]:
        """Return a user."""
        return get(models.ManagedUser, "admin", "users", user_id)

    @Endpoint
    def update(
        self,
        /,
        user_id: str,
        *,
        if_version: int | None = None,
        **changes: Any,  # noqa: ANN401 -- fields of a request
    ) -> Call[models.ManagedUser]:
        """Update a user's `role`, `status` or `display_name`."""
        body = fields(**changes)
        return change(models.ManagedUser, "admin", "users", user_id, body=body, version=if_version)

    @Endpoint
    def assign_plan(
        self,
        user_id: str,
        plan_id: str,
        *,
        started_at: datetime | None = None,
        if_version: int | None = None,
    ) -> Call[models.PlanAssignment]:
        """Assign a plan to a user."""
        return change(
            models.PlanAssignment,
            "admin",
            "users",
            user_id,
            "subscription",
            body=filters(plan_id=plan_id, started_at=started_at),
            version=if_version,
            method="PUT",
        )

    @Endpoint
    def budget(self, user_id: str) -> Call[models.UserBudget]:
        """Return the limits that apply to a user, and what they have spent."""
        return get(models.UserBudget, "admin", "users", user_id, "budget")

    @Endpoint
    def set_budget(
        self,
        user_id: str,
        *,
        budget_usd: Decimal | str | None = None,
        daily_budget_usd: Decimal | str | None = None,
        budget_tokens: int | None = None,
        daily_budget_tokens: int | None = None,
        if_version: int | None = None,
    ) -> Call[models.UserBudget]:
        """Replace all four limits of a user's plan; None means no limit."""
        body = fields(
            budget_usd=budget_usd,
            daily_budget_usd=daily_budget_usd,
            budget_tokens=budget_tokens,
            daily_budget_tokens=daily_budget_tokens,
        )
        where = ("admin", "users", user_id, "budget")
        return change(models.UserBudget, *where, body=body, version=if_version, method="PUT")

    @Endpoint
    def delete_budget(self, user_id: str, *, if_version: int | None = None) -> Call[None]:
        """Return a user to the limits of their plan."""
        return delete("admin", "users", user_id, "budget", version=if_version)


class Plans(Group[RunnerT]):
    """Plans."""

    @Listing
    def list(
        self, *, active: bool | None = None, sort: str | None = None, limit: int | None = None
    ) -> Call[models.Plan]:
        """List plans, `limit` on a page."""
        query = filters(active=active, sort=sort, limit=limit)
        return listing(models.Plan, "admin", "plans", query=query)

    @Endpoint
    def create(
        self,
        *,
        name: str,
        description: str | None = None,
        entitlements: Entitlements | Mapping[str, Any] | None = None,
        is_default: bool | None = None,
        idempotency_key: str | None = None,
    ) -> Call[models.Plan]:
        """Create a plan."""
        body = filters(
            name=name, description=description, entitlements=entitlements, is_default=is_default
        )
        return creation(models.Plan, "admin", "plans", body=body, key=idempotency_key)

    @Endpoint
    def get(self, plan_id: str) -> Call[models.Plan]:
        """Return a plan."""
        return get(models.Plan, "admin", "plans", plan_id)

    @Endpoint
    def update(
        self,
        /,
        plan_id: str,
        *,
        if_version: int | None = None,
        **changes: Any,  # noqa: ANN401 -- fields of a request
    ) -> Call[models.Plan]:
        """Update a plan."""
        body = fields(**changes)
        return change(models.Plan, "admin", "plans", plan_id, body=body, version=if_version)


class Prompts(Group[RunnerT]):
    """Prompts of the system layer, and their versions."""

    @Listing
    def list(self, *, sort: str | None = None, limit: int | None = None) -> Call[models.Prompt]:
        """List prompts, `limit` on a page."""
        return listing(models.Prompt, "admin", "prompts", query=filters(sort=sort, limit=limit))

    @Endpoint
    def create(
        self,
        *,
        name: str,
        description: str | None = None,
        content: str | None = None,
        idempotency_key: str | None = None,
    ) -> Call[models.PromptDetail]:
        """Create a prompt, with `content` as its first version."""
        body = filters(name=name, description=description, content=content)
        return creation(models.PromptDetail, "admin", "prompts", body=body, key=idempotency_key)

    @Endpoint
    def get(self, prompt_id: str) -> Call[models.PromptDetail]:
        """Return a prompt with its latest activations."""
        return get(models.PromptDetail, "admin", "prompts", prompt_id)

    @Listing
    def versions(
        self, prompt_id: str, *, sort: str | None = None, limit: int | None = None
    ) -> Call[models.PromptVersion]:
        """List the versions of a prompt, `limit` on a page."""
        query = filters(sort=sort, limit=limit)
        return listing(models.PromptVersion, "admin", "prompts", prompt_id, "versions", query=query)

    @Endpoint
    def create_version(
        self,
        prompt_id: str,
        *,
        content: str,
        note: str | None = None,
        idempotency_key: str | None = None,
    ) -> Call[models.PromptVersion]:
        """Create a version of a prompt; it is used once it is activated."""
        body = filters(content=content, note=note)
        where = ("admin", "prompts", prompt_id, "versions")
        return creation(models.PromptVersion, *where, body=body, key=idempotency_key)

    @Endpoint
    def activate(self, prompt_id: str, number: int) -> Call[models.PromptDetail]:
        """Use a version of a prompt from now on."""
        where = ("admin", "prompts", prompt_id, "versions", number, "activate")
        return post(models.PromptDetail, *where)


class Admin(Group[RunnerT]):
    """Everything under `/admin`."""

    def __init__(self, runner: RunnerT) -> None:
        super().__init__(runner)
        self.users = AdminUsers(runner)
        self.plans = Plans(runner)
        self.prompts = Prompts(runner)
        self.tools = AdminTools(runner)
        self.mcp_servers = McpServers(runner)
        self.workflow_tools = WorkflowTools(runner)
        self.turns = AdminTurns(runner)
        self.knowledge = AdminKnowledge(runner)

    @Endpoint
    def budget(self) -> Call[models.InstallationBudget]:
        """Return the limits of all users together, and what they have spent."""
        return get(models.InstallationBudget, "admin", "budget")

    @Endpoint
    def set_budget(
        self,
        *,
        budget_usd: Decimal | str | None = None,
        daily_budget_usd: Decimal | str | None = None,
        budget_tokens: int | None = None,
        daily_budget_tokens: int | None = None,
        if_version: int | None = None,
    ) -> Call[models.InstallationBudget]:
        """Set all four limits of all users together; None means no limit."""
        body = fields(
            budget_usd=budget_usd,
            daily_budget_usd=daily_budget_usd,
            budget_tokens=budget_tokens,
            daily_budget_tokens=daily_budget_tokens,
        )
        where = ("admin", "budget")
        return change(
            models.InstallationBudget, *where, body=body, version=if_version, method="PUT"
        )

    @Endpoint
    def delete_budget(self, *, if_version: int | None = None) -> Call[None]:
        """Lift the limits of all users together."""
        return delete("admin", "budget", version=if_version)

    @Listing
    def alerts(
        self,
        *,
        kind: str | None = None,
        severity: str | None = None,
        user_id: str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        limit: int | None = None,
    ) -> Call[models.Alert]:
        """List alerts, the newest first, `limit` on a page."""
        query = filters(kind=kind, severity=severity, user_id=user_id, limit=limit)
        return listing(models.Alert, "admin", "alerts", query=query | within(since, until))

    @Listing
    def audit(  # noqa: PLR0913 -- one for each filter
        self,
        *,
        action: str | None = None,
        actor_id: str | None = None,
        subject_id: str | None = None,
        resource_type: str | None = None,
        resource_id: str | None = None,
        request_id: str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        limit: int | None = None,
    ) -> Call[models.AuditEntry]:
        """List entries of the audit log, the newest first, `limit` on a page."""
        query = filters(
            action=action,
            actor_id=actor_id,
            subject_id=subject_id,
            resource_type=resource_type,
            resource_id=resource_id,
            request_id=request_id,
            limit=limit,
        )
        return listing(models.AuditEntry, "admin", "audit", query=query | within(since, until))

    @Listing
    def feedback(
        self,
        *,
        rating: str | None = None,
        model: str | None = None,
        prompt_version: str | None = None,
        user_id: str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        limit: int | None = None,
    ) -> Call[models.GivenFeedback]:
        """List feedback on answers, the newest first, `limit` on a page."""
        query = filters(
            rating=rating, model=model, prompt_version=prompt_version, user_id=user_id, limit=limit
        )
        query |= within(since, until)
        return listing(models.GivenFeedback, "admin", "feedback", query=query)

    @Listing
    def usage(
        self,
        *,
        group_by: str | None = None,
        user_id: str | None = None,
        model: str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        limit: int | None = None,
    ) -> Call[UsageRow]:
        """Total the usage by `user`, `model` or `day`, by default of the last 30 days."""
        query = filters(group_by=group_by, user_id=user_id, model=model, limit=limit)
        return listing(UsageRow, "admin", "usage", query=query | within(since, until))
