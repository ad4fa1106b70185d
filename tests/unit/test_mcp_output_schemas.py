"""What a model reads about results, even hostile ones, that break an output schema."""

from typing import Any

import pytest
from mcp_types import CallToolResult, TextContent, Tool

from services.mcp.output_schemas import problem_of_output_schema, remark_on
from services.mcp.refresh import check_tools
from services.mcp.results import outcome_of

WARMTH: dict[str, Any] = {
    "type": "object",
    "properties": {
        "temperature": {"type": "number"},
        "days": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+day$"}},
    },
    "required": ["temperature"],
    "additionalProperties": False,
}
BROKEN = (
    "(The call succeeded, but its structured content does not match the output schema "
    "that the server declares: "
)
MISSING = (
    "(The call succeeded, but returned no structured content, although the server declares an "
    "output schema.)"
)


def twice_in_each() -> dict[str, Any]:
    """Return a schema that looks at each level of a value twice as often as at the one above."""
    inner = {"anyOf": [{"$ref": "#/$defs/part"}, {"allOf": [{"$ref": "#/$defs/part"}]}]}
    return {"$defs": {"part": {"properties": {"a": inner}}}, "$ref": "#/$defs/part"}


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def remark(schema: dict[str, Any], content: object) -> str | None:
    result = CallToolResult(content=[], structured_content=content)
    return remark_on(result, schema, tool="weather__now")


def test_a_result_that_follows_is_not_remarked_on() -> None:
    assert remark(WARMTH, {"temperature": 21.5, "days": ["monday"]}) is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"temperature": "warm"}, "`temperature`: expected number, got string.)"),
        ({"days": []}, "required but missing: `temperature`.)"),
        ({"temperature": 1, "days": ["monday", 2]}, "`days[1]`: expected string, got number.)"),
        (
            {"temperature": 1, "days": ["Monday"]},
            '`days[0]`: expected text that matches the pattern "^[a-z]+day$".)',
        ),
        ({"temperature": 1, "wind": 2}, "not allowed: `wind`; allowed: `temperature`, `days`.)"),
        ([], "expected object, got array.)"),
        (None, "expected object, got null.)"),
    ],
)
def test_a_result_that_breaks_its_schema_is_reported_with_the_path(
    content: object, expected: str
) -> None:
    said = remark(WARMTH, content)

    assert said == BROKEN + expected


def test_a_result_without_structured_content_is_reported() -> None:
    result = CallToolResult(content=[TextContent(text="It is warm.")])

    assert remark_on(result, WARMTH, tool="weather__now") == MISSING


def test_null_can_satisfy_an_output_schema() -> None:
    assert remark({"type": ["object", "null"]}, None) is None


def test_an_error_of_the_tool_promises_nothing() -> None:
    for content in ({}, {"structured_content": {"temperature": "warm"}}):
        result = CallToolResult(content=[], is_error=True, **content)

        assert remark_on(result, WARMTH, tool="weather__now") is None


def test_a_remark_comes_first_and_the_result_is_complete() -> None:
    result = CallToolResult(content=[], structured_content={"temperature": "warm"})

    outcome = outcome_of(result, remark=remark_on(result, WARMTH, tool="weather__now"))

    assert not outcome.is_error
    first, second = outcome.output.splitlines()
    assert first.startswith(BROKEN)
    assert second == '{"temperature":"warm"}'


def test_a_remark_is_bounded_and_can_be_stored() -> None:
    schema = {"type": "object", "additionalProperties": {"const": "y\n" * 10_000}}

    said = remark(schema, {"x\x00" * 10_000: 1})

    assert said is not None
    assert len(said) < 600
    assert "\x00" not in said


@pytest.mark.parametrize(
    ("schema", "content"),
    [
        (twice_in_each(), nested(200)),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, {}),
        ({"items": {"anyOf": [{"const": number} for number in range(3_000)]}}, ["a"] * 50_000),
        ({"items": {"enum": list(range(9_000))}}, ["a"] * 50_000),
        ({"patternProperties": {f"x{n}": {} for n in range(3_000)}}, {f"{n}": 1 for n in range(9)}),
        ({"allOf": [{"patternProperties": {"^(a+)+$": {}}}] * 500}, {"a" * 50_000: 1}),
        ({"allOf": [{"pattern": f"^(a+)+{number}$"} for number in range(500)]}, "a" * 100_000),
        ({"properties": {"a": {"$ref": "#"}}, "unevaluatedProperties": False}, nested(600)),
        ({"pattern": "(?:(?=a*b)a|a)*c"}, "a" * 50_000),
        ({"type": "string"}, ["x" * 300_000]),
        ({"type": "string"}, nested(50_000)),
        ({"type": "string"}, {"a": "\ud800"}),
    ],
)
def test_a_result_too_large_to_check_is_left_unchanged(
    schema: dict[str, Any], content: object
) -> None:
    assert remark(schema, content) is None


def test_a_pattern_that_looks_around_is_checked_by() -> None:
    schema = {"items": {"pattern": "^(?!x)"}}

    assert remark(schema, ["a", "b"]) is None
    assert remark(schema, ["a", "x"]) is not None


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|aa)+$", "(x+x+)+y"])
def test_a_pattern_that_makes_other_engines_hang_is_checked(pattern: str) -> None:
    assert remark({"pattern": pattern}, "a" * 50_000 + "b") is not None


def test_large_valid_inputs_are_checked() -> None:
    schema = {"type": "array", "items": WARMTH}
    days = [{"temperature": number, "days": ["monday"]} for number in range(5_000)]

    assert remark(schema, days) is None
    assert remark(schema, [*days, {"temperature": "warm"}]) is not None


def test_a_remote_output_schema_is_not_fetched() -> None:
    assert remark({"$ref": "http://127.0.0.1:9/schema"}, {}) is None


@pytest.mark.parametrize(
    "schema",
    [
        WARMTH,
        {},
        {"type": "array", "items": {"type": "string"}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"},
        {"properties": {"inner": {"$ref": "#"}}, "unevaluatedProperties": False},
    ],
)
def test_schemas_of_any_type_are_accepted(schema: dict[str, Any]) -> None:
    assert problem_of_output_schema(schema) is None


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "sting"}, "is not a valid JSON schema (2020-12): see `type`"),
        ({"$ref": "http://169.254.169.254/"}, "refers to something outside it"),
        ({"description": "x" * 70_000}, "is longer than 65,536 characters"),
        ({"pattern": "(?:a{1,100}){1,100}b"}, "has a part that results can't be validated against"),
    ],
)
def test_a_schema_that_nothing_can_be_checked_by_is_named(
    schema: dict[str, Any], expected: str
) -> None:
    assert problem_of_output_schema(schema) == expected


def test_a_tool_with_a_broken_output_schema_can_be_called_and_is_reported() -> None:
    given: dict[str, Any] = {"type": "object"}
    listing = check_tools(
        "weather",
        [
            Tool(name="now", input_schema=given, output_schema=WARMTH),
            Tool(name="then", input_schema=given, output_schema={"type": 7}),
            Tool(name="wrong", input_schema={"type": 7}, output_schema={"type": 7}),
        ],
    )

    assert {row.name: row.output_schema for row in listing.tools if row.problem is None} == {
        "now": WARMTH,
        "then": None,
    }
    assert listing.usable == 2
    assert listing.problem == (
        "Skipped tools: `wrong` (its input schema is not a valid JSON schema (2020-12): "
        "see `type`). Results not validated: `then` (its output schema is not a valid JSON schema "
        "(2020-12): see `type`)."
    )
    assert not listing.has_failed
