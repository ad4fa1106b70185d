"""Which licences of production packages may ship."""

from email.message import Message

import pytest

from tests.delivery.licences import expression_of, problem_of


def package(**fields: str) -> Message:
    """Return a package's metadata."""
    message = Message()
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    return message


@pytest.mark.parametrize(
    ("described", "expression"),
    [
        (package(License_Expression="MIT OR Apache-2.0"), "MIT OR Apache-2.0"),
        (package(Classifier="License :: OSI Approved :: BSD License"), "BSD-3-Clause"),
        (package(Classifier="License :: OSI Approved", License="MIT"), "MIT"),
        (package(License="Apache 2.0"), "Apache-2.0"),
        (package(License="Ask us"), "Ask us"),
        (package(Classifier="License :: OSI Approved :: Odd License", License="Odd"), "Odd"),
        (package(Classifier="Typing :: Typed"), None),
    ],
)
def test_a_licence_is_read_from_whichever_field_names_it(
    described: Message, expression: str | None
) -> None:
    assert expression_of(described) == expression


@pytest.mark.parametrize(
    "expression",
    ["MIT", "MIT AND Zlib", "GPL-3.0-only OR MIT", "MPL-2.0 AND (MIT OR AGPL-3.0-only)"],
)
def test_a_licence_that_may_ship_passes(expression: str) -> None:
    assert problem_of("wheel", expression) is None


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("GPL-3.0-only", "wheel is licensed under GPL-3.0-only, which may not ship"),
        ("MIT AND AGPL-3.0-only", "which may not ship"),
        ("SSPL-1.0", "which may not ship"),
        ("Proprietary terms of Acme", "wheel has an unknown licence"),
        (None, "wheel names no licence"),
    ],
)
def test_a_licence_that_may_not_ship_is_found(expression: str | None, said: str) -> None:
    assert said in str(problem_of("wheel", expression))
