"""What of a chat's messages a prompt sends: the question's branch, without what would do harm."""

from uuid import UUID

import pytest

from services.contexts.branches import BranchMessage, FollowedBranch, follow

ROLES = {"q": (True, False), "j": (False, True), "a": (False, False), "x": (False, False)}


def chain(*names: str, parent: UUID | None = None) -> list[BranchMessage]:
    """Return messages that follow each other; the first letter is the kind, `x` is left out."""
    messages: list[BranchMessage] = []
    for name in names:
        asks, joins = ROLES[name[0]]
        said = BranchMessage(
            id_of(name),
            parent,
            UUID(int=1),
            asks,
            joins,
            name[0] == "x",
            tokens=10,
            work=0,
            brief=0,
        )
        messages.append(said)
        parent = said.id
    return messages


def id_of(name: str) -> UUID:
    return UUID(bytes=name.encode().ljust(16, b"\0"))


def names(branch: FollowedBranch) -> str:
    return " ".join(message.id.bytes.rstrip(b"\0").decode() for message in branch.sent)


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ("q1 a1 q2", "q1 a1 q2"),
        ("q1 q2", "q2"),
        ("q1 q2 a2 q3", "q2 a2 q3"),
        ("q1 x1 q2", "q2"),
        ("q1 x1 q2 a2 q3", "q2 a2 q3"),
        ("q1 a1 q2 q3 q4", "q1 a1 q4"),
        ("q1 j1 j2 a1 q2", "q1 j1 j2 a1 q2"),
        ("q1 j1 x1 q2", "q2"),
        ("q1 j1 q2", "q2"),
        ("q0 q1 j1 a1 q2", "q1 j1 a1 q2"),
        ("q1 j2", "q1 j2"),
        ("q1", "q1"),
    ],
)
def test_only_what_was_answered_is_sent_with_what_joined_it(said: str, sent: str) -> None:
    messages = chain(*said.split())

    branch = follow(messages, messages[-1].id, most_tokens=1_000)

    assert names(branch) == sent
    assert branch.before_id is None
    assert {message.id for message in (*branch.sent, *branch.others)} == {
        message.id for message in messages
    }


def test_siblings_are_others() -> None:
    messages = chain("q1", "a1", "q2")
    sibling = chain("a3", "q4", parent=id_of("q1"))

    branch = follow([*messages, *sibling], id_of("q4"), most_tokens=1_000)

    assert names(branch) == "q1 a3 q4"
    assert [message.id for message in branch.others] == [id_of("a1"), id_of("q2")]


def test_it_ends_behind_a_summary_or_a_message_that_was_not_read_or_when_it_is_long() -> None:
    messages = chain("q1", "a1", "q2", "a2", "q3")

    summarised = follow(messages, id_of("q3"), most_tokens=1_000, summarised=[id_of("a1")])
    partly = follow(messages[1:], id_of("q3"), most_tokens=1_000)
    long = follow(messages, id_of("q3"), most_tokens=15)

    assert (names(summarised), summarised.before_id) == ("q2 a2 q3", id_of("a1"))
    assert (names(partly), partly.before_id) == ("q2 a2 q3", id_of("a1"))
    assert (names(long), long.before_id) == ("q3", id_of("a2"))


def test_a_question_that_is_gone_has_no_branch() -> None:
    assert follow(chain("q1"), id_of("q2"), most_tokens=10).sent == ()
