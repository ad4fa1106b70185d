"""Prompts continue from the provider's cache: from turn to turn, and within a turn."""

from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from schema.usage import TokenUsage
from tests.fakes.scripted_model.caching import PrefixCache
from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.contexts import publish, remember
from tests.fixtures.stack import Stack

MODEL = "claude-sonnet-5-5"
TURNS = 10


async def chat_with_tools(user: ApiUser, stack: Stack, subject: str) -> list[dict[str, Any]]:
    """Have a chat in which each turn calls a tool; return the last requests, one for each turn."""
    chat, bodies = await user.create_chat(), []
    for number in range(TURNS):
        question = unique(f"What of the {subject}, part {number}?")
        call = ToolCall(name="calculator", input={"expression": f"{number} * 7"}, id="call")
        stack.model.add(Script(match=question, text="Let me see.", tool_calls=(call,)))
        stack.model.add(Script(match=question, text=f"Part {number} of it. " * 30))
        await user.ask(chat, question, model=MODEL)
        bodies.append(stack.model.requests_matching(question)[-1].body or {})
    return bodies


async def test_four_fifths_of_a_chat_with_tools_memories_and_knowledge_are_read_from_the_cache(
    user: ApiUser, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack.model, "cache", PrefixCache())
    subject = unique("lighthouse")
    for number in range(3):
        await remember(user, f"Noted of the {subject}: {number} boats.")
    await publish(user, stack, "Coast", f"The {subject} is red and white, and blinks twice.")

    bodies = await chat_with_tools(user, stack, subject)

    found = [message["content"][0]["text"] for message in bodies[-1]["messages"][-3:-2]]
    assert "boats" in found[0]
    assert "blinks twice" in found[0]
    assert all("cache_control" not in block for block in bodies[-1]["messages"][-3]["content"])
    response = await user.request("GET", "/subscription/usage")
    usage = response.json()["data"]["usage"]
    read, written = usage["cacheReadTokens"], usage["cacheWriteTokens"]
    assert read / (usage["inputTokens"] + read + written) >= 0.8, usage
    prices = stack.foundation.pricing
    plain = prices.cost(MODEL, TokenUsage(input_tokens=read + written))
    paid = prices.cost(MODEL, TokenUsage(cache_read_tokens=read, cache_write_tokens=written))
    assert Decimal(response.json()["data"]["cacheSavedUsd"]) == plain - paid > 0


async def test_a_turn_with_many_calls_does_not_hide_the_history_from_the_next_one(
    user: ApiUser, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack.model, "cache", PrefixCache())
    chat, first, second, third = await user.create_chat(), unique(), unique(), unique()
    await remember(user, f"Noted: {first}", pinned=True)
    stack.model.add(Script(match=first, text="Long. " * 1_000))
    calls = [
        ToolCall(name="calculator", input={"expression": f"{number} + 1"}, id=f"c{number}")
        for number in range(15)
    ]
    stack.model.add(Script(match=second, tool_calls=tuple(calls)))
    for question in (first, second, third):
        await user.ask(chat, question, model=MODEL)

    *_, last = stack.model.requests_matching(third)
    assert last.usage.cache_read_input_tokens > 1_500


async def test_what_all_users_share_is_found_by_the_first_turn_of_each(
    user: ApiUser, other_user: ApiUser, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack.model, "cache", PrefixCache())
    for someone in (user, other_user):
        await stack.inspection.execute(
            "INSERT INTO preferences (user_id, instructions) VALUES ($1, $2)",
            UUID(someone.id),
            unique("Be brief."),
        )
    questions = [unique(), unique()]
    for someone, question in zip((user, other_user), questions, strict=True):
        await someone.ask(await someone.create_chat(), question, model="claude-opus-5-5")

    first, second = (stack.model.requests_matching(question)[-1].usage for question in questions)
    assert first.cache_creation_input_tokens > second.cache_read_input_tokens > 512
