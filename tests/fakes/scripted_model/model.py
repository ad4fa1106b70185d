"""The scripted model as a test holds it: scripts go in, requests come out."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

from tests.fakes.scripted_model.answers import scripted_answer
from tests.fakes.scripted_model.caching import PrefixCache
from tests.fakes.scripted_model.counting import Counting
from tests.fakes.scripted_model.playback import Pace, Playback
from tests.fakes.scripted_model.raw_answers import RawAnswer, RawPlayback
from tests.fakes.scripted_model.request_log import RequestLog, RequestRecord
from tests.fakes.scripted_model.scripts import NO_SCRIPT, Script, ScriptQueue
from workers.demo_model.prompt import JsonObject, read_prompt


class ScriptedModel:
    """The state behind one server: scripts, gates and the log of requests.

    Units: the delays are seconds and count where a script names none of its own. `join_events`
    sends together what no delay separates; by default each delta is a write of its own. Only the
    newest `keep_requests` are remembered. With a `cache`, usage says what it has read and written.
    """

    def __init__(
        self,
        *,
        delay_to_first_s: float = 0.0,
        delay_between_s: float = 0.0,
        join_events: bool = False,
        keep_requests: int = 1_000,
    ) -> None:
        self._pace = Pace(delay_to_first_s, delay_between_s, join_events)
        self._scripts = ScriptQueue()
        self._raw: list[RawAnswer] = []
        self._gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._log = RequestLog(keep=keep_requests)
        self.counting = Counting()
        self.cache: PrefixCache | None = None

    @property
    def requests(self) -> list[RequestRecord]:
        """The requests for messages, oldest first; refused ones are among them."""
        return self._log.matching()

    @property
    def unused_scripts(self) -> int:
        """How many answers are queued that no request has asked for."""
        return len(self._scripts)

    def add(self, script: Script) -> None:
        """Queue a script for the next request that it matches."""
        self._scripts.add(script)

    def add_raw(self, answer: RawAnswer) -> None:
        """Queue bytes for the next requests that they match, before all scripts."""
        self._raw += [answer] * answer.repeat

    def clear_scripts(self) -> None:
        """Forget the scripts and raw answers that no request has used."""
        self._scripts.clear()
        self._raw.clear()

    def release(self, name: str) -> None:
        """Open a gate, for the streams that wait at it and for those that get there later."""
        self._gates[name].set()

    def requests_matching(self, match: str, *, ended: bool = False) -> list[RequestRecord]:
        """Return the requests whose newest user text contains `match`, or of them the ended."""
        return self._log.matching(match, ended=ended)

    async def wait_for_request(
        self, n: int = 1, timeout_s: float = 10.0, *, match: str = "", ended: bool = False
    ) -> RequestRecord:
        """Return the n-th request that matches, counted from one, as soon as it is there.

        With `ended` only requests count to which nothing more will be sent.
        Errors: TimeoutError.
        """
        await self._log.wait_until(
            lambda: len(self._log.matching(match, ended=ended)) >= n, timeout_s=timeout_s
        )
        return self._log.matching(match, ended=ended)[n - 1]

    async def wait_until(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Return as soon as the condition holds, asked again whenever a request changes.

        Errors: TimeoutError.
        """
        await self._log.wait_until(condition, timeout_s=timeout_s)

    def open_record(self, received_at: float) -> RequestRecord:
        """Return the record of a request that came in, in the log from now on."""
        return self._log.open(received_at)

    def answer(self, body: JsonObject, record: RequestRecord) -> Playback | RawPlayback:
        """Return the response to a valid request, by the first script that matches."""
        prompt = replace(read_prompt(body), input_tokens=self.counting.count(body))
        cached = None if self.cache is None else self.cache.take(body)
        record.identify(body, user_text=prompt.user_text)
        for raw in self._raw:
            if raw.match in prompt.user_text:
                self._raw.remove(raw)
                return RawPlayback(raw, record)
        script = self._scripts.take(prompt.user_text) or NO_SCRIPT
        return Playback(
            answer=scripted_answer(prompt, script, cached),
            script=script,
            record=record,
            pace=self._pace.overridden_by(script),
            gate=self._gates.__getitem__,
            streaming=bool(body.get("stream")),
        )
