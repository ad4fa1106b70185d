"""What people send about themselves: taken as it is, or refused with the field's name."""

from typing import Any

import pytest
from pydantic import ValidationError

from api.validation_messages import validation_message
from schema.api_keys import CreateApiKeyRequest
from schema.permissions import Permission
from schema.preferences import PreferencesRequest
from schema.users import (
    ChangeUserRequest,
    ManageUserRequest,
    SignUpRequest,
    UserRole,
    email_as_signed_in,
)

PASSWORD = "long enough"


def test_an_email_is_stored_in_lower_case() -> None:
    assert SignUpRequest(email="Ada@Example.COM", password=PASSWORD).email == "ada@example.com"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("\uff41dmin@example.com", "admin@example.com"),
        ("\uff21dmin\uff20example\uff0ecom", "admin@example.com"),
        ("Ada@M\u00dcNCHEN.example", "ada@xn--mnchen-3ya.example"),
        ("ada@mu\u0308nchen.example", "ada@xn--mnchen-3ya.example"),
        ("a@ex\u0430mple.com", "a@xn--exmple-4nf.com"),
        ("ada+notes@example.com", "ada+notes@example.com"),
    ],
    ids=ascii,
)
def test_spellings_of_one_email_are_stored_as_one(written: str, kept: str) -> None:
    assert SignUpRequest(email=written, password=PASSWORD).email == kept
    assert email_as_signed_in(written) == kept


@pytest.mark.parametrize(
    "written",
    [
        "adm\u0131n@example.com",
        "\u0430dmin@example.com",
        "ad\u200bmin@example.com",
        "ad\u00admin@example.com",
        "a\u0301da@example.com",
        "\u0130" * 40 + "@example.com",
        "\ufdfa" * 10 + "@example.com",
        "admin@exam\u202eple.com",
    ],
    ids=ascii,
)
def test_an_email_that_only_looks_like_another_is_rejected(written: str) -> None:
    with pytest.raises(ValidationError) as refused:
        SignUpRequest(email=written, password=PASSWORD)

    (problem,) = refused.value.errors()
    assert validation_message(problem) == "Must be a valid email address."


def test_an_email_fits_its_column_in_the_form_that_is_stored() -> None:
    domain = ".".join(["\u00fc" * 30] * 4) + ".example"

    with pytest.raises(ValidationError):
        SignUpRequest(email=f"ada@{domain}", password=PASSWORD)


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
