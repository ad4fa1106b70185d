"""The messages of invalid input, by pydantic's types of errors, in English."""

from collections.abc import Mapping
from typing import Any, Final

from api.error_messages import INVALID_JSON, INVALID_JSON_AT, NESTED_TOO_DEEPLY, NOT_UTF_8

_TEXT: Final = "Must be a string."
_INTEGER: Final = "Must be an integer."
_NUMBER: Final = "Must be a number."
_BOOLEAN: Final = "Must be true or false."
_ARRAY: Final = "Must be an array."
_OBJECT: Final = "Must be an object."
_TIME: Final = "Must be a date and time with an offset, e.g. 2026-01-31T09:00:00Z."
_UUID: Final = "Must be a UUID."
_URL: Final = "Must be a valid URL."
_DATE: Final = "Must be a date, e.g. 2026-01-31."
_DURATION: Final = "Must be a duration."

VALIDATION: Final[Mapping[str, str]] = {
    "missing": "Required.",
    "missing_argument": "Required.",
    "extra_forbidden": "Unknown field.",
    "json_type": INVALID_JSON,
    "none_required": "Must be null.",
    "bool_type": _BOOLEAN,
    "bool_parsing": _BOOLEAN,
    "string_type": _TEXT,
    "string_unicode": NOT_UTF_8,
    "string_not_ascii": "Must be ASCII.",
    "string_pattern_mismatch": "Must match the pattern {pattern}.",
    "int_type": _INTEGER,
    "int_parsing": _INTEGER,
    "int_from_float": _INTEGER,
    "int_parsing_size": "Must be closer to zero.",
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "Must not be NaN or infinite.",
    "multiple_of": "Must be a multiple of {multiple_of}.",
    "greater_than": "Must be greater than {gt}.",
    "greater_than_equal": "Must be at least {ge}.",
    "less_than": "Must be less than {lt}.",
    "less_than_equal": "Must be at most {le}.",
    "decimal_type": _NUMBER,
    "decimal_parsing": _NUMBER,
    "decimal_max_digits": "Must have at most {max_digits} digits.",
    "decimal_max_places": "Must have at most {decimal_places} decimal places.",
    "decimal_whole_digits": "Must have at most {whole_digits} digits before the decimal point.",
    "enum": "Must be one of {expected}.",
    "literal_error": "Must be one of {expected}.",
    "union_tag_invalid": "Must be one of {expected_tags}.",
    "union_tag_not_found": "Requires {discriminator}.",
    "list_type": _ARRAY,
    "tuple_type": _ARRAY,
    "set_type": _ARRAY,
    "frozen_set_type": _ARRAY,
    "iterable_type": _ARRAY,
    "dict_type": _OBJECT,
    "mapping_type": _OBJECT,
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "dataclass_type": _OBJECT,
    "recursion_loop": NESTED_TOO_DEEPLY,
    "recursion_depth_exceeded": NESTED_TOO_DEEPLY,
    "datetime_type": _TIME,
    "datetime_parsing": _TIME,
    "datetime_from_date_parsing": _TIME,
    "datetime_object_invalid": _TIME,
    "timezone_naive": "Must not have an offset.",
    "timezone_aware": "Must have an offset, e.g. 2026-01-31T09:00:00Z.",
    "timezone_offset": "Must have a different offset.",
    "datetime_past": "Must be in the past.",
    "datetime_future": "Must be in the future.",
    "date_type": _DATE,
    "date_parsing": _DATE,
    "date_from_datetime_parsing": _DATE,
    "date_from_datetime_inexact": _DATE,
    "date_past": "Must be in the past.",
    "date_future": "Must be in the future.",
    "time_type": "Must be a time of day.",
    "time_parsing": "Must be a time of day.",
    "time_delta_type": _DURATION,
    "time_delta_parsing": _DURATION,
    "uuid_type": _UUID,
    "uuid_parsing": _UUID,
    "uuid_version": "Must be a UUID of version {expected_version}.",
    "url_type": _URL,
    "url_parsing": _URL,
    "url_syntax_violation": _URL,
    "url_too_long": "Must be at most {max_length} characters.",
    "url_scheme": "Must be a URL with the scheme {expected_schemes}.",
}
"""Messages by pydantic's error types; `{…}` are its context. Sizes and our own checks are below."""


def validation_message(problem: Mapping[str, Any]) -> str:
    """Return our message for one of pydantic's errors.

    It says what is valid, never what was sent: that may be a secret, or not even text.
    """
    kind, context = str(problem["type"]), problem.get("ctx", {})
    unit = "characters" if isinstance(problem.get("input"), str) else "items"
    match kind:
        case "json_invalid":
            place = problem["loc"][-1] if problem["loc"] else None
            return INVALID_JSON_AT.format(place) if isinstance(place, int) else INVALID_JSON
        case "too_short" | "string_too_short" | "bytes_too_short":
            return f"Must be at least {_count(context['min_length'], unit)}."
        case "too_long" | "string_too_long" | "bytes_too_long":
            return f"Must be at most {_count(context['max_length'], unit)}."
        case "value_error" if "reason" in context:  # pydantic's EmailStr
            return "Must be a valid email address."
        case "value_error" if isinstance(context.get("error"), ValueError):
            # Our own validators raise sentences that begin with "must".
            sentence = str(context["error"])
            return f"{sentence[:1].upper()}{sentence[1:]}."
        case _:
            return VALIDATION.get(kind, "Invalid value.").format_map(context)


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit if number != 1 else unit.removesuffix('s')}"
