"""People edit, regenerate, branch and stop while processes are killed: each branch stays whole."""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

import httpx2

from everturn_client import AsyncEverturn
from everturn_client.calls import UNSET
from everturn_client.chat_models import Message
from everturn_client.streams import AsyncTurnStream
from tests.fakes.scripted_model.scripts import Script
from tests.running_everturn.client import PASSWORD
from tests.running_everturn.stack import ScriptedStack
from tests.running_everturn.waiting import eventually

PEOPLE: Final = 3
STEPS: Final = 12
KILLED: Final = ("worker-turns", "api", "worker-turns")
SEED: Final = 65


@dataclass
class Person:
    """Someone with one chat, and what they know of it from the events of their turns alone."""

    everturn: ScriptedStack
    api: AsyncEverturn
    chat_id: str
    chance: random.Random
    known: dict[str, Message] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    leaf: str | None = None
    steps: int = 0

    async def act(self) -> None:
        """Do something that people do, and note what came of it."""
        act = self.chance.choice([self.ask, self.ask, self.edit, self.regenerate, self.choose])
        await (act if self.known else self.ask)()
        self.steps += 1

    async def ask(self, parent_id: Any = UNSET) -> None:  # noqa: ANN401 -- the client's own sentinel
        question = f"branch {uuid4().hex}"
        self.everturn.model.add(
            Script(
                match=question,
                repeat=1_000,
                pieces=("This ", "is ", f"the answer to {question[:12]}."),
                delay_between_s=0.1,
            )
        )
        parent = self.leaf if parent_id is UNSET else parent_id
        stream = self.api.messages.stream(self.chat_id, content=question, parent_id=parent_id)
        async with stream as answering:
            answer = await self.follow(answering)
            asked = answer.parent_id or ""
        read = await self.api.messages.get(asked)
        # As lists show it.
        self.known[asked] = read.model_copy(update={"sibling_ids": None})
        assert (self.known[asked].parent_id, self.known[asked].content) == (parent, question)
        self.asked.append((asked, question))

    async def edit(self) -> None:
        """Ask another question in the place of an earlier one."""
        earlier, _ = self.chance.choice(self.asked)
        await self.ask(parent_id=self.known[earlier].parent_id)

    async def regenerate(self) -> None:
        earlier, _ = self.chance.choice(self.asked)
        turn_id = self.known[earlier].turn_id
        async with self.api.turns.stream_regenerate(turn_id) as answering:
            answer = await self.follow(answering)
        assert answer.parent_id == earlier

    async def choose(self) -> None:
        """Continue at the newest message that follows any message."""
        chosen = self.chance.choice(list(self.known))
        chat = await self.api.chats.choose_branch(self.chat_id, chosen)
        below = [chosen]
        for message_id in below:
            below += [other.id for other in self.known.values() if other.parent_id == message_id]
        self.leaf = max(below, key=lambda id_: (self.known[id_].turn_id, id_))
        assert chat.leaf_id == self.leaf

    async def follow(self, stream: AsyncTurnStream) -> Message:
        """Read an answer to its end, or stop it after its first words."""
        if self.chance.random() < 0.3:
            async for _ in stream.text_stream:
                await stream.cancel()
                break
        result = await stream.final()
        assert result.message is not None
        assert result.message.content == result.text
        self.known[result.message.id] = result.message
        self.leaf = result.message.id
        return result.message

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
        assert {message.id: message async for message in everything} == self.known
        parents = {message.parent_id for message in self.known.values()}
        for leaf in self.known.keys() - parents:
            listed = self.api.messages.list(self.chat_id, branch=leaf, limit=7)
            assert [message async for message in listed] == self.branch(leaf)
        current = self.api.messages.list(self.chat_id, limit=100)
        assert [message async for message in current] == self.branch(self.leaf)
        for message_id, question in self.asked:
            sent = [message.content for message in self.branch(message_id)]
            prompts = [
                texts_of(request.body)
                for request in self.everturn.model.requests_matching(question)
                if request.body is not None and texts_of(request.body)[-1] == question
            ]
            assert prompts, question
            assert all(prompt == sent for prompt in prompts), (sent, prompts)


def texts_of(body: dict[str, Any]) -> list[str]:
    """Return the texts of a prompt's conversation."""
    return [block["text"] for message in body["messages"] for block in message["content"]]


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
                due = number * 8
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
