"""How an answer's connection behaves at its edges, without a socket."""

import pytest
from starlette.types import Message

from tests.fakes.scripted_model.connection import AnswerEndedError, Connection
from tests.fakes.scripted_model.request_log import RequestLog, RequestRecord


async def leave() -> Message:
    return {"type": "http.disconnect"}


async def ignore(_: Message) -> None:
    pass


def connection_of(record: RequestRecord) -> Connection:
    return Connection({"type": "http"}, leave, ignore, record=record, join_events=False)


async def test_a_client_found_gone_without_a_wait_is_noted() -> None:
    record = RequestLog(keep=1).open(0.0)

    async with connection_of(record) as connection:
        with pytest.raises(AnswerEndedError):
            await connection.wait(0)

    assert record.ended
    assert record.disconnected_at is not None


async def test_a_server_that_cannot_truncate_raises_an_error() -> None:
    record = RequestLog(keep=1).open(0.0)

    async with connection_of(record) as connection:
        with pytest.raises(ConnectionAbortedError):
            await connection.cut()


def test_a_full_log_forgets_the_oldest_request() -> None:
    log = RequestLog(keep=2)

    records = [log.open(float(number)) for number in range(3)]

    assert log.matching() == records[1:]
    assert [record.sequence for record in records] == [1, 2, 3]
