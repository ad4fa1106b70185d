"""What the client sends: fields, files, addresses."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

import httpx2
import pytest

import everturn_client as everturn
from tests.fixtures.client_wire import CHAT, USER, Wire, noted_pauses, success


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The client's pauses in seconds: none is waited for."""
    return noted_pauses(monkeypatch)


def test_fields_that_are_left_out_are_not_sent_and_none_is_null() -> None:
    wire = Wire(success(USER), success(USER))
    client = wire.client()

    client.users.update(display_name=None)
    client.users.update(new_password="new", current_password="old")

    assert wire.body(0) == {"displayName": None}
    assert wire.body(1) == {"newPassword": "new", "currentPassword": "old"}


def test_money_and_times_are_sent_as_the_api_reads_them() -> None:
    assigned = {
        "version": 1,
        "userId": "u-1",
        "planId": "p-1",
        "startedAt": "2026-01-31T09:00:00Z",
        "updatedAt": "2026-01-31T09:00:00Z",
    }
    wire = Wire(success(assigned))

    wire.client().admin.users.assign_plan(
        "u-1", "p-1", started_at=datetime(2026, 1, 31, 9, tzinfo=UTC)
    )

    assert wire.requests[0].method == "PUT"
    assert wire.body() == {"planId": "p-1", "startedAt": "2026-01-31T09:00:00Z"}
    plan = {
        "version": 1,
        "id": "p-1",
        "name": "Team",
        "description": "",
        "isDefault": False,
        "active": True,
        "createdAt": assigned["startedAt"],
        "updatedAt": assigned["startedAt"],
        "entitlements": {"budgetUsd": "5", "maxMemories": 7},
    }
    wire = Wire(success(plan))
    changed = wire.client().admin.plans.update(
        "p-1", entitlements={"budgetUsd": Decimal("5.10")}, is_default=True
    )
    assert wire.body() == {"entitlements": {"budgetUsd": "5.10"}, "isDefault": True}
    assert changed.entitlements.budget_usd == Decimal(5)


def test_a_file_is_sent_as_a_form_and_an_export_is_returned_unchanged() -> None:
    document = {
        "version": 1,
        "id": "d-1",
        "title": "notes",
        "status": "draft",
        "own": True,
        "contentType": "text/plain",
        "latestVersion": 1,
        "publishedVersion": None,
        "ingestion": {
            "status": "pending",
            "problem": None,
            "passageCount": 0,
            "embeddedCount": 0,
        },
        "createdAt": CHAT["createdAt"],
        "updatedAt": CHAT["createdAt"],
    }
    wire = Wire(success(document, 201), httpx2.Response(200, content=b'{"user": 1}'))
    client = wire.client()

    client.knowledge.upload(b"Hello", filename="notes.txt", content_type="text/plain")
    exported = client.users.export()

    sent = wire.requests[0]
    assert sent.headers["Content-Type"].startswith("multipart/form-data")
    assert b'filename="notes.txt"' in sent.content
    assert b"Hello" in sent.content
    assert exported == b'{"user": 1}'


def test_a_response_may_take_as_long_as_the_timeout() -> None:
    wire = Wire(success(CHAT), success(CHAT))

    wire.client().chats.get("c-1")
    wire.client(timeout_s=3).chats.get("c-1")

    timeouts = [request.extensions["timeout"] for request in wire.requests]
    assert [(each["connect"], each["read"]) for each in timeouts] == [(10.0, 90.0), (3, 3)]


def test_a_request_without_a_dedicated_method_can_be_sent() -> None:
    wire = Wire(success([{"id": "m"}]))

    assert wire.client().request("GET", "/models", query={"limit": 1}) == [{"id": "m"}]
    assert wire.seen == ["GET /api/v1/models"]


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://h:9000/", "http://h:9000"),
        ("https://h/api/v1", "https://h"),
        (None, "http://127.0.0.1:8000"),
    ],
)
def test_the_base_is_the_origin(
    given: str | None, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVERTURN_URL", raising=False)
    with everturn.Everturn(given) as client:
        assert client.base_url == url


@pytest.mark.parametrize("given", ["h", "ftp://h", "http://", "http://h:x"])
def test_an_invalid_url_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="Invalid URL"):
        everturn.Everturn(given)


def test_both_clients_have_the_same_methods() -> None:
    def methods(group: object, depth: int = 0) -> set[str]:
        names = {name for name in dir(group) if not name.startswith("_")}
        if depth == 2:
            return names
        nested: set[str] = set()
        for name in names - {"request", "close", "base_url"}:
            nested |= {f"{name}.{inner}" for inner in methods(getattr(group, name), depth + 1)}
        return names | nested

    blocking, awaiting = Wire().client(), Wire().async_client()
    assert methods(blocking) == methods(awaiting)
    build: Callable[..., object] = blocking.chats.create
    assert str(build.__doc__).startswith("Create a chat;")
