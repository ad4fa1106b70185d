"""Schemas of earlier drafts as 2020-12 means them."""

from typing import Any

import pytest

from services.tools.input_schemas import problem_of_schema
from services.tools.schema_drafts import upgraded


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"minimum": 1, "exclusiveMinimum": True}, {"exclusiveMinimum": 1}),
        ({"maximum": 1, "exclusiveMaximum": False}, {"maximum": 1}),
        ({"exclusiveMaximum": True}, {}),
        (
            {"items": [{"type": "string"}, {}], "additionalItems": False},
            {"prefixItems": [{"type": "string"}, {}], "items": False},
        ),
        ({"items": []}, {}),
        ({"description": None, "properties": None, "required": None, "default": None}, None),
        ({"enum": [None, "x"], "const": None}, {"enum": [None, "x"], "const": None}),
        ({"anyOf": [{"items": [{"minimum": None}]}]}, {"anyOf": [{"prefixItems": [{}]}]}),
        ({"items": {"type": "string"}, "minimum": 1}, {"items": {"type": "string"}, "minimum": 1}),
    ],
)
def test_earlier_forms_are_upgraded_wherever_they_stand(
    part: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    schema = upgraded({"type": "object", "properties": {"a": part}, "required": None})

    wanted = {"default": None} if expected is None else expected
    assert schema == {"type": "object", "properties": {"a": wanted}}
    assert problem_of_schema(schema) is None


def test_a_property_with_the_name_of_a_keyword_is_none() -> None:
    properties = {"items": {"type": "array"}, "minimum": {"type": "number"}}

    assert upgraded({"properties": properties}) == {"properties": properties}


def test_a_schema_too_deep_for_the_stack_is_left_for_the_checks_to_refuse() -> None:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(50_000):
        schema = {"not": schema}

    assert problem_of_schema(upgraded(schema)) == "is nested more than 20 levels deep"
