"""What the database keeps of passages: the functions of the search, and what is immutable."""

from collections.abc import Sequence
from uuid import UUID, uuid4

import asyncpg
import pytest

from schema.actors import SERVICE, Actor, ActorType, acting_user
from schema.ids import UserId
from tests.fixtures.api_user import ApiUser
from tests.fixtures.passages import NewPassage, add_document, publish, word
from tests.fixtures.stack import Stack


def actor_of(person: ApiUser) -> Actor:
    return acting_user(UserId(UUID(person.id)))


async def test_the_word_search_function_never_returns_drafts_of_others(
    stack: Stack, user: ApiUser, other_user: ApiUser
) -> None:
    name = word()
    document = await add_document(stack.inspection, user.id, NewPassage(f"a secret {name}"))
    ask = "SELECT count(*) FROM everturn_passages_with($1::text::tsquery, NULL, $2, '{1}', 10)"

    async def seen_by(actor: Actor) -> int:
        async with stack.foundation.database.statements(actor) as connection:
            return int(await connection.fetchval(ask, f"'{name}'", [document]))

    assert await seen_by(actor_of(user)) == 1
    assert await seen_by(actor_of(other_user)) == 0


async def ordered(
    stack: Stack, actor: Actor, *words: str, drafts: Sequence[UUID] = ()
) -> list[str]:
    ask = "SELECT * FROM everturn_rare_first($1, $2, $3)"
    async with stack.foundation.database.statements(actor) as connection:
        rows = await connection.fetch(ask, list(words), list(drafts), [1] * len(drafts))
    return [row[0] for row in rows]


async def test_words_are_put_in_order_and_not_counted(
    stack: Stack, user: ApiUser, other_user: ApiUser
) -> None:
    name, seldom = word(), f"{word()}o'r\\"
    common = [NewPassage(f"{name} is common") for _ in range(60)]
    document = await add_document(
        stack.inspection, user.id, *common, NewPassage("seldom is seldom")
    )
    await publish(stack.inspection, document, 1)

    assert await ordered(stack, actor_of(other_user), name, "seldom", "rare", "rare", seldom) == [
        *(seldom, "rare", "seldom", name)
    ]


async def test_the_word_ranking_reveals_nothing_about_drafts_of_others(
    stack: Stack, user: ApiUser, other_user: ApiUser
) -> None:
    hidden = word()
    drafts = [NewPassage(f"{hidden} is common") for _ in range(300)]
    document = await add_document(stack.inspection, user.id, *drafts)
    await stack.inspection.execute("ANALYZE passages")

    for known in ([], [document]):
        words = await ordered(stack, actor_of(other_user), hidden, "rare", drafts=known)
        assert words == [hidden, "rare"]
    own = await ordered(stack, actor_of(user), hidden, "rare", drafts=[document])
    assert own == ["rare", hidden]


async def test_the_functions_behind_the_words_say_nothing_without_an_actor(
    stack: Stack, user: ApiUser
) -> None:
    name = word()
    document = await add_document(stack.inspection, user.id, NewPassage(name))
    await publish(stack.inspection, document, 1)
    asks = (
        f"SELECT * FROM everturn_passages_with('{name}', NULL, '{{}}', '{{}}', 10)",
        f"SELECT * FROM everturn_rare_first('{{{name}}}', '{{}}', '{{}}')",
        f"SELECT unnest(everturn_passages_with_any('{{{name}}}', '{{}}', '{{}}', 10, 10))",
    )

    async def rows_for(actor_type: str) -> list[int]:
        async with stack.foundation.database.statements(SERVICE) as connection:
            await connection.execute(f"SET LOCAL everturn.actor_type = '{actor_type}'")
            return [len(await connection.fetch(ask)) for ask in asks]

    assert [await rows_for(known) for known in ("user", "admin", "service")] == [[1, 1, 1]] * 3
    assert [await rows_for(unknown) for unknown in ("", "nobody")] == [[0, 0, 0]] * 2


async def test_words_with_special_characters_are_searched_verbatim(
    stack: Stack, user: ApiUser
) -> None:
    name = word()
    document = await add_document(stack.inspection, user.id, NewPassage(name))
    ask = "SELECT cardinality(everturn_passages_with_any($1, $2, '{1}', 10, 10))"

    async with stack.foundation.database.statements(actor_of(user)) as connection:
        counts = [
            await connection.fetchval(ask, words, [document])
            for words in ([name, "o'r | '", "\\", "a & b"], [f"{name}' | '{name}"], [])
        ]

    assert counts == [1, 0, 0]


async def test_less_than_nothing_is_nothing(stack: Stack, user: ApiUser) -> None:
    ask = "SELECT count(*) FROM everturn_passages_with('x', NULL, '{}', '{}', $1)"

    async with stack.foundation.database.statements(actor_of(user)) as connection:
        counts = [await connection.fetchval(ask, most) for most in (-1, -(2**31), None)]

    assert counts == [0, 0, 0]


@pytest.mark.parametrize(
    "change",
    [
        "content = 'something else'",
        "document_id = gen_random_uuid()",
        "version = 2",
        "position = 7",
        "start_char = 1",
        "end_char = 1000",
    ],
)
async def test_the_text_and_source_of_a_passage_are_immutable(
    stack: Stack, user: ApiUser, change: str
) -> None:
    document = await add_document(stack.inspection, user.id, NewPassage(word()))
    await publish(stack.inspection, document, 1)
    owner = actor_of(user)
    admin = Actor(type=ActorType.ADMIN, user_id=UserId(uuid4()))

    for actor in (owner, admin, SERVICE):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="passages"):
            async with stack.foundation.database.statements(actor) as connection:
                await connection.execute(
                    f"UPDATE passages SET {change} WHERE document_id = $1",
                    document,
                )
