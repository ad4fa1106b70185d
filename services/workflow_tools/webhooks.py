"""Owns reading a workflow tool's address and key: to call it, and to believe its callbacks."""

from dataclasses import dataclass, field

from schema.actors import SERVICE
from schema.tables import WorkflowToolRow
from services.database import Database
from services.tools.secrets import SecretVault
from services.workflow_tools.rows import secret_owner
from services.workflow_tools.signatures import signing_key


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where a workflow tool is, and the key that both sides sign with."""

    name: str
    url: str
    key: bytes = field(repr=False)
    enabled: bool


async def find_webhook(database: Database, vault: SecretVault, name: str) -> Webhook | None:
    """Return the webhook behind a tool; None where the tool was deleted.

    Errors: UnreadableSecretError, DatabaseUnavailableError.
    """
    # Where it is and what signs for it is nothing that users see.
    async with database.transaction(SERVICE) as session:
        row = await session.get(WorkflowToolRow, name)
    if row is None:
        return None
    secret = vault.open(row.secret, owner=secret_owner(name)).decode()
    return Webhook(name, row.url, signing_key(secret), row.enabled)
