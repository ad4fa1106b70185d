"""The lines that the log has for each request and for each turn's end."""

from collections.abc import Iterator, MutableMapping
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from tests.fakes.scripted_model.scripts import Script
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.stack import Stack
from tests.running_everturn.waiting import eventually

Lines = list[MutableMapping[str, Any]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The lines that are logged during the test."""
    with capture_logs() as logged:
        yield logged


async def line_of(lines: Lines, event: str, **fields: object) -> dict[str, Any]:
    """Return the one line with these fields, once it is there."""

    async def matching() -> Lines:
        return [line for line in lines if {**line, **fields, "event": event} == line]

    (line,) = await eventually(matching, bool)
    return dict(line)


async def test_a_request_is_one_line_with_its_route_and_no_path(
    user: ApiUser, lines: Lines
) -> None:
    chat, request_id = await user.create_chat(), uuid4().hex

    await user.request("GET", f"/chats/{chat}", headers={"X-Request-Id": request_id})

    line = await line_of(lines, "request", request_id=request_id)
    assert line.pop("ms") > 0
    assert line == {
        "event": "request",
        "log_level": "info",
        "method": "GET",
        "route": "/api/v1/chats/{chat_id}",
        "status": 200,
        "request_id": request_id,
        "user_id": user.id,
    }


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/nothing/here", "unmatched"),
        ("/turns/no-id", "/api/v1/turns/{turn_id}"),
        ("/chats?wrong=yes", "/api/v1/chats"),
    ],
)
async def test_a_refused_request_is_logged_without_what_the_client_wrote(
    user: ApiUser, lines: Lines, path: str, route: str
) -> None:
    request_id = uuid4().hex

    refused = await user.request("GET", path, headers={"X-Request-Id": request_id})

    line = await line_of(lines, "request", request_id=request_id)
    assert (line["route"], line["status"]) == (route, refused.status_code)
    assert "turn_id" not in line


async def test_a_probe_is_not_worth_a_line_of_its_own(user: ApiUser, lines: Lines) -> None:
    await user.request("GET", "/health/live")

    line = await line_of(lines, "request", route="/api/v1/health/live")
    assert line["log_level"] == "debug"


async def test_the_end_of_a_turn_is_one_line_with_its_request(
    user: ApiUser, stack: Stack, lines: Lines
) -> None:
    question, request_id = unique(), uuid4().hex
    stack.model.add(Script(match=question, status=529))
    stack.model.add(Script(match=question, text="Fine."))
    chat = await user.create_chat()
    response = await user.request(
        "POST",
        f"/chats/{chat}/messages",
        json={"content": question},
        headers={"X-Request-Id": request_id},
    )
    turn = response.json()["data"]["turn"]

    ended = await line_of(lines, "turn_ended", turn_id=turn["id"])
    asked = await line_of(lines, "request", request_id=request_id)

    assert asked["turn_id"] == turn["id"]
    assert 0 <= ended.pop("waited_s") <= ended.pop("took_s")
    usage = turn["usage"]
    assert ended == {
        "event": "turn_ended",
        "log_level": "info",
        "turn_id": turn["id"],
        "user_id": user.id,
        "chat_id": chat,
        "workflow_id": f"turn-{turn['id']}",
        "request_id": request_id,
        "status": "completed",
        "error_code": None,
        "model": turn["model"],
        "steps": 1,
        "model_attempts": 2,
        "input_tokens": usage["inputTokens"],
        "output_tokens": usage["outputTokens"],
        "cache_read_tokens": usage["cacheReadTokens"],
        "cache_write_tokens": usage["cacheWriteTokens"],
        "cost_usd": turn["costUsd"],
    }


async def test_a_queued_turn_that_is_stopped_has_its_line_too(
    user: ApiUser, stack: Stack, lines: Lines
) -> None:
    first, second = unique(), unique()
    stack.model.add(Script(match=first, text="First.", hold=first))
    chat = await user.create_chat()
    async with user.stream(chat, first) as running:
        await stack.model.wait_for_request(match=first)
        async with user.stream(chat, second, ifBusy="enqueue") as waiting:
            await user.cancel(waiting.turn_id)
        stack.model.release(first)
        await running.all()

    ended = await line_of(lines, "turn_ended", turn_id=waiting.turn_id)

    assert (ended["status"], ended["steps"], ended["model_attempts"]) == ("cancelled", 0, 0)
