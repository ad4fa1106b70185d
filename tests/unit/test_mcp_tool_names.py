"""The names of MCP servers' tools for models: legal, unique, and never another tool's."""

import re
import unicodedata
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.tools import qualified_name
from services.mcp.tool_names import assigned_names, first_by_name, problem_of_name
from services.tools.masks import MASK

LEGAL: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
SERVER: Final = "server"

# Names that are often the same once they are legal.
NAMES: Final = st.one_of(
    st.text(st.sampled_from("ab_./-ü "), min_size=1, max_size=6),
    st.text(st.sampled_from("ab."), min_size=50, max_size=80),
    st.text(min_size=1, max_size=70).filter(lambda name: problem_of_name(name) is None),
)
LISTINGS: Final = st.lists(NAMES, unique=True, max_size=12)
SERVERS: Final = st.from_regex(r"[a-zA-Z][a-zA-Z0-9-]{0,31}", fullmatch=True)


def assigned(*listed: str, **stored: str) -> dict[str, str]:
    return assigned_names(SERVER, listed, stored=stored)


@pytest.mark.parametrize(
    ("on_server", "name"),
    [
        ("echo", "echo"),
        ("say__it", "say__it"),
        ("_private", "_private"),
        ("admin.tools.list", "admin_tools_list"),
        ("admin/tools/list", "admin_tools_list"),
        ("a . / b", "a_b"),
        (".hidden", "hidden"),
        ("Größe", "Gro_e"),
        ("über.ﬁle", "uber_file"),
        ("検索", "tool_1b6b1a6f"),
        ("...", "tool_ab5df625"),
        ("x" * 56, "x" * 56),
        ("x" * 57, f"{'x' * 47}_ae14a256"),
        (f"{'x' * 40}.{'y' * 40}", f"{'x' * 40}_yyyyyy_b6e03969"),
    ],
)
def test_a_name_becomes_legal_and_stays_legible(on_server: str, name: str) -> None:
    assert assigned(on_server) == {on_server: name}


def test_two_that_would_be_called_the_same_get_a_digest_each() -> None:
    names = assigned("a.b", "a/b", "c.d")

    assert names == {"a.b": "a_b_2e7336dc", "a/b": "a_b_c14cddc0", "c.d": "c_d"}


def test_a_legal_name_is_its_tools_own_unless_another_tool_has_it_already() -> None:
    assert assigned("a.b", "a_b") == {"a_b": "a_b", "a.b": "a_b_2e7336dc"}
    later = assigned("a_b", "a.b", **{"a.b": "a_b"})
    assert later == {"a.b": "a_b", "a_b": "a_b_648fa9b3"}
    # Nor does it get the name of a tool that goes as it comes: settings are still there.
    assert assigned("a_b", **{"a.b": "a_b"}) == {"a_b": "a_b_648fa9b3"}


def test_a_name_that_looks_like_anothers_with_its_digest_takes_nothing_from_it() -> None:
    names = assigned("a.b", "a/b", "a_b_2e7336dc")

    assert names["a_b_2e7336dc"] == "a_b_2e7336dc"
    assert names["a.b"].startswith("a_b_")
    assert len({*names.values()}) == 3


@given(SERVERS, LISTINGS)
def test_names_are_legal_and_unique(server: str, listed: list[str]) -> None:
    names = assigned_names(server, listed, stored={})

    assert names.keys() == {*listed}
    assert len({*names.values()}) == len(listed)
    assert all(LEGAL.fullmatch(qualified_name(server, name)) for name in names.values())
    kept = [name for name in listed if LEGAL.fullmatch(qualified_name(server, name))]
    assert {name: names[name] for name in kept} == dict(zip(kept, kept, strict=True))


@given(st.data(), SERVERS, LISTINGS)
def test_the_order_makes_no_difference(data: Any, server: str, listed: list[str]) -> None:  # noqa: ANN401 -- hypothesis's
    other = data.draw(st.permutations(listed))

    assert assigned_names(server, listed, stored={}) == assigned_names(server, other, stored={})


@given(SERVERS, st.lists(LISTINGS, max_size=5))
def test_no_tool_gets_the_name_of_another_however_the_list_changes(
    server: str, listings: list[list[str]]
) -> None:
    stored: dict[str, str] = {}
    for listed in listings:
        names = assigned_names(server, listed, stored=stored)
        owners = {name: tool for tool, name in stored.items()}

        assert {
            tool: names[tool] for tool in stored.keys() & names.keys()
        }.items() <= stored.items()
        assert all(owners.get(name, tool) == tool for tool, name in names.items())
        assert len({*names.values()}) == len(listed)
        stored = names


@given(SERVERS, LISTINGS)
def test_digests_that_are_the_same_are_told_apart(server: str, listed: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("services.mcp.tool_names._DIGEST_CHARS", 1)
        names = assigned_names(server, listed, stored={})

    assert len({*names.values()}) == len(listed)
    assert all(LEGAL.fullmatch(qualified_name(server, name)) for name in names.values())


@pytest.mark.parametrize("name", ["", "a\x00b", "a\nb", "\ud800", "a\u202eb", "x" * 257, MASK])
def test_a_tool_that_can_not_be_called_by_its_name_is_left_out(name: str) -> None:
    assert problem_of_name(name) is not None


@pytest.mark.parametrize(
    "name", ["a b", "x" * 256, "検索", "a.b/c:d", unicodedata.lookup("MICRO SIGN")]
)
def test_any_other_name_will_do(name: str) -> None:
    assert problem_of_name(name) is None


@given(st.data(), LISTINGS, st.integers(0, 12))
def test_the_first_by_name_are_the_same_in_any_order(
    data: Any,  # noqa: ANN401 -- hypothesis's
    listed: list[str],
    limit: int,
) -> None:
    other = data.draw(st.permutations(listed))

    first = first_by_name(listed, str, limit=limit)

    assert first == (sorted(listed)[:limit] if len(listed) > limit else listed)
    assert {*first} == {*first_by_name(other, str, limit=limit)}


def test_tools_without_a_name_are_the_first_to_go() -> None:
    assert first_by_name(["", "b", "", "a"], str, limit=2) == ["a", "b"]
