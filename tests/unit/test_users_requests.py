"""What people send about themselves: taken as it is, or refused with the field's name."""

from typing import Any

import pytest
from pydantic import ValidationError

from schema.api_keys import CreateApiKeyRequest
from schema.permissions import Permission
from schema.preferences import PreferencesRequest
from schema.users import ChangeUserRequest, ManageUserRequest, SignUpRequest, UserRole

PASSWORD = "long enough"


def test_an_email_is_stored_in_lower_case() -> None:
    assert SignUpRequest(email="Ada@Example.COM", password=PASSWORD).email == "ada@example.com"


def test_an_email_that_grows_in_lower_case_fits_its_column() -> None:
    local = "İ" * 40
    for length in (120, 170, 200):
        domain = ".".join(["d" * 50] * 3) + ".example"
        try:
            request = SignUpRequest(
                email=f"{local}@{domain[-length:].strip('.')}", password="12345678"
            )
        except ValidationError:
            continue
        assert len(request.email) <= 254


def test_an_update_distinguishes_omitted_fields_from_null() -> None:
    assert ChangeUserRequest.model_validate({"displayName": None}).changes() == {
        "display_name": None
    }


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"displayName": ""},
        {"displayName": "x" * 101},
        {"displayName": "a\x00b"},
        {"displayName": "\ud800"},
        {"email": None},
        {"email": "nobody"},
        {"newPassword": "short", "currentPassword": "x"},
        {"newPassword": None},
        {"role": "admin"},
        {"status": "active"},
        {"id": "x"},
    ],
    ids=ascii,
)
def test_an_invalid_account_update_is_rejected(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ChangeUserRequest.model_validate(body)


@pytest.mark.parametrize(
    "body", [{}, {"role": "owner"}, {"role": None}, {"status": "gone"}, {"email": "a@example.com"}]
)
def test_an_invalid_update_by_an_administrator_is_rejected(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ManageUserRequest.model_validate(body)


def test_an_administrator_sets_a_role_by_name() -> None:
    assert ManageUserRequest.model_validate({"role": "admin"}).changes() == {"role": UserRole.ADMIN}


@pytest.mark.parametrize("zone", ["Europe/Berlin", "UTC", "America/Argentina/Ushuaia", "Etc/GMT+1"])
def test_a_time_zone_is_taken_by_its_iana_name(zone: str) -> None:
    assert PreferencesRequest.model_validate({"timeZone": zone}).time_zone == zone


@pytest.mark.parametrize("tag", ["en", "pt-BR", "zh-Hant-TW", "sl-rozaj-biske", "de-CH-1996"])
def test_a_language_is_taken_by_its_tag(tag: str) -> None:
    assert PreferencesRequest.model_validate({"language": tag}).language == tag


@pytest.mark.parametrize(
    "body",
    [
        {"timeZone": "Mars/Olympus"},
        {"timeZone": "America"},
        {"timeZone": "../etc/passwd"},
        {"timeZone": "/etc/localtime"},
        {"timeZone": "posix/Europe/Berlin"},
        {"timeZone": ""},
        {"timeZone": "Europe/Berlin\x00"},
        {"timeZone": "x" * 65},
        {"language": "e"},
        {"language": "pt_BR"},
        {"language": "en-"},
        {"language": "en\n"},
        {"language": "deutsch-" + "x" * 40},
        {"instructions": ""},
        {"instructions": "x" * 4001},
        {"instructions": "\udfff"},
        {"useMemories": "yes"},
        {"useMemories": None},
        {"disabledTools": ["a b"]},
        {"disabledTools": ["x"] * 201},
        {"disabledTools": "calculator"},
        {"version": 3},
    ],
    ids=ascii,
)
def test_preferences_that_make_no_sense_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PreferencesRequest.model_validate(body)


def test_a_tool_named_twice_is_disabled_once() -> None:
    request = PreferencesRequest.model_validate({"disabledTools": ["b", "a", "b"]})

    assert request.disabled_tools == ["b", "a"]


def test_permissions_of_a_key_are_listed_by_name() -> None:
    request = CreateApiKeyRequest.model_validate({"name": "k", "permissions": ["chats:read"]})

    assert request.permissions == [Permission.CHATS_READ]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "x" * 101},
        {"name": "k", "permissions": []},
        {"name": "k", "permissions": ["everything"]},
        {"name": "k", "permissions": "chats:read"},
        {"name": "k", "expiresAt": 1_900_000_000},
        {"name": "k", "expiresAt": "2030-01-01T00:00:00"},
        {"name": "k", "expiresAt": "soon"},
        {"name": "k", "key": "mine"},
    ],
    ids=ascii,
)
def test_an_invalid_key_is_rejected(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CreateApiKeyRequest.model_validate(body)
