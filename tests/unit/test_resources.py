"""The fingerprint that distinguishes a retry from another request with the same key."""

from decimal import Decimal
from hashlib import sha256

import pytest
from pydantic import BaseModel

from schema.api_keys import CreateApiKeyRequest
from services.resources import Fingerprint


class Limits(BaseModel):
    budget_usd: Decimal | None = None
    daily_budget_usd: Decimal | None = None


class Wish(BaseModel):
    what: str
    stream: bool = False
    limits: Limits = Limits()
    budget: Limits | None = None


CAT = Wish(what="A cät", stream=True)


@pytest.mark.parametrize(
    ("asked", "without", "hashed"),
    [
        ("Wish", None, rb'{"stream": true, "what": "A c\u00e4t"}'),
        ("regenerate 1", "stream", rb'{"what": "A c\u00e4t"}'),
        (1, "stream", rb'{"what": "A c\u00e4t"}'),
    ],
)
def test_hashes_that_are_stored_stay_those_of_their_requests(
    asked: object, without: str | None, hashed: bytes
) -> None:
    fingerprint = Fingerprint(asked, CAT, without)

    assert fingerprint.hash == sha256(f"{asked}\n".encode() + hashed).digest()
    assert fingerprint.matches(fingerprint.hash)


@pytest.mark.parametrize(
    "hashed",
    [
        (
            '{"what":"A cät","stream":true,"limits":{"budget_usd":null,"daily_budget_usd":null},'
            '"budget":null}'
        ),
        # Before there were budgets of days and keys.
        '{"what":"A cät","stream":true,"limits":{"budget_usd":null}}',
    ],
)
def test_hashes_of_earlier_releases_still_match(hashed: str) -> None:
    stored = sha256(f"Wish\n{hashed}".encode()).digest()

    assert Fingerprint("Wish", CAT).matches(stored)
    assert not Fingerprint("Wish", CAT.model_copy(update={"what": "A dog"})).matches(stored)
    limited = CAT.model_copy(update={"limits": Limits(daily_budget_usd=Decimal(1))})
    assert not Fingerprint("Wish", limited).matches(stored)


def test_a_field_that_a_release_adds_keeps_the_fingerprint_of_requests_without_it() -> None:
    class CreateApiKeyRequestOfTomorrow(CreateApiKeyRequest):
        color: str | None = None
        scopes: tuple[str, ...] = ()

    stored = Fingerprint("CreateApiKeyRequest", CreateApiKeyRequest(name="Import")).hash

    of_tomorrow = CreateApiKeyRequestOfTomorrow(name="Import")
    red = CreateApiKeyRequestOfTomorrow(name="Import", color="red")
    assert Fingerprint("CreateApiKeyRequest", of_tomorrow).matches(stored)
    assert not Fingerprint("CreateApiKeyRequest", red).matches(stored)


def test_a_field_that_is_sent_at_its_default_is_the_same_request() -> None:
    asked = CreateApiKeyRequest.model_validate({"name": "Import", "budget": None})

    stored = Fingerprint("CreateApiKeyRequest", CreateApiKeyRequest(name="Import")).hash

    assert Fingerprint("CreateApiKeyRequest", asked).matches(stored)
