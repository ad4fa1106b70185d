"""Workflow tools as administrators register, change and delete them, and their webhooks.

Does not call them, and does not check where their URLs lead: each call does.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import Text, bindparam, delete
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE, Actor
from schema.audit import AuditAction, ResourceType
from schema.errors import INPUT_SCHEMA_UNUSABLE
from schema.pages import Page, PageRequest
from schema.result import Err, Ok, Result
from schema.tables import ToolSettingsRow, WorkflowToolRow
from schema.tables.columns import utc_now
from schema.workflow_tools import (
    ChangeWorkflowToolRequest,
    CreateWorkflowToolRequest,
    WorkflowTool,
)
from services.audit import changed, record
from services.database import Database
from services.database.queries import CompiledQuery, Listing, Order
from services.outgoing.signatures import KEY_PREFIX, signing_key
from services.resources import (
    Conflict,
    InvalidField,
    ToolRefusal,
    Unreachable,
    Versions,
    create_once,
    find_named,
    named_id,
    touch,
    version_matches,
)
from services.tools.input_schemas import problem_of_schema
from services.tools.local_tools import LocalTools
from services.tools.masks import SecretMask, secrets_of_url
from services.tools.secrets import SecretVault

_BY_NAME: Final = Order("name", (col(WorkflowToolRow.name),))
_IS_NAMED: Final = col(WorkflowToolRow.name) == bindparam("name", type_=Text)
_TOOL: Final = CompiledQuery(select(WorkflowToolRow).where(_IS_NAMED))
_TOOLS: Final = Listing(select(WorkflowToolRow))


class WorkflowToolService:
    """Registers workflow tools. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, registry: LocalTools, vault: SecretVault) -> None:
        self._database = database
        self._registry = registry
        self._vault = vault

    async def create(
        self, actor: Actor, request: CreateWorkflowToolRequest, *, key: str | None
    ) -> Result[WorkflowTool, Conflict | ToolRefusal | InvalidField]:
        """Register a tool, under a name that no other tool has.

        Idempotency: the same key with the same request returns the tool that was created before.
        """
        refusal = self._refusal_of(request)
        if refusal is not None:
            return Err(refusal)
        now = utc_now()
        tool_id = named_id(request.name, now)

        async def create(session: AsyncSession) -> Result[WorkflowTool, ToolRefusal]:
            insertion = insert(WorkflowToolRow).values(self._columns_of(request, now))
            unless_taken = insertion.on_conflict_do_nothing().returning(WorkflowToolRow)
            row = (await session.exec(unless_taken)).scalars().first()
            if row is None:
                return Err(ToolRefusal.NAME_TAKEN)
            resource = (ResourceType.WORKFLOW_TOOL, row.name)
            record(session, actor, AuditAction.WORKFLOW_TOOL_CREATED, resource)
            return Ok(_tool(row))

        return await create_once(
            self._database,
            actor,
            key,
            request=request,
            resource_id=tool_id,
            create=create,
            find=lambda earlier: find_named(self.get(actor, request.name), earlier),
        )

    async def list_tools(self, actor: Actor, page: PageRequest) -> Page[WorkflowTool]:
        """Return the workflow tools, by name.

        Errors: InvalidCursorError.
        """
        async with self._database.statements(actor) as connection:
            rows = await _TOOLS.read(connection, page, _BY_NAME)
        return rows.map(_tool)

    async def get(self, actor: Actor, name: str) -> Result[WorkflowTool, Unreachable]:
        """Return one workflow tool."""
        async with self._database.statements(actor) as connection:
            row = await _TOOL.first(connection, name=name)
        return Err(Unreachable.MISSING) if row is None else Ok(_tool(row))

    async def change(
        self,
        actor: Actor,
        name: str,
        request: ChangeWorkflowToolRequest,
        *,
        versions: Versions,
    ) -> Result[WorkflowTool, Conflict | Unreachable | ToolRefusal | InvalidField]:
        """Change some fields of a tool, if its version is one of `versions`."""
        changes = request.changes()
        problem = _problem_of(request) if "input_schema" in changes else None
        if problem is not None:
            return Err(problem)
        if "secret" in changes and not self._vault.has_key:
            return Err(ToolRefusal.NO_ENCRYPTION_KEY)
        async with self._database.transaction(actor) as session:
            row = await session.get(WorkflowToolRow, name, with_for_update=True)
            if row is None:
                return Err(Unreachable.MISSING)
            if not version_matches(row.version, versions):
                return Err(Conflict.VERSION_CHANGED)
            for field, value in changes.items():
                setattr(row, field, self._sealed(name, value) if field == "secret" else value)
            # The provider may take it as it is now.
            row.problem = None
            touch(row)
            await session.flush()
            record(
                session,
                actor,
                AuditAction.WORKFLOW_TOOL_CHANGED,
                (ResourceType.WORKFLOW_TOOL, name),
                details=changed(changes),
            )
            return Ok(_tool(row))

    async def delete(self, actor: Actor, name: str) -> Result[None, Unreachable]:
        """Delete a tool with its settings; its name can be used again."""
        gone = delete(WorkflowToolRow).where(col(WorkflowToolRow.name) == name)
        async with self._database.transaction(actor) as session:
            deleted = (await session.exec(gone.returning(col(WorkflowToolRow.name)))).first()
            if deleted is None:
                return Err(Unreachable.MISSING)
            await session.exec(delete(ToolSettingsRow).where(col(ToolSettingsRow.name) == name))
            resource = (ResourceType.WORKFLOW_TOOL, name)
            record(session, actor, AuditAction.WORKFLOW_TOOL_DELETED, resource)
            return Ok(None)

    def _refusal_of(self, request: CreateWorkflowToolRequest) -> ToolRefusal | InvalidField | None:
        if not self._vault.has_key:
            return ToolRefusal.NO_ENCRYPTION_KEY
        if self._registry.get(request.name) is not None:
            return ToolRefusal.NAME_TAKEN
        return _problem_of(request)

    def _columns_of(self, request: CreateWorkflowToolRequest, now: datetime) -> dict[str, object]:
        return {
            **request.model_dump(),
            "secret": self._sealed(request.name, request.secret),
            "enabled": True,
            "version": 1,
            "created_at": now,
            "updated_at": now,
        }

    def _sealed(self, name: str, secret: str) -> bytes:
        return self._vault.seal(secret.encode(), owner=secret_owner(name))


@dataclass(frozen=True, slots=True)
class Webhook:
    """A tool's webhook, and the secret that signs its requests and callbacks."""

    name: str
    url: str
    secret: str = field(repr=False)
    enabled: bool

    @property
    def key(self) -> bytes:
        """The key of its secret."""
        return signing_key(self.secret)

    @property
    def mask(self) -> SecretMask:
        """What takes its own secrets out of what it says."""
        secret = self.secret.removeprefix(KEY_PREFIX)
        return SecretMask((secret, *secrets_of_url(self.url)))


async def find_webhook(database: Database, vault: SecretVault, name: str) -> Webhook | None:
    """Return the webhook of a tool; None if the tool was deleted.

    Errors: UnreadableSecretError, DatabaseUnavailableError.
    """
    # As the service: users may read neither the URL nor the secret.
    async with database.transaction(SERVICE) as session:
        row = await session.get(WorkflowToolRow, name)
    if row is None:
        return None
    secret = vault.open(row.secret, owner=secret_owner(name)).decode()
    return Webhook(name, row.url, secret, row.enabled)


def secret_owner(name: str) -> str:
    """Return what a workflow tool's secret is bound to when it is encrypted."""
    return f"workflow_tool:{name}"


def _tool(row: WorkflowToolRow) -> WorkflowTool:
    return WorkflowTool.model_validate(row, from_attributes=True)


def _problem_of(
    request: CreateWorkflowToolRequest | ChangeWorkflowToolRequest,
) -> InvalidField | None:
    problem = problem_of_schema(request.input_schema)
    return (
        None
        if problem is None
        else InvalidField("body.inputSchema", INPUT_SCHEMA_UNUSABLE.format(problem))
    )
