"""Answers as values: how a schema is sent, and how an answer is read and checked."""

from typing import Any

import pytest

from services.turns.structured_answers import AnswerChecks, constrained_schema, read_answer

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"Größe": {"type": "integer", "minimum": 1}},
    "required": ["Größe"],
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, null, "é"]}', {"a": [1, 2.5, None, "é"]}),
        (' \n"text"\n', "text"),
        ("null", None),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ("```\n[1]\n```", [1]),
    ],
)
def test_an_answer_is_one_json_value(text: str, value: object) -> None:
    assert read_answer(text) == (value, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sure!",
        'Sure! {"a": 1}',
        '{"a": 1} {"a": 2}',
        '{"a": 1',
        '{"a": NaN}',
        '{"a": 1e999}',
        "[" * 100 + "]" * 100,
        "[" * 100_000,
        "[" + "1," * 30_000 + "1]",
    ],
)
def test_anything_else_is_none(text: str) -> None:
    answer = read_answer(text)

    assert answer.value is None
    assert answer.problem is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"Größe": 3}', None),
        ('{"Größe": 0}', "Größe"),
        ("{}", "Größe"),
        ("[]", "object"),
        ("Three.", "JSON"),
    ],
)
async def test_an_answer_is_checked_by_the_whole_schema(text: str, words: str | None) -> None:
    problem = await AnswerChecks().problem(CITY, text)

    assert problem is None if words is None else words in str(problem)


async def test_a_schema_that_takes_for_ever_is_not_applied() -> None:
    chain = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(30)}
    schema = {"$ref": "#/$defs/d0", "$defs": {**chain, "d30": {"type": "object"}}}

    assert await AnswerChecks().problem(schema, "{}") == "it is too large or nested too deeply"


def test_a_schema_is_sent_as_providers_take_it() -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": ["string", "null"]},
            "size": {"type": "integer", "minimum": 1},
            "inner": {"$ref": "#/$defs/Inner"},
        },
        "required": ["name"],
        "$defs": {"Inner": {"type": "object", "properties": {"x": {"enum": ["a", None]}}}},
    }

    sent = constrained_schema(schema)

    assert sent is not None
    assert sent["additionalProperties"] is False
    assert sent["properties"]["name"]["anyOf"] == [{"type": "string"}, {"type": "null"}]
    assert "minimum" not in sent["properties"]["size"]
    assert "minimum: 1" in sent["properties"]["size"]["description"]
    assert sent["properties"]["inner"] == {"$ref": "#/$defs/Inner"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "number"}},
        {"type": "array", "items": {"type": "object", "patternProperties": {"^x": {}}}},
        {"allOf": [CITY, CITY]},
        {"properties": {"a": True}},
        {"type": "object", "properties": {"a": True}},
        {"enum": [{"a": 1}]},
        {},
    ],
)
def test_a_schema_that_would_lose_by_that_is_asked_for_in_words(schema: dict[str, Any]) -> None:
    assert constrained_schema(schema) is None
