"""Which schemas a model is offered of tools, and how its inputs get the tools' own names."""

from collections.abc import Mapping
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from schema.contexts import OfferedTool
from schema.usage import TokenUsage
from services.models.gateway import AnswerEnded
from services.tools.input_schemas import problem_of_schema
from services.tools.offered_schema import OfferedSchema, offered_schema, tool_params
from services.tools.validation import InputValidation
from services.turns.answers import tool_requests
from tests.fakes.scripted_model.validation import find_refusal
from tests.unit.test_demo_model_validation import request

ROUTE_OR_FILE: dict[str, Any] = {
    "type": "object",
    "properties": {"route": {"type": "string"}, "file": {"type": "string"}},
    "anyOf": [{"required": ["route"]}, {"required": ["file"]}],
}
ODATA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "$top": {"type": "integer", "description": "How many."},
        "Größe in cm": {"type": "number"},
        "名前": {"type": "string"},
    },
    "required": ["$top"],
    "additionalProperties": False,
}
NESTED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "filters": {"type": "array", "items": {"$ref": "#/$defs/Filter"}},
        "free": {"type": "object", "additionalProperties": {"type": "integer"}},
    },
    "$defs": {
        "Filter": {
            "type": "object",
            "properties": {
                "@id": {"type": "string"},
                "not": {"anyOf": [{"$ref": "#/$defs/Filter"}, {"type": "null"}]},
            },
            "required": ["@id"],
            "dependentRequired": {"not": ["@id"]},
        }
    },
}
MODES: dict[str, Any] = {
    "oneOf": [
        {
            "type": "object",
            "properties": {"mode": {"const": "copy"}, "to": {"type": "string"}},
            "required": ["mode", "to"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"mode": {"const": "stop"}},
            "required": ["mode"],
            "additionalProperties": False,
        },
    ]
}


def refusal_of(offered: OfferedSchema) -> str | None:
    """Return what the Messages API says to a tool with this schema."""
    tool = {"name": "tool", "input_schema": offered.schema}
    refusal = find_refusal(request(tools=[tool]))
    return None if refusal is None else refusal.message


def takes(schema: Mapping[str, Any], value: object) -> bool:
    return Draft202012Validator(dict(schema)).is_valid(value)


def test_a_schema_that_providers_take_is_offered_as_it_is() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": ["string", "null"], "enum": ["x", None]},
            "b": {"oneOf": [{"$ref": "#/$defs/B"}, {"not": {"type": "string"}}]},
        },
        "required": ["a"],
        "additionalProperties": False,
        "$defs": {"B": {"type": "array", "prefixItems": [{"pattern": r"^\w+-\d{2}$"}]}},
    }

    assert offered_schema(schema).schema == schema


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (
            ROUTE_OR_FILE,
            {
                "type": "object",
                "properties": {"route": {"type": "string"}, "file": {"type": "string"}},
                "description": "At least one of these must hold: (1) `route` given; (2) `file` "
                "given.",
            },
        ),
        (
            ODATA,
            {
                "type": "object",
                "properties": {
                    "top": {
                        "type": "integer",
                        "description": "Named `$top` by the tool. How many.",
                    },
                    "Groesse_in_cm": {
                        "type": "number",
                        "description": "Named `Größe in cm` by the tool.",
                    },
                    "property_1": {
                        "type": "string",
                        "description": "Named `名前` by the tool.",
                    },
                },
                "required": ["top"],
                "additionalProperties": False,
            },
        ),
        (
            MODES,
            {
                "type": "object",
                "properties": {
                    "mode": {"anyOf": [{"const": "copy"}, {"const": "stop"}]},
                    "to": {"type": "string"},
                },
                "required": ["mode"],
                "additionalProperties": False,
                "description": 'Exactly one of these must hold: (1) `mode` is "copy" and `to` '
                'given; (2) `mode` is "stop".',
            },
        ),
        ({}, {"type": "object", "properties": {}}),
        ({"type": ["object", "null"]}, {"type": "object", "properties": {}}),
        ({"type": "object", "properties": {"a": True, "b": False}}, {"a": {}}),
        ({"allOf": [{"properties": {"a": {"type": "string"}}}]}, {"a": {"type": "string"}}),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"properties": {"a": {}}}}}, {"a": {}}),
        ({"if": {}, "then": {"properties": {"a": {}}}, "else": False}, {"a": {}}),
        ({"not": {"required": ["a"]}, "properties": {"b": {}}}, {"b": {}}),
        ({"enum": [{}], "properties": {"b": {}}}, {"b": {}}),
        ({"dependentSchemas": {"a": {"properties": {"b": {}}}}}, {"b": {}}),
        (
            {"properties": {"a": {"pattern": r"^\p{L}+$"}}},
            {"a": {"description": r"Pattern: ^\p{L}+$"}},
        ),
        (
            {"properties": {"a": {"patternProperties": {"^x": {}}, "additionalProperties": False}}},
            {"a": {}},
        ),
        (
            {"properties": {"x": {"type": "integer"}, "$y": {"$ref": "#/properties/x"}}},
            {
                "x": {"type": "integer"},
                "y": {"$ref": "#/$defs/part_1", "description": "Named `$y` by the tool."},
            },
        ),
        (
            {
                "properties": {
                    "a": {"$ref": "#/properties"},
                    "b": {"properties": {"$x": True}},
                }
            },
            {
                "a": {"$ref": "#/$defs/part_1"},
                "b": {"properties": {"x": {"description": "Named `$x` by the tool."}}},
            },
        ),
        (
            {"properties": {"top": {}, "$top": {}, "top_2": {}}},
            {"top": {}, "top_3": {"description": "Named `$top` by the tool."}, "top_2": {}},
        ),
    ],
)
def test_what_providers_refuse_is_offered_in_another_form(
    schema: dict[str, Any], expected: dict[str, Any]
) -> None:
    offered = offered_schema(schema)

    assert problem_of_schema(schema) is None
    assert refusal_of(offered) is None
    found = offered.schema if expected.get("type") == "object" else offered.schema["properties"]
    assert found == expected


@pytest.mark.parametrize(
    ("schema", "own"),
    [
        (ROUTE_OR_FILE, {"file": "a.py"}),
        (ODATA, {"$top": 5, "Größe in cm": 1.5, "名前": "x"}),
        (MODES, {"mode": "copy", "to": "a"}),
        (
            NESTED,
            {
                "filters": [{"@id": "a"}, {"@id": "b", "not": {"@id": "c", "not": None}}],
                "free": {"id": 1, "@id": 2, "@id.": 3},
            },
        ),
    ],
)
def test_names_go_forth_and_back(schema: dict[str, Any], own: dict[str, Any]) -> None:
    offered = offered_schema(schema)
    as_offered = offered.names.for_model(own)

    assert takes(schema, own)
    assert takes(offered.schema, as_offered)
    assert offered.names.for_tool(as_offered) == own


def test_free_keys_are_not_renamed() -> None:
    names = offered_schema(NESTED).names

    assert names.for_tool({"filters": [{"id": "a"}], "free": {"id": 1}}) == {
        "filters": [{"@id": "a"}],
        "free": {"id": 1},
    }


def test_what_is_wrong_with_an_input_is_said_in_the_models_names() -> None:
    names = offered_schema(ODATA).names.to_model
    validation = InputValidation()

    assert validation.problem(ODATA, {}, names=names) == "required but missing: `top`"
    assert validation.problem(ODATA, {"$top": "x"}, names=names) == (
        "`top`: expected integer, got string"
    )
    assert validation.problem(ODATA | {"oneOf": [True, True]}, {"$top": 1}) == (
        "matches several of the alternatives of `oneOf`, not one"
    )
    either: dict[str, Any] = {
        "anyOf": [{"required": ["$top"]}, {"properties": {"$top": {"const": 1}, "a": False}}]
    }
    assert validation.problem(either, {"a": 1}, names=names) == (
        "matches none of the alternatives of `anyOf`: (1) required but missing: `top`; (2) `a`: "
        "does not satisfy `a`"
    )
    assert validation.problem(ODATA, {}) == "required but missing: `$top`"


def test_calls_have_the_tools_names_and_the_answer_keeps_the_models() -> None:
    tool = OfferedTool(name="sites__list", description="", input_schema=ODATA)
    block = {"type": "tool_use", "id": "toolu_1", "name": "sites__list", "input": {"top": 5}}

    answer = AnswerEnded(blocks=[block], stop_reason="tool_use", usage=TokenUsage())

    (call,) = tool_requests(answer, [tool], at_most=1)

    assert call.input == {"$top": 5}
    assert block["input"] == {"top": 5}


def test_a_call_with_too_much_to_rename_is_not_made() -> None:
    kinds = [{"title": str(number), "properties": {"ö": {}}} for number in range(100)]
    schema = {"type": "object", "properties": {"list": {"items": {"anyOf": kinds}}}}
    tool = OfferedTool(name="large", description="", input_schema=schema)
    given = {"list": [{"o": 1}] * 1_000}
    block = {"type": "tool_use", "id": "toolu_1", "name": "large", "input": given}
    answer = AnswerEnded(blocks=[block], stop_reason="tool_use", usage=TokenUsage())

    (call,) = tool_requests(answer, [tool], at_most=1)

    assert call.problem == "The input of this call was too large, so the tool was not run."


def test_a_schema_that_grows_without_bound_is_not_offered() -> None:
    parts = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 3} for n in range(7)}
    schema: dict[str, Any] = {"$ref": "#/$defs/d0", "$defs": {**parts, "d7": {"title": "x"}}}

    problem = problem_of_schema(schema)

    assert problem == "has too many alternatives to be offered to a model"
    assert tool_params([OfferedTool(name="a", description="", input_schema=schema)]) == []


def test_an_empty_description_is_not_sent() -> None:
    (tool,) = tool_params([OfferedTool(name="a", description=" ", input_schema={})])

    assert tool == {"name": "a", "input_schema": {"type": "object", "properties": {}}}
