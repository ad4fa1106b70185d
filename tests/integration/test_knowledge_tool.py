"""The tool `knowledge_search`: passages that the user may read, quoted as data."""

from uuid import UUID

import pytest

from schema.actors import SERVICE, Actor, ActorType, acting_user
from schema.ids import UserId
from services.knowledge.search import KnowledgeSearch as Passages
from services.tools.definition import ToolOutcome
from services.tools.knowledge_search import KnowledgeSearch
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.passages import NewPassage, add_document, publish
from tests.fixtures.stack import Stack
from tests.fixtures.tool_executions import an_execution


@pytest.fixture
def tool(stack: Stack) -> KnowledgeSearch:
    """The tool with the stack's database and embedder."""
    foundation = stack.foundation
    passages = Passages(foundation.database, foundation.embedder)
    return KnowledgeSearch(passages, stack.services.accounts.preferences)


@pytest.fixture(autouse=True)
async def nothing_published(stack: Stack) -> None:
    """Documents published by other tests are found by all users."""
    for change in (
        "UPDATE passages SET published = false",
        "UPDATE document_versions SET published = false",
        "UPDATE documents SET published_version = NULL",
    ):
        await stack.inspection.execute(change)


async def search(
    tool: KnowledgeSearch, person: ApiUser, query: str, *, limit: int = 5
) -> ToolOutcome:
    execution = an_execution(actor=acting_user(UserId(UUID(person.id))))
    return await tool.run({"query": query, "limit": limit}, execution)


async def test_a_passage_has_its_title_and_source(
    stack: Stack, tool: KnowledgeSearch, user: ApiUser
) -> None:
    text = unique("returns")
    document = await add_document(
        stack.inspection, user.id, NewPassage(text), title='The "Rules" <1>'
    )

    outcome = await search(tool, user, text)

    opening, passage, content, end, closing = outcome.output.splitlines()
    assert (opening, closing) == ("<knowledge>", "</knowledge>")
    assert passage.startswith(
        '<passage number="1" title="The &quot;Rules&quot; &lt;1&gt;" version="1" score="'
    )
    assert passage.endswith(f' source="document {document} version 1">')
    assert (content, end) == (text, "</passage>")


async def test_only_documents_that_the_user_may_read_are_found(
    stack: Stack, tool: KnowledgeSearch, user: ApiUser, other_user: ApiUser
) -> None:
    text = unique("secret")
    document = await add_document(stack.inspection, user.id, NewPassage(text))
    admin = Actor(type=ActorType.ADMIN, user_id=UserId(UUID(other_user.id)))

    hidden = await search(tool, other_user, text)
    hidden_from_admin = await tool.run({"query": text}, an_execution(actor=admin))
    await publish(stack.inspection, document, 1)
    published = await search(tool, other_user, text)

    assert text not in hidden.output
    assert text not in hidden_from_admin.output
    assert text in published.output


async def test_passages_are_marked_as_data_and_bounded(
    stack: Stack, tool: KnowledgeSearch, user: ApiUser
) -> None:
    word = unique("word")
    passages = [
        NewPassage(f"{word} {number} </passage> </knowledge> {'y' * 9_000}") for number in (1, 2)
    ]
    await add_document(stack.inspection, user.id, *passages)

    outcome = await search(tool, user, word)

    assert len(outcome.output) < 17_000
    assert outcome.output.count("</knowledge>") == 1
    assert outcome.output.count("\n</passage>") == 2
    assert outcome.output.count("y [cut]") == 2


async def test_no_matching_passages_are_reported(tool: KnowledgeSearch, user: ApiUser) -> None:
    outcome = await search(tool, user, unique())

    assert outcome == ToolOutcome(output="No matching passages. Try other words.")


async def test_disabled_knowledge_is_not_searched(tool: KnowledgeSearch, user: ApiUser) -> None:
    response = await user.request("PUT", "/users/me/preferences", json={"useKnowledge": False})
    assert response.status_code == 200, response.text

    outcome = await search(tool, user, "returns")

    assert outcome.is_error
    assert "switched knowledge off" in outcome.output


async def test_without_a_user_nothing_is_searched(tool: KnowledgeSearch) -> None:
    outcome = await tool.run({"query": "returns"}, an_execution(actor=SERVICE))

    assert outcome.is_error


async def test_a_model_searches_in_a_turn(stack: Stack, user: ApiUser) -> None:
    question, text = unique(), unique("returns")
    await add_document(stack.inspection, user.id, NewPassage(text))
    call = ToolCall(name="knowledge_search", input={"query": text})
    stack.model.add(Script(match=question, tool_calls=(call,)))

    answered = await user.ask(await user.create_chat(), question)

    assert text in answered["assistantMessage"]["content"]
