"""Which JSON schemas of others' tools are accepted."""

from typing import Any

import pytest

from services.tools.input_schemas import problem_of_schema


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "not": schema}
    return schema


def doubling(levels: int) -> dict[str, Any]:
    """Return a schema whose parts refer to the next one twice."""
    parts = {
        f"part{level}": {"allOf": [{"$ref": f"#/$defs/part{level + 1}"}] * 2}
        for level in range(levels)
    }
    last = {f"part{levels}": {"type": "object"}}
    return {"type": "object", "$defs": parts | last, "$ref": "#/$defs/part0"}


def with_property(schema: object, **more: object) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}, **more}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {},
        {"type": ["object", "null"]},
        with_property({"type": "string", "pattern": "^[^\\u0000]+$"}),
        with_property({"$ref": "#/$defs/b"}, **{"$defs": {"b": {"type": "integer"}}}),
        with_property({"$ref": "#/definitions/b"}, definitions={"b": {"type": "integer"}}),
        {"$id": "https://example.com/tool", **with_property({"$ref": "#/properties/a/not"})}
        | {"properties": {"a": {"not": {"type": "null"}}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"},
        {"type": "object", "properties": {"$ref": {"type": "string"}, "$id": {"type": "string"}}},
        with_property({"anyOf": [{"$ref": "#"}, {"type": "null"}]}),
        with_property({"type": "string", "pattern": r"^\p{L}+$"}),
        with_property({"$ref": "#/properties/b~1c/anyOf/1"})
        | {"properties": {"b/c": {"anyOf": [{"type": "null"}, {"type": "string"}]}}},
    ],
)
def test_schemas_of_objects_are_accepted(schema: dict[str, Any]) -> None:
    assert problem_of_schema(schema) is None


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, "must have the type `object`"),
        ({"type": ["string", "null"]}, "must have the type `object`"),
        (with_property({"type": "sting"}), "is not a valid JSON schema (2020-12): see"),
        (with_property(7), "is not a valid JSON schema (2020-12): see `properties/a`"),
        (with_property({"pattern": "("}), "is not a valid JSON schema (2020-12): see"),
        (with_property({"$ref": "http://169.254.169.254/"}), "refers to something outside it"),
        (with_property({"$ref": "file:///etc/passwd"}), "refers to something outside it"),
        (with_property({"$ref": "#anchor"}), "refers to something outside it"),
        (with_property({"$dynamicRef": "other"}), "refers to something outside it"),
        (with_property({"$ref": "#/$defs/none"}), "refers to a part that does not exist"),
        *(
            (with_property({"$ref": f"#/anyOf/{index}"}, anyOf=[{}]), "refers to a part that does")
            for index in ("1", "-1", "first", "9" * 5_000)
        ),
        (with_property({"$id": "http://example.com"}), "must not contain any of"),
        ({"type": "object", "allOf": [{"$ref": "#"}]}, "refers to itself endlessly"),
        (doubling(100), "refers to itself endlessly, or too often"),
        (nested(30), "is nested more than 20 levels deep"),
        (with_property({"description": "x" * 70_000}), "is longer than 65,536 characters"),
        (with_property({"description": "\x00"}), "contains a NUL character"),
        (with_property({"type": "string"}, **{"x\x00": 1}), "contains a NUL character"),
        (with_property({"description": "\ud800"}), "contains invalid Unicode"),
        (with_property({"minimum": float("nan")}), "contains invalid Unicode"),
        (with_property({"minimum": float("inf")}), "contains invalid Unicode"),
    ],
)
def test_invalid_input_schemas_are_rejected(schema: dict[str, Any], expected: str) -> None:
    problem = problem_of_schema(schema)

    assert problem is not None
    assert problem.startswith(expected)


def test_a_schema_too_deep_for_the_stack_is_refused_all_the_same() -> None:
    assert problem_of_schema(nested(50_000)) == "is nested more than 20 levels deep"


def test_a_schema_whose_words_are_not_unicode_is_named_in_words_that_are() -> None:
    problem = problem_of_schema({"type": "object", "properties": {"ok": {"type": "\ud800"}}})

    assert problem is not None
    problem.encode()
