"""Traces: off unless a collector is set, and never waited for."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace

import pytest
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from structlog.testing import capture_logs
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from activities.names import PREPARE_TURN
from schema.ids import ChatId, TurnId, UserId, new_id
from schema.turns import TurnReference
from tests.fixtures.collector import running_collector
from workers.tracing import is_tracing
from workers.tracing.spans import Tracing, TurnTrace, open_tracing
from workers.tracing.temporal import TraceInterceptor

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ENDPOINT, "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({ENDPOINT: ""}, False),
        ({ENDPOINT: NOWHERE}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": NOWHERE}, True),
        ({ENDPOINT: NOWHERE, "OTEL_SDK_DISABLED": "true"}, False),
        ({ENDPOINT: NOWHERE, "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_traces_are_on_where_a_collector_is_set(
    monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], *, expected: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert is_tracing() is expected


def test_processes_that_do_not_trace_load_neither_spans_nor_exporters() -> None:
    code = (
        "import sys, workers.api_process, workers.worker_process\n"
        "loaded = ('opentelemetry.sdk.trace', 'opentelemetry.exporter', 'workers.tracing.spans')\n"
        "print([name for name in loaded if name in sys.modules])"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ended.stdout == "[]\n"


def end_turn(tracing: Tracing, turn_id: TurnId, request: SpanContext | None = None) -> None:
    trace = tracing.of_turn(turn_id, request)
    for name in ("prepare", "chat m"):
        tracing.end_part(trace, name, {}, kind=SpanKind.INTERNAL, begun_ns=1, failed=False)
    tracing.end_turn(trace, "turn", {"everturn.turn.id": str(turn_id)}, begun_ns=1, failed=False)


async def test_nothing_waits_for_a_collector_that_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ENDPOINT, NOWHERE)

    with capture_logs() as logs:
        async with asyncio.timeout(20), open_tracing("test") as tracing:
            for _ in range(2_000):
                end_turn(tracing, TurnId(new_id()))

    assert [line["event"] for line in logs] in ([], ["traces_dropped"])


async def test_nothing_waits_for_a_collector_that_never_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{silent.getsockname()[1]}")

        # Less than the exporter's own timeout of 10 s.
        async with asyncio.timeout(8), open_tracing("test") as tracing:
            for _ in range(1_000):
                end_turn(tracing, TurnId(new_id()))

        connection, _ = silent.accept()
        with connection:
            assert connection.recv(4) == b"POST"


async def test_spans_that_wait_at_the_end_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_collector() as collector:
        monkeypatch.setenv(ENDPOINT, collector.url)
        turn_id = TurnId(new_id())

        async with open_tracing("test") as tracing:
            end_turn(tracing, turn_id)

    assert sorted(each.span.name for each in collector.received) == ["chat m", "prepare", "turn"]
    assert {each.span.trace_id for each in collector.received} == {turn_id.bytes}


@pytest.mark.parametrize("flags", [0, 1])
async def test_a_request_that_is_not_sampled_leaves_no_span_of_its_turn(
    monkeypatch: pytest.MonkeyPatch, flags: int
) -> None:
    async with running_collector() as collector:
        monkeypatch.setenv(ENDPOINT, collector.url)
        request = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(flags))

        async with open_tracing("test") as tracing:
            end_turn(tracing, TurnId(new_id()), request)

    assert len(collector.received) == 3 * flags


class Untraceable(Tracing):
    """Makes no span, whatever is asked for."""

    def __init__(self) -> None:
        """Need nothing."""

    def of_turn(self, turn_id: TurnId, request: SpanContext | None) -> TurnTrace:
        raise ZeroDivisionError


class Preparing(ActivityInboundInterceptor):
    """Stands for the activity."""

    def __init__(self) -> None:
        """Need nothing."""

    async def execute_activity(self, input: ExecuteActivityInput) -> str:  # noqa: A002 -- the SDK's name
        [turn] = input.args
        if turn.model == "fails":
            raise ApplicationError("no")
        return str(turn.model)


async def test_what_goes_wrong_with_a_span_is_not_the_problem_of_its_activity() -> None:
    inbound = TraceInterceptor(Untraceable()).intercept_activity(Preparing())
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, activity_type=PREPARE_TURN)

    async def prepare(model: str) -> str:
        turn = TurnReference(
            turn_id=TurnId(new_id()),
            chat_id=ChatId(new_id()),
            user_id=UserId(new_id()),
            model=model,
        )
        answered: str = await environment.run(
            inbound.execute_activity, ExecuteActivityInput(prepare, (turn,), None, {})
        )
        return answered

    with capture_logs() as logs:
        assert await prepare("works") == "works"
        with pytest.raises(ApplicationError, match=r"^no$"):
            await prepare("fails")

    assert [line["event"] for line in logs] == ["span_lost", "span_lost"]
