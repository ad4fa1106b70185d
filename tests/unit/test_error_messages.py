"""The catalogue of error messages: complete, in our own words, and without pydantic's."""

import importlib
import pkgutil
import re
from enum import StrEnum
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

import pytest
from pydantic import BaseModel, EmailStr, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticKnownError
from pydantic_core.core_schema import ErrorType

import services
from api import error_messages
from api.error_messages import REFUSALS, Problem
from api.errors import field_problem, refused
from api.validation_messages import VALIDATION, validation_message
from schema import errors
from schema.budgets import BudgetExceeded
from schema.errors import HTTP_STATUS, MESSAGES, TURN_MESSAGES, ErrorCode
from schema.wire import Moment, StorableText, VisibleText

CONTEXT: dict[str, Any] = {
    "min_length": 3,
    "max_length": 4,
    "actual_length": 9,
    "field_type": "List",
    "pattern": "^a$",
    "expected": "'a' or 'b'",
    "expected_tags": "'a', 'b'",
    "discriminator": "'kind'",
    "tag": "c",
    "ge": 1,
    "gt": 1,
    "le": 1,
    "lt": 1,
    "multiple_of": 2,
    "max_digits": 5,
    "decimal_places": 2,
    "whole_digits": 3,
    "expected_version": 7,
    "expected_schemes": "'https'",
    "error": "invalid character",
    "class": "A",
    "class_name": "A",
    "method_name": "get",
    "attribute": "a",
    "mapping_error": "?",
    "iterable_error": "?",
    "encoding": "utf-8",
    "encoding_error": "?",
    "tz_expected": 0,
    "tz_actual": 1,
    "name": "a",
    "function_name": "check",
}
SENTENCE = re.compile(r"[A-Z`\u201c].*[.]|\{Noun\} not found\.", re.DOTALL)
CLUMSY = re.compile(
    r"\b(anew|told|whoever|nobody|somebody|there is no such|has to have|is away|made)\b",
    re.IGNORECASE,
)


def refusals() -> list[tuple[type[StrEnum], StrEnum]]:
    return [(kind, member) for kind in REFUSALS for member in kind]


def refusals_of_services() -> set[type[StrEnum]]:
    """Return the refusals that services return, but for those that go to the model."""
    for module in pkgutil.walk_packages(services.__path__, "services."):
        importlib.import_module(module.name)
    to_the_model = {"ExtractionRefusal", "SearchRefusal"}
    return {
        kind
        for kind in StrEnum.__subclasses__()
        if kind.__module__.startswith("services.")
        and kind.__name__.endswith("Refusal")
        and kind.__name__ not in to_the_model
    }


def test_every_refusal_of_services_is_in_the_catalogue() -> None:
    assert refusals_of_services() <= set(REFUSALS)
    assert {kind: set(of) for kind, of in REFUSALS.items()} == {
        kind: set(kind) for kind in REFUSALS
    }


def pydantics(kind: str) -> str:
    """Return pydantic's own message for an error type."""
    return PydanticKnownError(kind, CONTEXT).message()  # type: ignore[arg-type]  # any type


@pytest.mark.parametrize("code", ErrorCode)
def test_each_code_has_a_status_and_a_sentence(code: ErrorCode) -> None:
    assert 400 <= HTTP_STATUS[code] < 600
    assert SENTENCE.fullmatch(MESSAGES[code])
    assert SENTENCE.fullmatch(TURN_MESSAGES[code])


@pytest.mark.parametrize(("kind", "member"), refusals(), ids=str)
def test_each_refusal_has_a_sentence(kind: type[StrEnum], member: StrEnum) -> None:
    problem: Problem = REFUSALS[kind][member]
    error = refused(member, "MCP server")

    assert SENTENCE.fullmatch(error.message)
    assert "{" not in error.message
    details = error.details or ()
    assert not isinstance(details, BudgetExceeded)
    assert (error.code, [each.path for each in details]) == (
        problem.code,
        [] if problem.path is None else [problem.path],
    )


def test_no_sentence_is_clumsy() -> None:
    constants = [
        text
        for name, text in (vars(error_messages) | vars(errors)).items()
        if name.isupper() and not name.endswith("_HEADER")
    ]
    sentences = [
        *MESSAGES.values(),
        *TURN_MESSAGES.values(),
        *VALIDATION.values(),
        *(problem.message for of in REFUSALS.values() for problem in of.values()),
        *(text for text in constants if isinstance(text, str)),
    ]

    assert [sentence for sentence in sentences if CLUMSY.search(sentence)] == []
    assert [sentence for sentence in sentences if not sentence.endswith(".")] == []
    assert [sentence for sentence in sentences if sentence[:1].islower()] == []


@pytest.mark.parametrize("kind", get_args(ErrorType))
def test_no_validation_message_is_pydantics(kind: str) -> None:
    problem = {"type": kind, "loc": ("body", "a"), "msg": pydantics(kind), "ctx": CONTEXT}

    message = field_problem(problem).message

    assert SENTENCE.fullmatch(message)
    assert "{" not in message
    assert message.rstrip(".") != pydantics(kind)
    assert not message.startswith(("Input should", "Field required", "Value error"))


def test_only_types_that_pydantic_has_are_translated() -> None:
    assert VALIDATION.keys() <= set(get_args(ErrorType))


class Form(BaseModel):
    """One field of each kind that requests use."""

    text: Annotated[StorableText, Field(min_length=2, max_length=3)] = "ab"
    title: VisibleText = "a"
    number: Annotated[int, Field(ge=1, le=100)] = 1
    flag: bool = True
    choice: Literal["a", "b"] = "a"
    items: Annotated[list[str], Field(max_length=1)] = []
    email: EmailStr = "a@example.com"
    moment: Moment | None = None
    id: UUID | None = None


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("text", "a", "Must be at least 2 characters."),
        ("text", "abcd", "Must be at most 3 characters."),
        ("text", 1, "Must be a string."),
        ("text", "a\x00", "Must not contain the NUL character."),
        ("title", " ", "Must not be blank."),
        ("number", 0, "Must be at least 1."),
        ("number", 101, "Must be at most 100."),
        ("number", "one", "Must be an integer."),
        ("flag", "perhaps", "Must be true or false."),
        ("choice", "c", "Must be one of 'a' or 'b'."),
        ("items", ["a", "b"], "Must be at most 1 item."),
        ("items", "a", "Must be an array."),
        ("email", "nobody", "Must be a valid email address."),
        (
            "moment",
            "2026-01-31",
            "Must be a date and time with an offset, e.g. 2026-01-31T09:00:00Z.",
        ),
        ("id", "1", "Must be a UUID."),
    ],
)
def test_invalid_fields_are_described_by_the_valid_values(
    field: str, value: object, message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Form.model_validate({field: value})

    assert [validation_message(dict(problem)) for problem in caught.value.errors()] == [message]


def test_unknown_and_missing_fields_are_named() -> None:
    adapter = TypeAdapter(dict[Literal["a"], int])
    with pytest.raises(ValidationError) as caught:
        adapter.validate_python({"b": 1})

    assert [validation_message(dict(problem)) for problem in caught.value.errors()] == [
        "Must be one of 'a'."
    ]
