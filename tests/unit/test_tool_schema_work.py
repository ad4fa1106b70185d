"""How much work schemas make: as much as a validator has, whichever keywords make it."""

from typing import Any, Final

import pytest

from services.tools.schema_work import is_too_much_work

FEW_STEPS: Final = 5_000
"""What grows with each level is beyond any bound: a low one is reached sooner, even when traced."""


def doubling(*, by: str, levels: int = 40) -> dict[str, Any]:
    """Return a schema whose parts refer to the next one twice, by a keyword."""

    def part(level: int) -> dict[str, Any]:
        following = {"$ref": f"#/$defs/{level + 1}"}
        if by in {"dependentSchemas", "dependencies"}:
            return {by: {"a": following, "b": following}}
        if by in {"not", "if", "then", "else"}:
            return {by: following, "allOf": [following]}
        return {by: [following, following]}

    return {"$defs": {str(level): part(level) for level in range(levels)}, "$ref": "#/$defs/0"}


def through_entries(keyword: str, entry: object) -> dict[str, Any]:
    """Return a schema that looks twice at each entry of each level, by a keyword."""
    inner = {keyword: entry}
    return {"allOf": [inner, inner]}


def deep(levels: int, *, as_list: bool) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value] if as_list else {"a": value}
    return value


@pytest.mark.parametrize(
    "keyword",
    [
        *("allOf", "anyOf", "oneOf", "not", "if", "then", "else"),
        *("dependentSchemas", "dependencies"),
    ],
)
def test_parts_for_the_same_value_are_counted(keyword: str) -> None:
    schema = doubling(by=keyword)

    assert is_too_much_work(schema, {}, most_steps=FEW_STEPS)
    assert not is_too_much_work(doubling(by=keyword, levels=5), {}, most_steps=FEW_STEPS)


@pytest.mark.parametrize(
    ("keyword", "entry", "as_list"),
    [
        ("properties", {"a": {"$ref": "#"}}, False),
        ("patternProperties", {"^a": {"$ref": "#"}}, False),
        ("additionalProperties", {"$ref": "#"}, False),
        ("unevaluatedProperties", {"$ref": "#"}, False),
        ("prefixItems", [{"$ref": "#"}], True),
        ("items", {"$ref": "#"}, True),
        ("contains", {"$ref": "#"}, True),
        ("unevaluatedItems", {"$ref": "#"}, True),
    ],
)
def test_parts_for_entries_are_counted(keyword: str, entry: object, *, as_list: bool) -> None:
    schema = through_entries(keyword, entry)

    assert is_too_much_work(schema, deep(40, as_list=as_list), most_steps=FEW_STEPS)
    assert not is_too_much_work(schema, deep(3, as_list=as_list), most_steps=FEW_STEPS)


@pytest.mark.parametrize(
    ("schema", "many", "few"),
    [
        ({"allOf": [{"propertyNames": {"pattern": "a"}}] * 90}, {"a" * 20_000: 1}, {"a": 1}),
        ({"items": {"required": ["a"] * 4_000}}, [1] * 1_000, [1]),
        ({"items": {"multipleOf": 0.01}}, [1] * 20_000, [1] * 1_000),
        ({"allOf": [{"patternProperties": {"a": True}}] * 90}, {"a" * 20_000: 1}, {"a": 1}),
        ({"items": {"$ref": "#/prefixItems/0"}, "prefixItems": [{}]}, [1] * 100_000, [1]),
    ],
)
def test_the_work_of_each_part_is_counted(
    schema: dict[str, Any], many: object, few: object
) -> None:
    assert is_too_much_work(schema, many)
    assert not is_too_much_work(schema, few)


@pytest.mark.parametrize("reference", ["#/none", "#/allOf/7", "#/allOf/x", "#/type/x"])
def test_a_dangling_reference_is_not_followed(reference: str) -> None:
    schema = {"type": "object", "allOf": [{"$ref": reference}]}

    assert not is_too_much_work(schema, {})


def test_without_a_bound_of_its_own_a_schema_has_as_many_steps_as_a_validator() -> None:
    schema = doubling(by="allOf", levels=20)

    assert is_too_much_work(schema, {})
    assert not is_too_much_work(doubling(by="allOf", levels=12), {})


def test_names_in_references_are_read_as_json_pointers() -> None:
    schema = doubling(by="allOf") | {"$ref": "#/$defs/a~1b%20c~0"}
    schema["$defs"]["a/b c~"] = {"$ref": "#/$defs/0"}

    assert is_too_much_work(schema, {}, most_steps=FEW_STEPS)
