"""Permissions: those of a role, less what an API key leaves out."""

import pytest

from schema.permissions import (
    ADMINISTRATION,
    BY_DEFAULT_OF_KEYS,
    Permission,
    permissions_of,
)
from schema.users import UserRole

EVERYTHING = frozenset(Permission)


def test_an_anonymous_actor_may_do_nothing() -> None:
    assert permissions_of(None) == frozenset()
    assert permissions_of(None, key=EVERYTHING) == frozenset()


def test_a_user_may_do_all_but_administration() -> None:
    assert permissions_of(UserRole.USER) == EVERYTHING - ADMINISTRATION


def test_an_administrator_may_do_everything() -> None:
    assert permissions_of(UserRole.ADMIN) == EVERYTHING


@pytest.mark.parametrize("role", UserRole)
@pytest.mark.parametrize("permission", Permission)
def test_a_key_allows_only_what_both_its_scopes_and_the_role_allow(
    role: UserRole, permission: Permission
) -> None:
    key = frozenset({permission})

    assert permissions_of(role, key=key) == permissions_of(role) & key


def test_a_key_without_permissions_allows_nothing() -> None:
    assert permissions_of(UserRole.ADMIN, key=frozenset()) == frozenset()


def test_a_key_that_says_nothing_leaves_administration_and_the_account_alone() -> None:
    assert frozenset({Permission.ACCOUNT_WRITE}) | ADMINISTRATION == EVERYTHING - BY_DEFAULT_OF_KEYS
