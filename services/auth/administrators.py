"""Owns the first administrator, who is named by the settings, and that there is always one."""

from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from schema.actors import SERVICE
from schema.ids import new_id
from schema.tables import CredentialRow, UserRow
from schema.users import UserRole, UserStatus
from services.auth.passwords import Passwords
from services.database import Database


async def ensure_administrator(
    database: Database, passwords: Passwords, *, email: str, password: str
) -> None:
    """Make the account an administrator's, and make the account if it is not there.

    The password of an account that is there stays as it is.
    Idempotency: a second call changes nothing.
    Errors: DatabaseUnavailableError.
    """
    password_hash = await passwords.hash(password)
    admin = insert(UserRow).values(
        id=new_id(), email=email.lower(), role=UserRole.ADMIN.value, status="active"
    )
    upsert = admin.on_conflict_do_update(
        index_elements=["email"], set_={"role": UserRole.ADMIN.value}
    )
    async with database.transaction(SERVICE) as session:
        user_id = (await session.exec(upsert.returning(col(UserRow.id)))).scalar_one()
        credential = insert(CredentialRow).values(user_id=user_id, password_hash=password_hash)
        await session.exec(credential.on_conflict_do_nothing())


async def lock_administrators(session: AsyncSession) -> frozenset[UUID]:
    """Return the administrators that there are, who stay that until the transaction ends.

    Everybody takes them in the same order and before any other user, so nobody waits in a circle.
    Of two who take the role from each other one finds it gone.
    """
    query = (
        select(UserRow.id)
        .where(col(UserRow.role) == UserRole.ADMIN, col(UserRow.status) == UserStatus.ACTIVE)
        .order_by(col(UserRow.id))
        .with_for_update(key_share=True)
    )
    return frozenset((await session.exec(query)).all())
