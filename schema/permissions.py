"""Permissions: what exists, and what each role has.

An API key has some of its owner's; each route requires one.
"""

from enum import StrEnum
from typing import Final

from schema.users import UserRole


class Permission(StrEnum):
    """What a caller may do."""

    ACCOUNT_READ = "account:read"
    ACCOUNT_WRITE = "account:write"
    CHATS_READ = "chats:read"
    CHATS_WRITE = "chats:write"
    MEMORIES_READ = "memories:read"
    MEMORIES_WRITE = "memories:write"
    KNOWLEDGE_READ = "knowledge:read"
    KNOWLEDGE_WRITE = "knowledge:write"
    TOOLS_READ = "tools:read"
    ADMIN_READ = "admin:read"
    ADMIN_WRITE = "admin:write"


ADMINISTRATION: Final = frozenset({Permission.ADMIN_READ, Permission.ADMIN_WRITE})
"""Permissions over other users' resources; all others concern the caller's own."""

_OF_ROLES: Final = {
    UserRole.USER: frozenset(Permission) - ADMINISTRATION,
    UserRole.ADMIN: frozenset(Permission),
}


BY_DEFAULT_OF_KEYS: Final = frozenset(Permission) - ADMINISTRATION - {Permission.ACCOUNT_WRITE}
"""The default permissions of an API key: it can't change or delete the account."""


def permissions_of(
    role: UserRole | None, *, key: frozenset[Permission] | None = None
) -> frozenset[Permission]:
    """Return the permissions of a role, limited to those of the API key if one is used.

    A caller without a role is anonymous and has none. A key created by an administrator loses the
    administrator's permissions together with its owner.
    """
    if role is None:
        return frozenset()
    allowed = _OF_ROLES[role]
    return allowed if key is None else allowed & key
