"""What locust's users do: `make load` runs one of these classes at a time, against any Everturn.

    locust --locustfile tests/load/scenarios.py --host URL ApiUser

Everything that is timed goes into the file LOAD_SAMPLES, a line of JSON each. The accounts come
from the file LOAD_ACCOUNTS. An answer counts as lost, and as a failure, unless the stream ends with
`done` and its events add up to exactly the message that is stored.
"""

import json
import os
import random
import time
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from typing import Any, Final

from gevent.event import AsyncResult
from locust import FastHttpUser, constant_pacing, constant_throughput, events, task

FOLLOWED: Final = "Say what many will follow."
PLAIN: Final = "Say something plain."
TOOL_QUESTIONS: Final = (
    ("calculator", "What is 6 * 7?"),
    ("recall", "What do you remember about the garden?"),
)

_TURNS_OF_A_CHAT: Final = 5
_JOIN_WITHIN_S: Final = 1.0
_WITHIN_S: Final = 60.0


class LostAnswerError(Exception):
    """A stream did not end as it must."""


@dataclass(slots=True)
class Answer:
    """What a stream has said so far, by the rule of docs/events.md. Units: `perf_counter`."""

    steps: dict[int, str] = field(default_factory=dict)
    tools: set[str] = field(default_factory=set)
    first_event: float | None = None
    first_text: float | None = None
    status: str | None = None

    @property
    def text(self) -> str:
        """The texts of all steps in order."""
        return "".join(text for _, text in sorted(self.steps.items()))

    def add(self, frame: bytes) -> None:
        """Apply one event; comments say nothing."""
        name, _, data = frame.partition(b"\ndata: ")
        _, is_event, name = name.partition(b"event: ")
        if not is_event:
            return
        self.first_event = self.first_event or time.perf_counter()
        match name.strip():
            case b"step":
                self.steps[json.loads(data)["step"]] = ""
            case b"delta":
                self.first_text = self.first_text or time.perf_counter()
                delta = json.loads(data)
                self.steps[delta["step"]] += delta["text"]
            case b"tool_call":
                call = json.loads(data)
                if call["status"] == "completed":
                    self.tools.add(call["name"])
            case b"done":
                self.status = json.loads(data)["status"]

    def check(self, stored: str, *, tool: str | None = None) -> None:
        """Compare with what is stored. Errors: LostAnswerError."""
        if self.status != "completed":
            raise LostAnswerError(f"the stream ended with {self.status or 'no done'}")
        if self.text != stored:
            raise LostAnswerError("the stream's text is not the stored message")
        if tool is not None and tool not in self.tools:
            raise LostAnswerError(f"{tool} was not called")


@dataclass(slots=True)
class Performance:
    """One turn that many follow; `stored` becomes its stored message, or None if it failed."""

    turn_id: str
    stored: AsyncResult = field(default_factory=AsyncResult)
    first_done: float | None = None


@dataclass(slots=True)
class Room:
    """An account whose turns are followed; `next` becomes the turn that begins next."""

    account: dict[str, Any]
    next: AsyncResult = field(default_factory=AsyncResult)
    is_closed: bool = False

    def announce(self, performance: Performance | None) -> None:
        """Let those who wait for the next turn have it."""
        announced, self.next = self.next, AsyncResult()
        announced.set(performance)


ACCOUNTS: Final = json.loads(Path(os.environ["LOAD_ACCOUNTS"]).read_text())
ROOMS: Final = [Room(account) for account in ACCOUNTS]
RATE: Final = float(os.environ.get("LOAD_RATE", "1"))
_accounts = cycle(ACCOUNTS)
_rooms_to_perform, _rooms_to_follow = cycle(ROOMS), cycle(ROOMS)
_numbers = count()
_samples = Path(os.environ["LOAD_SAMPLES"]).open("w", buffering=1)  # noqa: SIM115 -- while it runs


@events.request.add_listener
def _write(name: str, response_time: float, exception: object, **_: object) -> None:
    sample = {"at": time.time(), "name": name, "ms": response_time}
    if exception is not None:
        sample["error"] = str(exception) or repr(exception)
    _samples.write(json.dumps(sample) + "\n")


@events.test_stopping.add_listener
def _close_rooms(**_: object) -> None:
    for room in ROOMS:
        room.is_closed = True
        room.announce(None)


class Person(FastHttpUser):
    """Someone who is signed in."""

    abstract = True
    network_timeout = connection_timeout = _WITHIN_S

    def on_start(self) -> None:
        """Take an account; there are fewer than users."""
        self.sign_in(next(_accounts))

    def sign_in(self, account: dict[str, Any]) -> None:
        """Act as this account from now on."""
        self.account = account
        self.headers = {"Authorization": f"Bearer {account['key']}", "Accept-Encoding": "identity"}

    def ask(self, method: str, path: str, name: str, body: object = None) -> Any:  # noqa: ANN401 -- JSON
        """Send a request; return the `data` of a successful response, else None."""
        with self.client.request(
            method,
            f"/api/v1/{path}",
            name=name,
            json=body,
            headers=self.headers,
            catch_response=True,
        ) as response:
            if not 200 <= response.status_code < 300:
                response.failure(f"{response.status_code} {response.text or response.error}"[:300])
                return None
            response.success()
            return json.loads(response.text)["data"] if response.text else {}

    def follow(self, method: str, path: str, name: str, body: object = None) -> Any:  # noqa: ANN401 -- locust's
        """Open a stream and return its response, whose `stream` is still to be read."""
        with self.client.request(
            method,
            f"/api/v1/{path}",
            name=name,
            json=body,
            headers={**self.headers, "Accept": "text/event-stream"},
            stream=True,
            catch_response=True,
        ) as response:
            if response.status_code != 200:
                response.failure(f"{response.status_code} {response.text or response.error}"[:300])
                return None
            response.success()
            return response

    def read(self, response: Any, begun: float) -> Answer:  # noqa: ANN401 -- locust's
        """Read a stream to its end."""
        answer = Answer()
        while answer.status is None and (frame := response.stream.readline(b"\n\n")):
            answer.add(frame)
        if answer.first_event is not None:
            self.note("first event", answer.first_event - begun)
        return answer

    def note(self, name: str, seconds: float, error: Exception | None = None) -> None:
        """Time something that is no request of its own."""
        self.environment.events.request.fire(
            request_type="SSE",
            name=name,
            response_time=1000 * seconds,
            response_length=0,
            exception=error,
            context={},
        )

    def converse(self, chat_id: str, content: str, *, tool: str | None = None) -> None:
        """Send a message, read its answer, and compare it with what is stored."""
        body = {"content": content, "stream": True}
        begun = time.perf_counter()
        response = self.follow("POST", f"chats/{chat_id}/messages", "POST message", body)
        if response is None:
            return
        answer = self.read(response, begun)
        if answer.first_text is not None:
            self.note("first token", answer.first_text - begun)
        taken = time.perf_counter() - begun
        self.check(answer, self.stored(chat_id), f"turn, {tool or 'plain'}", taken, tool=tool)

    def stored(self, chat_id: str) -> str | None:
        """Return the newest stored answer of a chat."""
        messages = self.ask("GET", f"chats/{chat_id}/messages?limit=100", "GET messages")
        answers = [each["content"] for each in messages or () if each["role"] == "assistant"]
        return answers[-1] if answers else None

    def check(
        self,
        answer: Answer,
        stored: str | None,
        name: str,
        seconds: float,
        *,
        tool: str | None = None,
    ) -> None:
        """Note how long an answer took, or how it failed."""
        error: Exception | None = None
        try:
            answer.check(stored or "", tool=tool)
        except LostAnswerError as lost:
            error = lost
        self.note(name, seconds, error)


class ApiUser(Person):
    """Reads, and now and then creates and deletes: what a web client does between turns."""

    wait_time = constant_throughput(5)

    def on_start(self) -> None:
        """Read once what a client shows first, however short the run is."""
        super().on_start()
        for read in (self.list_chats, self.read_messages, self.read_turn, self.list_memories):
            read()

    @task(4)
    def read_messages(self) -> None:
        """Open a chat."""
        self.ask("GET", f"chats/{self.account['chatId']}/messages", "GET messages")

    @task(3)
    def list_chats(self) -> None:
        """Look at the list of chats."""
        self.ask("GET", "chats?limit=20", "GET chats")

    @task(2)
    def read_turn(self) -> None:
        """Look at a turn."""
        self.ask("GET", f"turns/{self.account['turnId']}", "GET turn")

    @task(2)
    def list_memories(self) -> None:
        """Look at one's memories."""
        self.ask("GET", "memories", "GET memories")

    @task(1)
    def make_chat(self) -> None:
        """Create a chat, and delete it: a run leaves as many as there were."""
        if chat := self.ask("POST", "chats", "POST chat", {"title": "Measured"}):
            self.ask("DELETE", f"chats/{chat['id']}", "DELETE chat")

    @task(1)
    def make_memory(self) -> None:
        """Create a memory, and delete it."""
        body = {"content": f"Planted {next(_numbers)} trees in {random.getrandbits(40)}."}
        if memory := self.ask("POST", "memories", "POST memory", body):
            self.ask("DELETE", f"memories/{memory['id']}", "DELETE memory")


class Performer(Person):
    """Runs one turn after another, each followed by a room full of `Follower`."""

    fixed_count = len(ROOMS)

    def on_start(self) -> None:
        """Take a room."""
        self.room = next(_rooms_to_perform)
        self.sign_in(self.room.account)

    @task
    def perform(self) -> None:
        """Send a message, announce its turn, and read it like the others."""
        chat = self.ask("POST", "chats", "POST chat", {"title": "Followed"})
        if chat is None or self.room.is_closed:
            return
        begun = time.perf_counter()
        body = {"content": FOLLOWED, "stream": True}
        response = self.follow("POST", f"chats/{chat['id']}/messages", "POST message", body)
        if response is None:
            return
        performance = Performance(response.headers["x-turn-id"])
        self.room.announce(performance)
        answer = self.read(response, begun)
        stored = self.stored(chat["id"])
        performance.stored.set(stored)
        self.check(answer, stored, "turn, followed", time.perf_counter() - begun)


class Follower(Person):
    """Joins each turn of a room at some moment, and reads it to its end."""

    def on_start(self) -> None:
        """Enter a room."""
        self.room = next(_rooms_to_follow)
        self.sign_in(self.room.account)

    @task
    def join(self) -> None:
        """Follow the next turn."""
        if self.room.is_closed:
            return
        performance: Performance | None = self.room.next.get()
        if performance is None:
            return
        time.sleep(random.uniform(0, _JOIN_WITHIN_S))
        begun = time.perf_counter()
        response = self.follow("GET", f"turns/{performance.turn_id}/events", "GET events")
        if response is None:
            return
        answer = self.read(response, begun)
        done = time.perf_counter()
        performance.first_done = performance.first_done or done
        stored = performance.stored.get(timeout=_WITHIN_S)
        self.check(answer, stored, "done, after the first reader", done - performance.first_done)


class ToolCaller(Person):
    """Asks what takes a tool: one that runs in the workflow's worker, then one with a query."""

    wait_time = constant_pacing(2)

    @task
    def call(self) -> None:
        """Run a turn of two model calls with a tool between, in a new chat."""
        chat = self.ask("POST", "chats", "POST chat", {"title": "With a tool"})
        if chat is not None:
            tool, question = TOOL_QUESTIONS[next(_numbers) % len(TOOL_QUESTIONS)]
            self.converse(chat["id"], question, tool=tool)


class Chatter(Person):
    """Chats at a constant rate, LOAD_RATE for all users together; every fifth turn takes a tool."""

    def on_start(self) -> None:
        """Begin at some moment, without a chat."""
        super().on_start()
        self.turns = 0
        self.chat_id = ""
        self.turn_each_s = self.environment.parsed_options.num_users / RATE
        time.sleep(random.uniform(0, self.turn_each_s))

    def wait_time(self) -> float:
        """Wait so that all users together keep the rate."""
        return float(constant_pacing(self.turn_each_s)(self))

    @task
    def chat(self) -> None:
        """Run one turn, in a new chat now and then."""
        if self.turns % _TURNS_OF_A_CHAT == 0:
            chat = self.ask("POST", "chats", "POST chat", {"title": "Soaked"})
            self.chat_id = chat["id"] if chat else ""
        self.turns += 1
        if not self.chat_id:
            return
        if self.turns % _TURNS_OF_A_CHAT:
            self.converse(self.chat_id, PLAIN)
        else:
            tool, question = TOOL_QUESTIONS[0]
            self.converse(self.chat_id, question, tool=tool)
