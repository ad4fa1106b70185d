"""Owns turning rows of users, preferences and API keys into what they and administrators see."""

from uuid import UUID

from schema.api_keys import ApiKey
from schema.ids import ApiKeyId, PlanId
from schema.permissions import Permission
from schema.preferences import Preferences
from schema.tables import ApiKeyRow, PreferencesRow, UserRow
from schema.tools import approval_policies
from schema.users import ManagedUser, User, UserStatus


def managed_user_from_row(row: UserRow, *, plan_id: UUID) -> ManagedUser:
    """Return the user that the row holds, as administrators see them."""
    return ManagedUser(
        **vars(User.model_validate(row, from_attributes=True)),
        status=UserStatus(row.status),
        plan_id=PlanId(plan_id),
    )


def preferences_from_row(row: PreferencesRow) -> Preferences:
    """Return the preferences that the row holds."""
    return Preferences(
        language=row.language,
        time_zone=row.time_zone,
        instructions=row.instructions,
        default_model=row.default_model,
        use_memories=row.use_memories,
        use_knowledge=row.use_knowledge,
        auto_accept_memories=row.auto_accept_memories,
        disabled_tools=tuple(row.disabled_tools),
        tool_approvals=approval_policies(row.tool_approvals),
        version=row.version,
    )


def api_key_from_row(row: ApiKeyRow) -> ApiKey:
    """Return the API key that the row holds, as its owner sees it."""
    return ApiKey(
        id=ApiKeyId(row.id),
        name=row.name,
        start=row.start,
        permissions=_known(row.permissions),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
    )


def _known(names: list[str]) -> tuple[Permission, ...]:
    """Return the permissions of these names; one that there was once is none any more."""
    return tuple(permission for permission in Permission if permission.value in names)
