"""Whatever schema a tool has: providers take what is offered of it, and inputs get back."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.tools.input_schemas import problem_of_schema
from services.tools.offered_schema import offered_schema
from tests.unit.test_offered_schema import refusal_of, takes

NAMES = st.sampled_from(
    ["a", "b", "top", "$top", "top_2", "Größe", "Groesse", "x y", "名前", "filter[id]", "n" * 70]
)
LEAVES = st.sampled_from(
    [
        ({"type": "string"}, "text"),
        ({"type": "integer", "minimum": 1}, 3),
        ({"enum": ["x", None]}, None),
        ({"type": "string", "pattern": r"^\p{Lu}$"}, "Ä"),
        (True, [1]),
        ({}, {"free": 1}),
    ]
)


@st.composite
def objects(draw: st.DrawFn, depth: int = 2) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw a schema of an object, and an input that it takes."""
    names = draw(st.lists(NAMES, max_size=4, unique=True))
    parts = {name: draw(values(depth)) for name in names}
    schema: dict[str, Any] = {"properties": {name: part for name, (part, _) in parts.items()}}
    if draw(st.booleans()):
        schema["type"] = "object"
    required = draw(st.lists(st.sampled_from(names), unique=True)) if names else []
    if required:
        schema["required"] = required
    if draw(st.booleans()):
        schema["additionalProperties"] = False
    left_out = draw(st.sets(st.sampled_from(names))) - set(required) if names else set()
    return schema, {name: value for name, (_, value) in parts.items() if name not in left_out}


@st.composite
def values(draw: st.DrawFn, depth: int) -> tuple[Any, Any]:
    if depth == 0 or draw(st.booleans()):
        return draw(LEAVES)
    schema, value = draw(objects(depth - 1))
    schema["type"] = "object"
    match draw(st.sampled_from(["object", "array", "any", "tuple"])):
        case "array":
            return {"type": "array", "items": schema}, [value, value]
        case "any":
            return {"anyOf": [{"type": "null"}, schema]}, value
        case "tuple":
            return {"prefixItems": [{"type": "null"}, schema], "items": False}, [None, value]
        case _:
            return schema, value


@st.composite
def roots(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw what servers list: objects, alternatives of them, references, conditions."""
    schema, value = draw(objects())
    other, _ = draw(objects())
    impossible = other | {"minProperties": 99}
    forms: list[dict[str, Any]] = [
        schema,
        {"anyOf": [impossible, schema]},
        {"type": "object", "oneOf": [schema, impossible]},
        {"allOf": [schema, {"type": "object"}]},
        {"$ref": "#/$defs/the%20root", "$defs": {"the root": schema}},
        {"if": {"required": ["never"]}, "then": {}, "else": schema},
        {"allOf": [{"anyOf": [{"allOf": [schema]}]}]},
    ]
    return draw(st.sampled_from(forms)), value


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(roots())
def test_any_schema_is_offered_as_providers_take_it_and_takes_what_the_tool_takes(
    drawn: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    schema, own = drawn
    offered = offered_schema(schema)

    assert problem_of_schema(schema) is None
    assert takes(schema, own)
    assert refusal_of(offered) is None
    as_offered = offered.names.for_model(own)
    assert takes(offered.schema, as_offered)
    assert offered.names.for_tool(as_offered) == own


def named(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(NAMES, inner, max_size=2)


ANY_SCHEMA = st.recursive(
    st.sampled_from(
        [
            *(True, False, {}, {"type": "object"}, {"enum": [{"$top": 1}, 2]}, {"$comment": "x"}),
            *({"const": {"a": [{"$top": 1}]}}, {"$ref": "#"}, {"$ref": "#/properties/$top"}),
            *({"$ref": "#/properties"}, {"$ref": "#/anyOf/0"}, {"pattern": "^(?=x)"}),
        ]
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("properties", "$defs", "dependentSchemas"), named(inner)),
            **dict.fromkeys(("anyOf", "oneOf", "allOf"), st.lists(inner, min_size=1, max_size=2)),
            **dict.fromkeys(("not", "if", "then", "else", "items", "additionalProperties"), inner),
            "required": st.lists(NAMES, max_size=2, unique=True),
            "dependentRequired": named(st.lists(NAMES, max_size=2, unique=True)),
            "patternProperties": st.dictionaries(st.just("^x"), inner, max_size=1),
            "propertyNames": inner,
        },
    ),
    max_leaves=8,
)


INPUTS = st.recursive(
    st.integers(), lambda inner: named(inner) | st.lists(inner, max_size=2), max_leaves=5
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(ANY_SCHEMA, named(INPUTS))
def test_whatever_is_accepted_can_be_offered(schema: object, value: dict[str, Any]) -> None:
    if isinstance(schema, dict) and problem_of_schema(schema) is None:
        offered = offered_schema(schema)

        assert refusal_of(offered) is None
        renamed = offered.names.for_tool(offered.names.for_model(value))
        assert renamed is not None
        assert renamed.keys() <= {*value, *offered.names.to_model}
