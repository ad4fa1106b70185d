"""The OpenAPI document, from which clients are generated: its names and its events."""

import re
from typing import Any

import pytest

from schema.events import EventName
from tests.fixtures.stack import Stack

OPERATION_ID = re.compile(r"[a-z]+[a-zA-Z]*(\.[a-z]+[a-zA-Z]*)+")
SCHEMA_NAME = re.compile(r"[A-Z][a-zA-Z]+")
CLUMSY = re.compile(
    r"\b(anew|told|tells|whoever|nobody|somebody|there is no such|has to have|is away)\b",
    re.IGNORECASE,
)


@pytest.fixture
def document(stack: Stack) -> dict[str, Any]:
    """The document of the running API."""
    return stack.app.openapi()


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in document["paths"].values() for operation in path.values()]


def texts(part: object) -> list[str]:
    """Return all summaries, descriptions and titles."""
    found: list[str] = []
    if isinstance(part, dict):
        for key, value in part.items():
            if key in {"summary", "description", "title"} and isinstance(value, str):
                found.append(value)
            found += texts(value)
    elif isinstance(part, list):
        for item in part:
            found += texts(item)
    return found


def test_operation_ids_are_unique_and_name_a_resource_and_a_verb(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for operation in operations(document)]

    assert [name for name in ids if not OPERATION_ID.fullmatch(name)] == []
    assert len(ids) == len(set(ids))
    assert {"messages.create", "turns.events", "chats.list", "apiKeys.create"} <= set(ids)


def test_schemas_have_plain_names_which_are_their_titles(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    assert [name for name in schemas if not SCHEMA_NAME.fullmatch(name)] == []
    assert [name for name in schemas if "Envelope" in name] == []
    assert {name: schema["title"] for name, schema in schemas.items()} == {
        name: name for name in schemas
    }
    assert {"ChatResponse", "ChatListResponse", "Entitlements", "ErrorResponse"} <= set(schemas)


def test_every_reference_resolves(document: dict[str, Any]) -> None:
    references = set(re.findall(r"'\$ref': '#/components/schemas/([^']+)'", str(document)))

    assert references <= set(document["components"]["schemas"])


_OF_USERS = {EventName.CHAT, EventName.MEMORY, EventName.RESYNC}


@pytest.mark.parametrize(
    ("stream", "names"),
    [
        ("TurnEventStream", set(EventName) - _OF_USERS),
        ("UserEventStream", _OF_USERS | {EventName.TURN}),
    ],
)
def test_events_are_a_union_discriminated_by_name(
    document: dict[str, Any], stream: str, names: set[EventName]
) -> None:
    schemas = document["components"]["schemas"]
    union = schemas[stream]

    assert union["discriminator"]["propertyName"] == "event"
    assert set(union["discriminator"]["mapping"]) == names
    for name, reference in union["discriminator"]["mapping"].items():
        streamed = schemas[reference.rpartition("/")[2]]
        data = streamed["properties"]["data"]["contentSchema"]["$ref"].rpartition("/")[2]
        assert streamed["properties"]["event"]["const"] == name
        assert schemas[data]["type"] == "object"


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/api/v1/turns/{turn_id}/events", "get"),
        ("/api/v1/chats/{chat_id}/messages", "post"),
        ("/api/v1/turns/{turn_id}/regenerate", "post"),
    ],
)
def test_streams_refer_to_the_events(document: dict[str, Any], path: str, method: str) -> None:
    content = document["paths"][path][method]["responses"]["200"]["content"]

    assert content["text/event-stream"]["itemSchema"] == {
        "$ref": "#/components/schemas/TurnEventStream"
    }


def test_texts_are_plain_english(document: dict[str, Any]) -> None:
    assert [text for text in texts(document) if CLUMSY.search(text)] == []
    assert [text for text in texts(document) if re.search(r"\bOwns\b|\banybody\b", text)] == []
