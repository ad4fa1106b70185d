"""What of all that was found a prompt has room for: the best of each kind."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from schema.contexts import SourceType
from schema.knowledge_search import FoundPassage
from schema.memories import MemoryHit
from services.contexts.rendering import quoted
from services.prompts.tokens import tokens_of
from tests.unit.test_context_rendering import memory, passage


def memories(*contents: str) -> list[MemoryHit]:
    return [memory(content) for content in contents]


def passages(*contents: str) -> list[FoundPassage]:
    return [passage(content) for content in contents]


def test_no_results_add_no_layer() -> None:
    assert quoted([], [], budget_tokens=1_000) == ("", ())


def test_everything_that_fits_is_quoted_memories_first() -> None:
    layer, sources = quoted(memories("m one", "m two"), passages("p one"), budget_tokens=1_000)

    places = [layer.index(text) for text in ("data that others", "m one", "m two", "p one")]
    assert places == sorted(places)
    assert [source.type for source in sources] == [
        SourceType.MEMORY,
        SourceType.MEMORY,
        SourceType.DOCUMENT,
    ]
    assert (sources[2].id, sources[2].version) == (UUID(int=2), 3)


def test_the_least_relevant_of_both_kinds_is_cut() -> None:
    found = memories("m one " * 20, "m two " * 20), passages("p one " * 20, "p two " * 20)
    whole, _ = quoted(*found, budget_tokens=10_000)

    layer, sources = quoted(*found, budget_tokens=tokens_of(whole) - 40)

    assert [text in layer for text in ("m one", "p one", "m two", "p two")] == [
        True,
        True,
        True,
        False,
    ]
    assert len(sources) == 3


def test_pinned_memories_come_first_whatever_was_found() -> None:
    pinned = [memory("pinned " * 20, pinned=True), memory("kept", pinned=True)]
    found = [*memories("m one " * 20), *pinned], passages("p one " * 20)
    whole, _ = quoted(*found, budget_tokens=10_000)

    layer, sources = quoted(*found, budget_tokens=tokens_of(whole) - 40)

    assert layer.index("pinned") < layer.index("kept") < layer.index("m one")
    assert "p one" not in layer
    assert len(sources) == 3


def test_a_pinned_memory_that_is_too_long_leaves_room_for_the_others() -> None:
    layer, sources = quoted(
        [memory("long " * 2_000, pinned=True), memory("short", pinned=True)],
        passages("p one"),
        budget_tokens=500,
    )

    assert "long" not in layer
    assert [source.type for source in sources] == [SourceType.MEMORY, SourceType.DOCUMENT]


@given(
    st.lists(st.text(max_size=300), max_size=8),
    st.lists(st.text(max_size=300), max_size=8),
    st.integers(-10, 600),
)
def test_the_layer_never_exceeds_its_budget(
    remembered: list[str], known: list[str], budget_tokens: int
) -> None:
    layer, sources = quoted(memories(*remembered), passages(*known), budget_tokens=budget_tokens)

    assert not layer or tokens_of(layer) <= budget_tokens
    assert bool(layer) == bool(sources)
