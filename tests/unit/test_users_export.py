"""Exports: each query names one user, and omissions are listed."""

import re

import pytest

from services.users.export import LEFT_OUT, SECTIONS, Section


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_every_section_asks_for_the_rows_of_one_user(section: Section) -> None:
    assert "= $1" in section.query.partition("WHERE")[2]
    assert re.search(rf"FROM {section.table}\b", section.query)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_no_section_holds_a_hash_or_a_vector(section: Section) -> None:
    assert not re.search(r"_hash|embedding|\*", section.query)


def test_omitted_tables_are_not_exported_as_sections() -> None:
    assert not LEFT_OUT.keys() & {section.table for section in SECTIONS}
