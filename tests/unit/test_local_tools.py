import asyncio
from collections.abc import Mapping
from datetime import timedelta

import jsonschema_rs
import pytest
from pydantic import JsonValue, ValidationError

from schema.tools import RetryClass, ToolDefinition
from services.tools.definition import ToolExecution, ToolOutcome, bounded
from services.tools.local_tools import LocalTools
from services.tools.validation import InputValidation
from tests.fixtures.local_tools import default_tools
from tests.fixtures.tool_executions import an_execution

ECHO_SCHEMA: dict[str, JsonValue] = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "maxLength": 100_000, "pattern": "^[^!]*$"},
        "times": {"type": "integer", "minimum": 1, "maximum": 9},
        "case": {"enum": ["upper", "lower"]},
        "list": {"type": "array", "items": {"type": ["string", "null"]}, "maxItems": 3},
        "ratio": {"type": "number", "multipleOf": 0.5},
    },
    "required": ["text"],
    "additionalProperties": False,
}


class Echo:
    """A tool that repeats a text."""

    def __init__(self, *, name: str = "echo", schema: dict[str, JsonValue] = ECHO_SCHEMA) -> None:
        self.inputs: list[Mapping[str, JsonValue]] = []
        self.definition = ToolDefinition(
            name=name,
            description="Repeats a text.",
            input_schema=schema,
            timeout=timedelta(seconds=1),
            retry_class=RetryClass.IDEMPOTENT,
        )

    async def run(
        self, tool_input: Mapping[str, JsonValue], _execution: ToolExecution, /
    ) -> ToolOutcome:
        self.inputs.append(tool_input)
        await asyncio.sleep(0)
        return ToolOutcome(output=str(tool_input["text"]))


class Broken(Echo):
    """A tool with a bug."""

    async def run(
        self, tool_input: Mapping[str, JsonValue], _execution: ToolExecution, /
    ) -> ToolOutcome:
        raise RuntimeError(tool_input)


@pytest.mark.parametrize(
    ("tool_input", "expected"),
    [
        ({}, "required but missing: `text`"),
        ({"text": 5}, "`text`: expected string, got number"),
        ({"text": None}, "`text`: expected string, got null"),
        ({"text": True}, "`text`: expected string, got boolean"),
        ({"text": {}}, "`text`: expected string, got object"),
        ({"text": "a!"}, '`text`: expected text that matches the pattern "^[^!]*$"'),
        ({"text": "", "times": 0}, "`times`: expected at least 1"),
        ({"text": "", "times": 10}, "`times`: expected at most 9"),
        ({"text": "", "times": "1"}, "`times`: expected integer, got string"),
        ({"text": "", "case": "title"}, '`case`: expected one of ["upper", "lower"]'),
        ({"text": "", "list": ["", 5]}, "`list[1]`: expected null or string, got number"),
        ({"text": "", "list": "a"}, "`list`: expected array, got string"),
        ({"text": "", "list": [None] * 4}, "`list`: expected at most 3 items"),
        ({"text": "", "ratio": 0.3}, "`ratio`: does not satisfy `multipleOf` 0.5"),
        ({"text": "", "extra": 1}, "not allowed: `extra`; allowed: `text`, `times`"),
    ],
)
def test_an_invalid_input_is_reported_with_its_path_and_the_expected_type(
    tool_input: dict[str, JsonValue], expected: str
) -> None:
    problem = InputValidation().problem(ECHO_SCHEMA, tool_input)

    assert problem is not None
    assert problem.startswith(expected)


@pytest.mark.parametrize(
    "tool_input",
    [
        {"text": "!" * 50_000},
        {"text": ["x" * 50_000]},
        {"text": "", "list": list(range(10_000))},
        {"text": "", "x" * 50_000: 1},
        {"text": "", **{f"key{number}": number for number in range(5_000)}},
    ],
)
def test_a_huge_invalid_input_is_not_repeated(tool_input: dict[str, JsonValue]) -> None:
    problem = InputValidation().problem(ECHO_SCHEMA, tool_input)

    assert problem is not None
    assert len(problem) < 1000


def test_half_a_surrogate_pair_is_an_invalid_input() -> None:
    problem = InputValidation().problem(ECHO_SCHEMA, {"text": "\ud800"})

    assert problem == "it contains invalid Unicode"


def test_an_input_of_a_megabyte_is_too_long() -> None:
    problem = InputValidation().problem({"type": "object"}, {"text": "x" * 1_000_000})

    assert problem == "it is longer than 262,144 characters"


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("^(a+)+$", "a" * 50_000 + "b"),
        ("^(?=.*b)(a+)+$", "a" * 5_000 + "b"),
        ("^(a|aa)+\\1$", "a" * 300 + "b"),
    ],
)
def test_a_pattern_that_would_backtrack_forever_is_aborted(pattern: str, text: str) -> None:
    schema: dict[str, JsonValue] = {
        "properties": {"text": {"pattern": pattern}},
        "patternProperties": {pattern: {"type": "number"}},
        "additionalProperties": {"type": "string"},
    }

    problem = InputValidation().problem(schema, {"text": text})

    assert problem is not None
    assert problem.startswith(
        ("`text`: expected text that matches the pattern", "`text`: does not satisfy")
    )


@pytest.mark.parametrize(
    ("schema", "tool_input"),
    [
        ({"properties": {"text": {"pattern": "(?:(?=a*b)a|a)*c"}}}, {"text": "a" * 50_000}),
        ({"properties": {"text": {"pattern": "^(?!.*b.*c)a+$"}}}, {"text": "a" * 50_000}),
        ({"additionalProperties": {"anyOf": [{"$ref": "#"}] * 30}}, {"a": {"a": {"a": {"a": {}}}}}),
    ],
)
def test_an_input_that_takes_too_long_to_validate_is_refused_at_once(
    schema: dict[str, JsonValue], tool_input: dict[str, JsonValue]
) -> None:
    problem = InputValidation().problem(schema, tool_input)

    assert problem == "it is too large or nested too deeply"


def test_a_pattern_with_a_lookaround_is_applied() -> None:
    schema: dict[str, JsonValue] = {"properties": {"text": {"pattern": r"^(?!\.)(?!.*\.\.)\S+$"}}}
    long = {"text": "a@example.com", "body": "x" * 200_000}

    assert InputValidation().problem(schema, long) is None
    assert InputValidation().problem(schema, {"text": "a..b"}) is not None


@pytest.mark.parametrize("pattern", ["(?:a{1,100}){1,100}b", "(?=(?:a{1,100}){1,100}b)a"])
def test_a_pattern_that_compiles_too_large_is_an_invalid_schema(pattern: str) -> None:
    with pytest.raises(jsonschema_rs.ValidationError):
        InputValidation().problem({"properties": {"text": {"pattern": pattern}}}, {"text": "a"})


def test_a_remote_schema_is_not_fetched() -> None:
    with pytest.raises(jsonschema_rs.ValidationError):
        InputValidation().problem({"$ref": "http://127.0.0.1:9/schema"}, {})


def test_a_long_output_is_cut_with_a_marker_inside_the_limit() -> None:
    outcome = bounded(ToolOutcome(output="x" * 5000), max_chars=1000)

    assert 990 <= len(outcome.output) <= 1000
    assert outcome.output.endswith("\n[Cut here: the first 941 of 5,000 characters are shown.]")


def test_an_output_at_the_limit_is_not_cut() -> None:
    assert bounded(ToolOutcome(output="x" * 1000), max_chars=1000).output == "x" * 1000


def test_unstorable_characters_are_replaced_in_text_and_blocks() -> None:
    blocks = ({"type": "text", "text": "a\x00b" * 1000}, {"type": "image", "source": {}})

    outcome = bounded(ToolOutcome(output="a\x00b\ud800", blocks=blocks), max_chars=100)

    assert "\x00" not in outcome.output
    outcome.output.encode()
    assert len(outcome.blocks[0]["text"]) <= 100
    assert outcome.blocks[1] == blocks[1]


async def test_a_bug_in_a_tool_is_raised() -> None:
    with pytest.raises(RuntimeError):
        await LocalTools([Broken()]).run(Broken().definition, {"text": ""}, an_execution())


def test_a_duplicate_tool_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="duplicate tool name 'echo'"):
        LocalTools([Echo(), Echo()])


def test_a_tool_with_an_invalid_schema_is_an_error() -> None:
    with pytest.raises(jsonschema_rs.ValidationError):
        LocalTools([Echo(schema={"type": "text"})])


def test_a_name_that_the_model_cannot_call_is_an_error() -> None:
    with pytest.raises(ValidationError):
        Echo(name="has space")


def test_the_tools_of_this_process_are_instant_and_idempotent() -> None:
    definitions = default_tools().definitions()
    assert [definition.name for definition in definitions] == ["calculator", "datetime"]
    assert all(definition.instant for definition in definitions)
    assert {definition.retry_class for definition in definitions} == {RetryClass.IDEMPOTENT}


def test_input_schemas_are_closed_objects_without_alternatives() -> None:
    for definition in default_tools().definitions():
        assert definition.input_schema["additionalProperties"] is False
        assert definition.input_schema["type"] == "object"
        assert not {"oneOf", "anyOf", "title", "description"} & definition.input_schema.keys()


def test_a_tool_is_found_only_by_its_exact_name() -> None:
    registry = default_tools()
    calculator = registry.get("calculator")
    assert calculator is not None
    assert calculator.definition.name == "calculator"
    assert registry.get("Calculator") is None


@pytest.mark.parametrize(
    ("name", "tool_input"),
    [("calculator", {"expression": "2 + 2"}), ("datetime", {"timezone": "+02:00"})],
)
async def test_the_calculator_and_the_clock_answer_through_the_local_tools(
    name: str, tool_input: dict[str, JsonValue]
) -> None:
    registry = default_tools()
    tool = registry.get(name)
    assert tool is not None

    assert not (await registry.run(tool.definition, tool_input, an_execution())).is_error
