"""Owns turning rows of users into what they and administrators see."""

from uuid import UUID

from schema.ids import PlanId, UserId
from schema.tables import UserRow
from schema.users import ManagedUser, User, UserRole, UserStatus


def user_from_row(row: UserRow) -> User:
    """Return the user that the row holds, as they see themselves."""
    return User(
        id=UserId(row.id),
        email=row.email,
        display_name=row.display_name,
        role=UserRole(row.role),
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def managed_user_from_row(row: UserRow, *, plan_id: UUID) -> ManagedUser:
    """Return the user that the row holds, as administrators see them."""
    return ManagedUser(
        **dict(user_from_row(row)), status=UserStatus(row.status), plan_id=PlanId(plan_id)
    )
