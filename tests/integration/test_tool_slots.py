"""Tools that hang hold all places for tool calls; turns that need none of these go on."""

import asyncio
from contextlib import AsyncExitStack

from tests.fakes.scripted_model.scripts import Script, ToolCall
from tests.fixtures.api_user import ApiUser, unique
from tests.fixtures.event_stream import EventStream, named, rebuild
from tests.fixtures.gate_tool import GATE_TOOL
from tests.fixtures.stack import CLOSED, Stack


async def test_hanging_tools_delay_only_their_own_callers(closed: Stack) -> None:
    places, last = int(str(CLOSED["max_concurrent_tool_calls"])), unique("gate")
    gates = [unique("gate") for _ in range(places)]
    person = await closed.sign_up()
    async with AsyncExitStack() as opened:
        hanging = [await _calling_gate(opened, closed, person, gate) for gate in gates]
        await asyncio.gather(*map(closed.gate_tool.reached, gates))
        hanging.append(await _calling_gate(opened, closed, person, last))

        plain, summed = await asyncio.gather(_plain(closed, person), _summing(closed, person))

        assert (plain, summed) == ("Fine.", "It is 42.")
        assert last not in closed.gate_tool.runs
        for gate in (*gates, last):
            closed.gate_tool.open(gate)
        for stream, gate in zip(hanging, (*gates, last), strict=True):
            events = await stream.all()
            assert rebuild(events) == "Through."
            assert named(events, "tool_call")[-1].data["output"] == f"through {gate}"


async def _calling_gate(
    opened: AsyncExitStack, closed: Stack, person: ApiUser, gate: str
) -> EventStream:
    question = unique()
    call = ToolCall(name=GATE_TOOL, input={"gate": gate})
    closed.model.add(Script(match=question, tool_calls=(call,)))
    closed.model.add(Script(match=question, text="Through."))
    chat = await person.create_chat()
    return await opened.enter_async_context(person.stream(chat, question))


async def _plain(closed: Stack, person: ApiUser) -> str:
    question = unique()
    closed.model.add(Script(match=question, text="Fine."))
    return rebuild(await person.events_of(await person.create_chat(), question))


async def _summing(closed: Stack, person: ApiUser) -> str:
    question = unique()
    call = ToolCall(name="calculator", input={"expression": "6 * 7"})
    closed.model.add(Script(match=question, tool_calls=(call,)))
    closed.model.add(Script(match=question, text="It is 42."))
    events = await person.events_of(await person.create_chat(), question)
    assert named(events, "tool_call")[-1].data["output"] == "42"
    return rebuild(events)
