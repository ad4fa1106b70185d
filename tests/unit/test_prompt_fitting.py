"""What is cut from a prompt that is too long for its model, and what never is."""

from typing import Any, Final
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from schema.ids import MessageId, TurnId
from services.prompts.conversation import (
    EarlierCall,
    EarlierStep,
    JoinedMessage,
    PromptMaterial,
    SaidMessage,
)
from services.prompts.fitting import fitted, shortened, tokens_in
from services.prompts.tokens import tokens_of
from services.turns.steering import PromptLimits

WORDS: Final = "harbour lights and ferries "
NEWEST: Final = SaidMessage("user", "And now?", 10)


def said(turns: int, tokens: int = 100) -> list[SaidMessage]:
    """Return the messages of turns before the new one, two in each."""
    roles = ["user", "assistant"] * turns
    return [SaidMessage(role, f"{place}", tokens) for place, role in enumerate(roles)]


def result(number: int, words: int, *, blocks: list[dict[str, Any]] | None = None) -> EarlierCall:
    return EarlierCall(1, f"call-{number}", "completed", WORDS * words, blocks)


def material_of(turns: int = 0, calls: tuple[EarlierCall, ...] = ()) -> PromptMaterial:
    steps = [EarlierStep(1, [{"type": "text", "text": "Let me look."}])] if calls else []
    return PromptMaterial([*said(turns), NEWEST], steps, calls, layer_tokens=50)


def test_layers_messages_steps_and_results_count() -> None:
    picture: dict[str, Any] = {"type": "image", "source": {"data": "x" * 100_000}}
    plain = material_of(2)
    asked: dict[str, Any] = {"type": "tool_use", "id": "c", "name": "look", "input": {"at": "sea"}}
    stepped = plain._replace(steps=[EarlierStep(1, [asked])], calls=[result(1, 10)])
    shown = plain._replace(calls=[result(1, 10, blocks=[picture])])

    assert tokens_in(plain) == 50 + 4 * 100 + 10
    assert tokens_in(stepped) > tokens_in(plain) + tokens_of(WORDS * 10)
    assert tokens_in(shown) - tokens_in(plain) < 2_000


def test_what_fits_is_left_as_it_is() -> None:
    material = material_of(3, (result(1, 10),))

    assert fitted(material, limit_tokens=tokens_in(material)) is material


def test_what_joined_the_turn_counts_and_is_never_cut() -> None:
    ids = (MessageId(UUID(int=1)), TurnId(UUID(int=2)))
    joined = [JoinedMessage(2, SaidMessage("user", "More.", 400), *ids)]
    material = material_of(3)._replace(joined=joined)

    assert tokens_in(material) == tokens_in(material_of(3)) + 400
    less = fitted(material, limit_tokens=10)
    assert (less.messages, less.joined) == ([NEWEST], joined)


def test_a_message_joins_only_what_has_room_for_it() -> None:
    ids = (MessageId(UUID(int=1)), TurnId(UUID(int=2)))
    joined = [JoinedMessage(2, SaidMessage("user", "More.", 400), *ids)]
    material = material_of(3, (result(1, 100),))._replace(joined=joined)

    # Earlier messages and results of tools can be cut, layers and questions can't.
    assert PromptLimits(window_tokens=520, budget_tokens=460).hold(material)
    assert not PromptLimits(window_tokens=470, budget_tokens=460).hold(material)
    assert not PromptLimits(window_tokens=520, budget_tokens=459).hold(material)


def test_the_oldest_turns_go_first_and_what_is_left_begins_with_a_question() -> None:
    material = material_of(10)

    less = fitted(material, limit_tokens=1_050)

    assert [message.content for message in less.messages[:-1]] == [
        str(place) for place in range(12, 20)
    ]
    assert less.messages[-1] == NEWEST


def test_a_turn_that_grows_a_little_sends_the_same_history() -> None:
    results = tuple(result(number, 3) for number in range(3))
    limit = tokens_in(material_of(10)) - 300

    kept = {
        fitted(material_of(10, results[:count]), limit_tokens=limit).messages[0].content
        for count in (1, 2, 3)
    }

    assert len(kept) == 1


def test_large_results_are_cut_alike_and_small_ones_stay() -> None:
    calls = (result(1, 2), result(2, 400), result(3, 800))
    material = material_of(4, calls)

    less = fitted(material, limit_tokens=1_000)

    small, large, larger = less.calls
    assert list(less.messages) == [NEWEST]
    assert small == calls[0]
    assert tokens_in(less) <= 1_000
    assert large.output is not None
    assert large.output == larger.output
    assert len(large.output) > 1_000


def test_a_result_with_pictures_is_cut_to_its_text() -> None:
    pictures = [{"type": "image", "source": {}}] * 4
    material = material_of(0, (result(1, 40, blocks=pictures),))

    less = fitted(material, limit_tokens=600)

    assert less.calls[0].blocks is None
    assert less.calls[0].output is not None
    assert less.calls[0].output.startswith(WORDS)


@given(
    st.integers(0, 12),
    st.lists(st.integers(0, 60), max_size=5),
    st.integers(0, 2_000),
)
def test_what_is_cut_fits_or_is_all_that_can_be_cut(
    turns: int, words: list[int], limit: int
) -> None:
    calls = tuple(result(number, count) for number, count in enumerate(words))
    material = material_of(turns, calls)

    less = fitted(material, limit_tokens=limit)

    assert less.messages[-1] == NEWEST
    assert less.messages[0].role == "user"
    assert [call.tool_call_id for call in less.calls] == [call.tool_call_id for call in calls]
    least = material_of(0, tuple(call._replace(output="x" * 60) for call in calls))
    if limit >= tokens_in(least) + 30 * len(calls):
        assert tokens_in(less) <= limit


@given(st.lists(st.text("ab ", min_size=1, max_size=40), max_size=6), st.integers(0, 4))
def test_a_conversation_is_shortened_to_its_new_message_and_no_further(
    texts: list[str], calls: int
) -> None:
    said = [
        SaidMessage("user" if place % 2 == 0 else "assistant", t) for place, t in enumerate(texts)
    ]
    newest = SaidMessage("user", "new")
    results = [EarlierCall(1, str(number), "completed", "x" * 100) for number in range(calls)]
    material: PromptMaterial | None = PromptMaterial([*said, newest], calls=results)
    seen = []

    while material is not None:
        seen.append(material)
        material = shortened(material)

    assert all(part.messages[-1] == newest and part.messages[0].role == "user" for part in seen)
    assert all(len(part.calls) == calls for part in seen)
    assert list(seen[-1].messages) == [newest]
    assert not any("x" in (call.output or "") for call in seen[-1].calls if calls)
    assert len(seen) < 12
