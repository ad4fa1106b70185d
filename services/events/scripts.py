"""Lua scripts whose runs are sent together: a process appends to hundreds of streams at a time.

A command of its own for each append costs the process five times what Redis does for it.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Final, NamedTuple, TypeAlias

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError

_MOST_AT_ONCE: Final = 100

Argument: TypeAlias = str | int


class _Run(NamedTuple):
    """A run that waits, or is under way: its number of keys, keys and arguments, and its answer."""

    arguments: Sequence[Argument]
    answer: "asyncio.Future[object]"


class Script:
    """A script in the folder of this package.

    What comes while Redis answers others is sent next, in one go; a run alone is sent at once.
    Errors: those of Redis.
    """

    def __init__(self, redis: Redis, file: str) -> None:
        self._redis = redis
        self._text = files("services.events").joinpath(file).read_text()
        self._sha = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()
        self._waiting: list[_Run] = []
        self._sending: asyncio.Task[None] | None = None

    async def run(self, keys: Sequence[str], arguments: Sequence[Argument]) -> object:
        """Return what the script answers.

        Once more where the connection was closed while nobody used it. After a restart of Redis all
        idle connections are: without this, the text of the next turns would be missing in their
        streams. Had the script run all the same, the repetition would do no harm: a step that is
        sent again clears its text, and the rest is appended once.
        """
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Run((len(keys), *keys, *arguments), answer))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_waiting())
        return await answer

    async def _send_waiting(self) -> None:
        while self._waiting:
            runs, self._waiting = self._waiting[:_MOST_AT_ONCE], self._waiting[_MOST_AT_ONCE:]
            try:
                answers = await self._send(runs)
            except Exception as error:  # noqa: BLE001 -- whatever it is, it is the callers'
                answers = [error] * len(runs)
            for run, answer in zip(runs, answers, strict=True):
                if run.answer.done():  # its caller was cancelled
                    continue
                if isinstance(answer, Exception):
                    run.answer.set_exception(answer)
                else:
                    run.answer.set_result(answer)

    async def _send(self, runs: Sequence[_Run]) -> list[object]:
        try:
            answers = await self._execute(runs)
        except RedisConnectionError:
            await self._redis.connection_pool.disconnect(inuse_connections=False)
            answers = await self._execute(runs)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            # It ran for none of them: Redis was restarted, or has never seen it.
            await self._redis.script_load(self._text)
            answers = await self._execute(runs)
        return answers

    async def _execute(self, runs: Sequence[_Run]) -> list[object]:
        pipeline = self._redis.pipeline(transaction=False)
        for run in runs:
            pipeline.execute_command("EVALSHA", self._sha, *run.arguments)
        answers: list[object] = await pipeline.execute(raise_on_error=False)
        return answers
