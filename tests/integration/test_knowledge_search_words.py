"""The search of knowledge by words alone: which of a question's words find what."""

# ruff: noqa: RUF001 -- other spellings of letters

from uuid import UUID

import pytest

from schema.actors import acting_user
from schema.ids import UserId
from services.embeddings import make_embedder
from services.knowledge.search import KnowledgeSearch
from tests.fixtures.api_user import ApiUser
from tests.fixtures.passages import NewPassage, add_document, publish, word
from tests.fixtures.stack import Stack


@pytest.fixture
def search(stack: Stack) -> KnowledgeSearch:
    """The search, which is given no vectors here."""
    return KnowledgeSearch(stack.foundation.database, make_embedder("embedded"))


async def contents(search: KnowledgeSearch, person: ApiUser, query: str) -> list[str]:
    actor = acting_user(UserId(UUID(person.id)))
    return [hit.content for hit in await search.relevant(actor, query, None, limit=10)]


async def test_the_rare_words_of_a_question_are_enough(
    stack: Stack, user: ApiUser, search: KnowledgeSearch
) -> None:
    name = word()
    await add_document(stack.inspection, user.id, NewPassage(f"The {name} is kept in the cellar."))

    asked = await contents(search, user, f"Can anybody tell me, please, where you keep a {name}?")
    padded = await contents(search, user, f"{name} " + "and so on " * 195)

    assert len(asked) == len(padded) == 1


async def test_quotes_keep_words_together_and_a_minus_leaves_them_out(
    stack: Stack, user: ApiUser, search: KnowledgeSearch
) -> None:
    name, place = word(), word()
    await add_document(
        stack.inspection,
        user.id,
        NewPassage(f"{name} {place} together"),
        NewPassage(f"{place} before {name}"),
    )

    phrase = await contents(search, user, f'"{name} {place}"')
    without = await contents(search, user, f"{name} -together")

    assert phrase[0] == f"{name} {place} together"
    assert without[0] == f"{place} before {name}"


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("of\ufb01ce", "office"),
        ("office", "of\ufb01ce"),
        ("Ｌｅｔｔｅｒｓ", "letters"),
        ("ｶﾀｶﾅ", "カタカナ"),
        ("カタカナ", "ｶﾀｶﾅ"),
        ("trans\u00adport", "transport"),
        ("zero\u200bwidth", "zerowidth"),
        ("\u202ereverse\u202c", "reverse"),
        ("cafe\u0301", "café"),
        ("\ufefb\ufe92\ufe94", "\u0644\u0627\u0628\u0629"),
        ("①②㎏", "12kg"),
    ],
)
async def test_words_are_found_however_they_are_written(
    stack: Stack, user: ApiUser, search: KnowledgeSearch, *, written: str, asked: str
) -> None:
    name = word()
    await add_document(stack.inspection, user.id, NewPassage(f"{written}{name}"))

    assert await contents(search, user, f"{asked}{name}") == [f"{written}{name}"]


async def test_right_to_left_words_are_found(
    stack: Stack, user: ApiUser, search: KnowledgeSearch
) -> None:
    await add_document(stack.inspection, user.id, NewPassage("המדיניות שלנו להחזרת מוצרים"))

    assert len(await contents(search, user, "מוצרים")) == 1


@pytest.mark.parametrize("is_published", [False, True])
@pytest.mark.parametrize("beginnings", ["bc", "cb"])
async def test_common_words_do_not_hide_the_rare_one(
    stack: Stack, user: ApiUser, search: KnowledgeSearch, beginnings: str, *, is_published: bool
) -> None:
    rare, common = (beginning + word() for beginning in beginnings)
    passages = [NewPassage(f"{common} {number}") for number in range(300)]
    document = await add_document(
        stack.inspection, user.id, *passages, NewPassage(f"a passage with {rare}")
    )
    if is_published:
        await publish(stack.inspection, document, 1)

    assert (await contents(search, user, f"{common} {rare} elsewhere"))[0] == (
        f"a passage with {rare}"
    )


async def test_in_a_large_library_rare_words_outrank_common_ones(
    stack: Stack, user: ApiUser, search: KnowledgeSearch
) -> None:
    rarest, rare, common = word(), word(), word()
    passages = [NewPassage(f"{common} {number}") for number in range(300)]
    holders = [
        NewPassage(f"one with {rarest}"),
        NewPassage(f"one with {rare}"),
        NewPassage(f"{rarest} and {rare}"),
    ]
    document = await add_document(stack.inspection, user.id, *passages, *holders)
    await publish(stack.inspection, document, 1)
    await stack.inspection.execute(
        "UPDATE pg_class SET reltuples = 1000000 WHERE oid = 'passages'::regclass"
    )

    answer = await contents(search, user, f"{common} {rare} {rarest} elsewhere")

    await stack.inspection.execute("ANALYZE passages")
    assert answer[0] == f"{rarest} and {rare}"
    assert set(answer[1:3]) == {f"one with {rarest}", f"one with {rare}"}
    assert all(text.startswith(common) for text in answer[3:])
