"""The load: HTTP/1.1 and SSE over bare sockets, in a separate process.

A full HTTP client costs more CPU per event than the servers that are measured. Run as a program it
takes jobs as lines of JSON on standard input and answers each with a line: what `Sample` has.
"""

import asyncio
import json
import random
import re
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median, quantiles
from typing import Any, Final, Self, TextIO

import uvloop

_LINE_LIMIT = 64 * 1024 * 1024
_LOOPBACK = "127.0.0.1"
_SEED = 7
_OPENED_AT_ONCE = 50


STAMP: Final = re.compile(rb"(\d{16}) ")
"""A token of the benchmark's model: when it was sent. Units: microseconds of `perf_counter`."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request to loopback; with `token` as a bearer, with `body` as JSON."""

    port: int
    path: str
    method: str = "GET"
    token: str = ""
    body: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """How one request went. Units: seconds of the monotonic clock, which processes share.

    `first` is when the first `delta` of a stream came, `delays_ms` how long each token of the
    benchmark's model was under way, `data` the `data` of a JSON answer.
    """

    status: int
    began: float
    first: float | None
    ended: float
    turn_id: str
    completed: bool
    delays_ms: list[float] = field(default_factory=list)
    data: Any = None

    @property
    def first_ms(self) -> float:
        """Milliseconds to the first token."""
        if self.first is None:
            raise ValueError("no token ever came")
        return 1000 * (self.first - self.began)

    @property
    def whole_ms(self) -> float:
        """Milliseconds to the end of the answer."""
        return 1000 * (self.ended - self.began)


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and 95th percentile. Units: milliseconds."""

    p50: float
    p95: float


def spread(milliseconds: Iterable[float]) -> Spread:
    """Return the median and the 95th percentile of at least two values."""
    values = sorted(milliseconds)
    return Spread(median(values), quantiles(values, n=20, method="inclusive")[-1])


def per_second(batches: Iterable[Sequence[Sample]]) -> float:
    """Return the rate over batches that were measured one after the other."""
    taken_s, count = 0.0, 0
    for batch in batches:
        taken_s += max(sample.ended for sample in batch) - min(sample.began for sample in batch)
        count += len(batch)
    return count / taken_s


class LoadClient:
    """The client's process, as the bench holds it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls) -> Self:
        """Start the process."""
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.load.client",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_LINE_LIMIT,
            )
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def run(
        self, requests: Sequence[Request], *, concurrency: int, spread_s: float = 0
    ) -> list[Sample]:
        """Send the requests over `concurrency` connections; each waits for its answer's end.

        Shapes: one sample for each request, in the same order.
        The connections begin at random moments within `spread_s`.
        Errors: RuntimeError for an unsuccessful response.
        """
        return await self._do("run", requests, concurrency=concurrency, spread_s=spread_s)

    async def open(self, requests: Sequence[Request]) -> list[Sample]:
        """Open streams; return once each has had its first token. They stay open."""
        return await self._do("open", requests)

    async def wait(self) -> list[Sample]:
        """Read all open streams to their ends."""
        return await self._do("wait", ())

    async def stop(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()

    async def kill(self) -> None:
        """End the process, whatever it waits for."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def _do(self, name: str, requests: Sequence[Request], **options: object) -> list[Sample]:
        job = {"do": name, "requests": [asdict(request) for request in requests], **options}
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the client has no pipes")
        stdin.write(json.dumps(job).encode() + b"\n")
        await stdin.drain()
        answer = await stdout.readline()
        if not answer:
            raise RuntimeError("the load client has ended")
        samples = [Sample(**sample) for sample in json.loads(answer)]
        for sample in samples:
            if not (200 <= sample.status < 300 and sample.completed):
                raise RuntimeError(f"a request failed: {sample}")
        return samples


class Connection:
    """One connection, kept alive over requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._began = 0.0
        self._first: float | None = None
        self._head = b""
        self._completed = False
        self._delays_ms: list[float] = []

    @classmethod
    async def to(cls, port: int) -> Self:
        """Connect."""
        return cls(*await asyncio.open_connection(_LOOPBACK, port))

    def close(self) -> None:
        """Close it."""
        self._writer.close()

    async def send(self, request: Request) -> Sample:
        """Send a request and read its answer whole."""
        await self.begin(request)
        return await self.finish()

    async def begin(self, request: Request) -> None:
        """Send a request and read the head of its answer."""
        self._first, self._completed, self._delays_ms = None, False, []
        self._began = time.perf_counter()
        self._writer.write(_wire(request))
        self._head = (await self._reader.readuntil(b"\r\n\r\n")).lower()

    async def until_first(self) -> Sample:
        """Read up to the first token."""
        async for _ in self._chunks():
            if self._first is not None:
                break
        return self._sample(completed=self._first is not None)

    async def finish(self) -> Sample:
        """Read the answer to its end."""
        if b"transfer-encoding: chunked" not in self._head:
            body = await self._reader.readexactly(int(_header(self._head, b"content-length")))
            return self._sample(completed=True, body=body)
        async for _ in self._chunks():
            pass
        return self._sample(completed=self._completed)

    def _sample(self, *, completed: bool, body: bytes | None = None) -> Sample:
        return Sample(
            status=int(self._head[9:12]),
            began=self._began,
            first=self._first,
            ended=time.perf_counter(),
            turn_id=_header(self._head, b"x-turn-id").decode(),
            completed=completed,
            delays_ms=self._delays_ms,
            data=body,  # whose `data` is read once nothing is measured
        )

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            chunk = (await self._reader.readexactly(size + 2))[:-2]
            if not size:
                return
            self._read(chunk, time.perf_counter())
            yield chunk

    def _read(self, chunk: bytes, now: float) -> None:
        """Note what a chunk of events says; one may hold the first token and the end."""
        if b"event: delta" in chunk:
            if self._first is None:
                self._first = now
            # `done` repeats the whole text.
            tokens = chunk.partition(b"event: done")[0]
            self._delays_ms += [1000 * now - int(sent) / 1000 for sent in STAMP.findall(tokens)]
        if b"event: done" in chunk:
            self._completed = b'"status":"completed"' in chunk.replace(b": ", b":")


def _wire(request: Request) -> bytes:
    body = b"" if request.body is None else json.dumps(request.body).encode()
    return (
        f"{request.method} {request.path} HTTP/1.1\r\nHost: {_LOOPBACK}\r\n"
        f"Authorization: Bearer {request.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def _header(head: bytes, name: bytes) -> bytes:
    _, found, rest = head.partition(b"\r\n" + name + b":")
    return rest.split(b"\r\n", 1)[0].strip() if found else b""


class Jobs:
    """The work of the client's process for each line."""

    def __init__(self) -> None:
        self._open: list[Connection] = []

    async def do(self, job: dict[str, Any]) -> list[Sample]:
        """Do one job."""
        requests = [Request(**request) for request in job["requests"]]
        if job["do"] == "run":
            return await _run(requests, job["concurrency"], job["spread_s"])
        if job["do"] == "open":
            return await self._open_streams(requests)
        opened, self._open = self._open, []
        samples = await asyncio.gather(*(connection.finish() for connection in opened))
        for connection in opened:
            connection.close()
        return samples

    async def _open_streams(self, requests: Sequence[Request]) -> list[Sample]:
        gate = asyncio.Semaphore(_OPENED_AT_ONCE)

        async def open_one(request: Request) -> Sample:
            async with gate:
                connection = await Connection.to(request.port)
                self._open.append(connection)
                await connection.begin(request)
                return await connection.until_first()

        return await asyncio.gather(*map(open_one, requests))


async def _run(requests: Sequence[Request], concurrency: int, spread_s: float) -> list[Sample]:
    waiting = iter(enumerate(requests))
    samples: dict[int, Sample] = {}
    phases = random.Random(_SEED)  # the same moments for every side

    async def work(delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        connection: Connection | None = None
        for place, request in waiting:
            if connection is None:
                connection = await Connection.to(request.port)
            samples[place] = await connection.send(request)
        if connection is not None:
            connection.close()

    await asyncio.gather(*(work(phases.uniform(0, spread_s)) for _ in range(concurrency)))
    return [samples[place] for place in range(len(requests))]


def _reported(sample: Sample) -> dict[str, Any]:
    """Read the response's body only now: earlier it would distort the measurement."""
    reported = asdict(sample)
    if sample.data is not None:
        reported["data"] = json.loads(sample.data).get("data")
    return reported


def _main(lines: TextIO, answers: TextIO) -> None:
    jobs = Jobs()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in lines:
            samples = runner.run(jobs.do(json.loads(line)))
            answers.write(json.dumps([_reported(sample) for sample in samples]) + "\n")
            answers.flush()


if __name__ == "__main__":
    _main(sys.stdin, sys.stdout)
