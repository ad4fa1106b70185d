"""MCP servers as administrators register, change and delete them.

Does not connect to them: `refresh.py` does, in a worker.
"""

from typing import Any, Final

from sqlalchemy import Text, bindparam, delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import Actor
from schema.audit import AuditAction, ResourceType
from schema.errors import NOT_FOR_TRANSPORT, SECOND_AUTHORIZATION
from schema.mcp_servers import (
    ChangeMcpServerRequest,
    CreateHttpServerRequest,
    CreateStdioServerRequest,
    McpServer,
    McpServerStatus,
    McpTransport,
    RefreshMcpServerInput,
    names_authorization,
)
from schema.pages import Page, PageRequest
from schema.result import Err, Ok, Result
from schema.tables import McpServerRow, McpToolRow, ToolSettingsRow
from schema.tables.columns import utc_now
from schema.tools import qualified_name
from services.audit import changed, record
from services.database import Database
from services.database.queries import CompiledQuery, Listing, Order
from services.mcp.addresses import ServerSecrets
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
from services.tools.secrets import SecretVault

MAX_SERVERS: Final = 100

_BY_NAME: Final = Order("name", (col(McpServerRow.name),))
_TOOL_COUNT: Final[Any] = (
    select(func.count())
    .where(col(McpToolRow.server) == col(McpServerRow.name), col(McpToolRow.problem).is_(None))
    .scalar_subquery()
    .label("tool_count")
)
_WITH_COUNT: Final[Any] = select(McpServerRow, _TOOL_COUNT)
_SERVER: Final = CompiledQuery(
    _WITH_COUNT.where(col(McpServerRow.name) == bindparam("name", type_=Text))
)
_SERVERS: Final = Listing(_WITH_COUNT)
_FIELDS_OF: Final = {
    McpTransport.STDIO: frozenset({"command", "args", "env"}),
    McpTransport.HTTP: frozenset({"url", "headers", "oauth"}),
}
_SECRETS: Final = frozenset({"env", "headers"})
_SEALED: Final = _SECRETS | {"oauth"}


class McpServerService:
    """Registers MCP servers. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, vault: SecretVault) -> None:
        self._database = database
        self._secrets = ServerSecrets(vault)

    async def create(
        self,
        actor: Actor,
        request: CreateStdioServerRequest | CreateHttpServerRequest,
        *,
        key: str | None,
    ) -> Result[McpServer, Conflict | ToolRefusal]:
        """Register a server whose tools are not known yet.

        Idempotency: the same key with the same request returns the server that was created before.
        """
        columns = self._columns_of(request)
        if isinstance(columns, Err):
            return columns
        server_id = named_id(request.name, columns.value["created_at"])

        async def create(session: AsyncSession) -> Result[McpServer, ToolRefusal]:
            inserted = await _insert(session, columns.value)
            if isinstance(inserted, Err):
                return inserted
            record(
                session,
                actor,
                AuditAction.MCP_SERVER_CREATED,
                (ResourceType.MCP_SERVER, request.name),
                details={"transport": request.transport},
            )
            return Ok(_server(inserted.value, tool_count=0))

        return await create_once(
            self._database,
            actor,
            key,
            request=request,
            resource_id=server_id,
            create=create,
            find=lambda earlier: find_named(self.get(actor, request.name), earlier),
        )

    async def list_servers(self, actor: Actor, page: PageRequest) -> Page[McpServer]:
        """Return the servers, by name.

        Errors: InvalidCursorError.
        """
        async with self._database.statements(actor) as connection:
            rows = await _SERVERS.read(connection, page, _BY_NAME)
        return rows.map(_server_with_count)

    async def get(self, actor: Actor, name: str) -> Result[McpServer, Unreachable]:
        """Return one server."""
        async with self._database.statements(actor) as connection:
            row = await _SERVER.first(connection, name=name)
        return Err(Unreachable.MISSING) if row is None else Ok(_server_with_count(row))

    async def change(
        self, actor: Actor, name: str, request: ChangeMcpServerRequest, *, versions: Versions
    ) -> Result[McpServer, Conflict | Unreachable | ToolRefusal | InvalidField]:
        """Change a server, if its version is one of `versions`."""
        changes = request.changes()
        if any(changes.get(field) for field in _SEALED) and not self._secrets.has_key:
            return Err(ToolRefusal.NO_ENCRYPTION_KEY)
        async with self._database.transaction(actor) as session:
            row = await session.get(McpServerRow, name, with_for_update=True)
            if row is None:
                return Err(Unreachable.MISSING)
            if not version_matches(row.version, versions):
                return Err(Conflict.VERSION_CHANGED)
            problem = _foreign_field(row, changes)
            if problem is not None:
                return Err(problem)
            self._apply(row, changes)
            await session.flush()
            record(
                session,
                actor,
                AuditAction.MCP_SERVER_CHANGED,
                (ResourceType.MCP_SERVER, name),
                details=changed(changes),
            )
            count = select(_TOOL_COUNT).where(col(McpServerRow.name) == name)
            return Ok(_server(row, tool_count=(await session.exec(count)).one()))

    async def delete(self, actor: Actor, name: str) -> Result[None, Unreachable]:
        """Delete a server with its tools and their settings."""
        gone = delete(McpServerRow).where(col(McpServerRow.name) == name)
        of_its_tools = col(ToolSettingsRow.name).startswith(
            qualified_name(name, ""), autoescape=True
        )
        async with self._database.transaction(actor) as session:
            deleted = (await session.exec(gone.returning(col(McpServerRow.name)))).first()
            if deleted is None:
                return Err(Unreachable.MISSING)
            await session.exec(delete(ToolSettingsRow).where(of_its_tools))
            resource = (ResourceType.MCP_SERVER, name)
            record(session, actor, AuditAction.MCP_SERVER_DELETED, resource)
            return Ok(None)

    async def request_refresh(
        self, actor: Actor, name: str
    ) -> Result[RefreshMcpServerInput, Unreachable]:
        """Record that an actor requests a refresh, and return the input of its workflow."""
        async with self._database.transaction(actor) as session:
            row = await session.get(McpServerRow, name)
            if row is None:
                return Err(Unreachable.MISSING)
            resource = (ResourceType.MCP_SERVER, name)
            record(session, actor, AuditAction.MCP_SERVER_REFRESHED, resource)
            return Ok(RefreshMcpServerInput(name=name, configured_at=row.updated_at))

    def _columns_of(
        self, request: CreateStdioServerRequest | CreateHttpServerRequest
    ) -> Result[dict[str, Any], ToolRefusal]:
        now = utc_now()
        columns = {
            "name": request.name,
            "transport": request.transport,
            "args": [],
            "enabled": True,
            "status": McpServerStatus.UNKNOWN,
            "version": 1,
            "created_at": now,
            "updated_at": now,
        }
        if isinstance(request, CreateStdioServerRequest):
            columns |= {"command": request.command, "args": request.args}
            secrets = request.env
        else:
            columns["url"] = request.url
            if request.oauth is not None:
                columns |= self._oauth_columns(request.name, request.oauth.model_dump())
            secrets = request.headers
        if (secrets or columns.get("oauth")) and not self._secrets.has_key:
            return Err(ToolRefusal.NO_ENCRYPTION_KEY)
        columns |= {
            "secrets": self._secrets.seal(request.name, secrets),
            "secret_names": sorted(secrets),
        }
        return Ok(columns)

    def _apply(self, row: McpServerRow, changes: dict[str, Any]) -> None:
        for field in changes.keys() - _SEALED:
            setattr(row, field, changes[field])
        for field in changes.keys() & _SECRETS:
            row.secrets = self._secrets.seal(row.name, changes[field])
            row.secret_names = sorted(changes[field])
        if "oauth" in changes:
            for column, value in self._oauth_columns(row.name, changes["oauth"]).items():
                setattr(row, column, value)
        if changes.keys() != {"enabled"}:
            row.status, row.problem, row.checked_at = McpServerStatus.UNKNOWN, None, None
        touch(row)

    def _oauth_columns(self, name: str, oauth: dict[str, Any] | None) -> dict[str, Any]:
        """Return the columns of client credentials; without a key, the caller refuses them."""
        if oauth is None:
            return {"oauth": None, "oauth_secret": None}
        public = {field: oauth.get(field) for field in ("client_id", "token_url", "scope")}
        if not self._secrets.has_key:
            return {"oauth": public}
        sealed = self._secrets.seal_oauth(name, oauth["client_secret"])
        return {"oauth": public, "oauth_secret": sealed}


async def _insert(
    session: AsyncSession, columns: dict[str, Any]
) -> Result[McpServerRow, ToolRefusal]:
    made = insert(McpServerRow).values(columns).on_conflict_do_nothing().returning(McpServerRow)
    row = (await session.exec(made)).scalars().first()
    if row is None:
        return Err(ToolRefusal.NAME_TAKEN)
    total = (await session.exec(select(func.count()).select_from(McpServerRow))).one()
    return Err(ToolRefusal.TOO_MANY) if total > MAX_SERVERS else Ok(row)


def _server(row: McpServerRow, *, tool_count: int) -> McpServer:
    return McpServer.model_validate({**row.model_dump(), "tool_count": tool_count})


def _server_with_count(row: object) -> McpServer:
    return McpServer.model_validate(row, from_attributes=True)


def _foreign_field(row: McpServerRow, changes: dict[str, Any]) -> InvalidField | None:
    own = _FIELDS_OF[McpTransport(row.transport)]
    foreign = sorted(changes.keys() - own - {"enabled"})
    if not foreign:
        return _second_authorization(row, changes)
    return InvalidField(f"body.{foreign[0]}", NOT_FOR_TRANSPORT.format(row.transport))


def _second_authorization(row: McpServerRow, changes: dict[str, Any]) -> InvalidField | None:
    oauth = changes.get("oauth", row.oauth)
    headers = changes.get("headers", row.secret_names)
    if oauth is None or not names_authorization(headers):
        return None
    return InvalidField(
        "body.oauth" if "oauth" in changes else "body.headers", SECOND_AUTHORIZATION
    )
