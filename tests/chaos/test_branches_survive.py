"""People edit, regenerate, branch, steer and stop while processes are killed: all stays whole."""

import asyncio
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import uuid4

import httpx2

from everturn_client import (
    AsyncEverturn,
    JoinedMessagePart,
    Message,
    MessageJoinedEvent,
    MessagePart,
    TextPart,
    ToolCallPart,
    TurnState,
)
from everturn_client.calls import UNSET
from everturn_client.streams import AsyncTurnStream
from tests.fakes.scripted_model.scripts import Script
from tests.running_everturn.client import PASSWORD
from tests.running_everturn.stack import ScriptedStack
from tests.running_everturn.waiting import eventually

PEOPLE: Final = 3
STEPS: Final = 10
KILLED: Final = ("worker-turns", "valkey", "api", "postgres", "worker-tools", "temporal")
SEED: Final = 65
MOMENTS: Final = ("turn", "step", "tool_call", "usage", "delta", "done")
"""The events of a turn at which people say more."""


Part: TypeAlias = tuple[Any, ...]
"""What a client shows of a part of an answer."""


class Sent(NamedTuple):
    """A message, the turn that it joined or its answer, and what joined its own turn."""

    question: str
    turn_id: str
    joins: str | None
    answer: Message | None
    joined: list[MessageJoinedEvent]


@dataclass
class Person:
    """Someone with one chat, and what they know of it from the events of their turns alone."""

    everturn: ScriptedStack
    api: AsyncEverturn
    chat_id: str
    chance: random.Random
    known: dict[str, Message] = field(default_factory=dict)
    parts: dict[str, list[Part]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    leaf: str | None = None
    steps: int = 0

    async def act(self) -> None:
        """Do something that people do, and note what came of it."""
        act = self.chance.choice(
            [self.ask, self.steer, self.steer, self.edit, self.regenerate, self.choose]
        )
        await (act if self.known else self.ask)()
        self.steps += 1

    def question(self, wish: str = "") -> str:
        """Return new words, which the model answers slowly."""
        question = f"{wish}branch {uuid4().hex}"
        self.everturn.model.add(
            Script(match=question, repeat=1_000, delay_to_first_s=0.2, delay_between_s=0.05)
        )
        return question

    async def ask(self, parent_id: Any = UNSET) -> None:  # noqa: ANN401 -- the client's own sentinel
        question = self.question()
        parent = self.leaf if parent_id is UNSET else parent_id
        stream = self.api.messages.stream(self.chat_id, content=question, parent_id=parent_id)
        async with stream as answering:
            answer = await self.follow(answering)
        assert answer is not None
        await self.note(answer.parent_id or "", question, parent=parent)
        self.leaf = answer.id

    async def steer(self) -> None:
        """Ask for some work, and say more while it is done."""
        question = self.question("What is 1 + 1? ")
        async with self.api.messages.stream(self.chat_id, content=question) as answering:
            waiting = [
                asyncio.create_task(self.say_more(answering.turn_id, at=moment))
                for moment in self.chance.choices(MOMENTS, k=2)
            ]
            first = await self.sent(answering, question)
        said = {each.turn_id: each for each in [first, *await asyncio.gather(*waiting)]}
        # What came too late for one turn may have begun the next one, and been joined itself.
        for turn_id in sorted(said):
            if said[turn_id].joins is None:
                await self.note_turn(said[turn_id], said)

    async def say_more(self, turn_id: str, *, at: str) -> Sent:
        """Send a message that is to join the turn, and follow what becomes of it."""
        async with self.api.turns.events(turn_id) as running:
            async for event in running:
                if event.type == at:
                    break
        question = self.question()
        stream = self.api.messages.stream(self.chat_id, content=question, if_busy="steer")
        async with stream as own:
            return await self.sent(own, question)

    async def sent(self, stream: AsyncTurnStream, question: str) -> Sent:
        """Follow the turn of a message to its end."""
        answer = await self.follow(stream)
        done = stream.state.done
        joins = None if done is None else done.joined_turn_id
        return Sent(question, stream.turn_id, joins, answer, [*stream.state.joined.values()])

    async def note_turn(self, turn: Sent, said: Mapping[str, Sent]) -> None:
        """Note a turn with the messages that joined it, one behind the other."""
        last = (await self.api.turns.get(turn.turn_id)).user_message_id
        await self.note(last, turn.question, parent=self.leaf)
        for event in turn.joined:
            joined = said[event.turn_id or ""]
            assert joined.joins == turn.turn_id
            await self.note(event.message_id, joined.question, parent=last, step=event.step)
            last = event.message_id
        assert turn.answer is not None
        assert turn.answer.parent_id == last
        self.leaf = turn.answer.id

    async def edit(self) -> None:
        """Ask another question in the place of an earlier one."""
        earlier, _ = self.chance.choice(self.asked)
        await self.ask(parent_id=self.known[earlier].parent_id)

    async def regenerate(self) -> None:
        earlier, _ = self.chance.choice(self.asked)
        turn_id = self.known[earlier].turn_id
        async with self.api.turns.stream_regenerate(turn_id) as answering:
            answer = await self.follow(answering)
        assert answer is not None
        # What joined the turn is answered again, too.
        asked = [said for said in self.known.values() if said.turn_id == turn_id]
        assert answer.parent_id == max(said.id for said in asked if said.role == "user")
        self.leaf = answer.id

    async def choose(self) -> None:
        """Continue at the newest message that follows any message."""
        chosen = self.chance.choice(list(self.known))
        chat = await self.api.chats.choose_branch(self.chat_id, chosen)
        below = [chosen]
        for message_id in below:
            below += [other.id for other in self.known.values() if other.parent_id == message_id]
        self.leaf = max(below, key=lambda id_: (self.known[id_].turn_id, id_))
        assert chat.leaf_id == self.leaf

    async def follow(self, stream: AsyncTurnStream) -> Message | None:
        """Read an answer to its end, or stop it after its first words; None if it joined."""
        if self.chance.random() < 0.3:
            async for _ in stream.text_stream:
                await stream.cancel()
                break
        result = await stream.final()
        if result.joined_turn_id is not None:
            return None
        assert result.message is not None
        assert result.message.content == result.text
        self.known[result.message.id] = outline(result.message)
        self.parts[result.message.id] = [*shown(stream.state)]
        return result.message

    async def note(
        self, message_id: str, content: str, *, parent: str | None, step: int | None = None
    ) -> None:
        """Read what was asked, which must be as the events say."""
        read = outline(await self.api.messages.get(message_id))
        is_edit = parent is not None and any(
            said.parent_id == parent and said.joined_step is not None
            for said in self.known.values()
        )
        expected = 0 if step is None and is_edit else step
        found = (read.parent_id, read.content, read.joined_step)
        assert found == (parent, content, expected)
        self.known[message_id] = read
        self.asked.append((message_id, content))

    def branch(self, leaf: str | None) -> list[Message]:
        """Return what a message follows, and itself, from the beginning."""
        said: list[Message] = []
        while leaf is not None:
            said.insert(0, self.known[leaf])
            leaf = said[0].parent_id
        return said

    async def check(self) -> None:
        """Compare what is stored, and what the model was sent, with what this person knows."""
        everything = self.api.messages.list(self.chat_id, branch="all", limit=100)
        stored = [message async for message in everything]
        assert {message.id: outline(message) for message in stored} == self.known
        for message in stored:
            if message.role == "assistant":
                assert [as_shown(part) for part in message.parts or ()] == self.parts[message.id]
        parents = {message.parent_id for message in self.known.values()}
        for leaf in self.known.keys() - parents:
            listed = self.api.messages.list(self.chat_id, branch=leaf, limit=7)
            assert [outline(message) async for message in listed] == self.branch(leaf)
        current = self.api.messages.list(self.chat_id, limit=100)
        assert [outline(message) async for message in current] == self.branch(self.leaf)
        asked = {content: message_id for message_id, content in self.asked}
        for content in asked:
            prompts = [
                texts_of(request.body)
                for request in self.everturn.model.requests_matching(content)
                if request.body is not None
            ]
            assert prompts, content
            for prompt in prompts:
                # What it ends with may have joined what is looked for.
                sent = [message.content for message in self.branch(asked[prompt[-1]])]
                assert (prompt, content in prompt) == (sent, True)


def outline(message: Message) -> Message:
    """Return a message as the event `done` has it, without its parts, siblings and nulls."""
    shown = message.model_dump(exclude={"parts", "sibling_ids"}, exclude_none=True)
    return Message.model_validate(shown)


def shown(state: TurnState) -> Iterator[Part]:
    """Yield the parts of an answer as its events show them."""
    for step, text in state.texts():
        for event in state.joined.values():
            if event.step == step:
                yield ("joined_message", event.message_id)
        if text:
            yield ("text", text)
        for call in state.tool_calls.values():
            if call.step == step:
                yield ("tool_call", call.tool_call_id, call.status, call.output)


def as_shown(part: MessagePart) -> Part:
    """Return what events say of a part."""
    match part:
        case TextPart():
            return ("text", part.text)
        case JoinedMessagePart():
            return ("joined_message", part.message_id)
        case ToolCallPart():
            return ("tool_call", part.tool_call_id, part.status, part.output)
        case _:
            return (part.type,)


def texts_of(body: dict[str, Any]) -> list[str]:
    """Return the texts of a prompt's conversation."""
    blocks = [block for message in body["messages"] for block in message["content"]]
    return [block["text"] for block in blocks if block["type"] == "text"]


async def test_branches_are_whole_whatever_is_killed(everturn: ScriptedStack) -> None:
    async with (
        httpx2.AsyncClient(trust_env=False, timeout=60) as http,
        asyncio.timeout(200),
    ):
        people = [await new_person(everturn, http, number) for number in range(PEOPLE)]

        async def steps() -> int:
            return sum(person.steps for person in people)

        async def kill() -> None:
            for number, name in enumerate(KILLED, start=1):
                due = number * 4
                await eventually(steps, lambda done: done >= due, within_s=100)  # noqa: B023 -- awaited in this round
                everturn.stack.kill(name)
                await everturn.stack.wait_ready(name)

        async def live(person: Person) -> None:
            for _ in range(STEPS):
                await person.act()

        async with asyncio.TaskGroup() as group:
            for person in people:
                group.create_task(live(person))
            group.create_task(kill())
        for person in people:
            await person.check()


async def new_person(everturn: ScriptedStack, http: httpx2.AsyncClient, number: int) -> Person:
    api = AsyncEverturn(everturn.api, http_client=http, max_retries=10)
    await api.auth.signup(email=f"{uuid4().hex}@example.com", password=PASSWORD)
    chat = await api.chats.create(title="A tree")
    return Person(everturn, api, chat.id, random.Random(SEED + number))
