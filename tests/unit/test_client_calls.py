"""Calls of the client: retries and their pauses, keys, tokens, errors, pages."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest

import everturn_client as everturn
from everturn_client.exchange import backoff_s
from tests.fixtures.client_wire import CHAT, Wire, failure, noted_pauses, success


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The client's pauses in seconds: none is waited for."""
    return noted_pauses(monkeypatch)


def test_a_resource_is_typed_and_keeps_fields_that_a_newer_server_adds() -> None:
    chat = Wire(success({**CHAT, "mood": "fine"})).client().chats.get("c-1")

    assert (chat.title, chat.created_at) == ("Rivers", datetime(2026, 1, 31, 9, tzinfo=UTC))
    assert chat.model_extra == {"mood": "fine"}


def test_requests_carry_the_api_key_below_the_base() -> None:
    wire = Wire(success(CHAT))

    wire.client(api_key="key-1").chats.get("a/b")

    assert wire.header("Authorization") == ["Bearer key-1"]
    assert str(wire.requests[0].url) == "http://h/api/v1/chats/a%2Fb"


@pytest.mark.parametrize("identifier", ["", ".", ".."])
def test_an_identifier_that_would_change_the_path_is_refused(identifier: str) -> None:
    with pytest.raises(ValueError, match="Invalid identifier"):
        Wire().client().chats.get(identifier)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_transient_failures_are_retried_with_the_same_idempotency_key(
    status: int, pauses: list[float]
) -> None:
    wire = Wire(failure(status), httpx2.ReadError("cut"), success(CHAT, 201))

    assert wire.client().chats.create(title="Rivers").id == "c-1"

    first, second, third = wire.header("Idempotency-Key")
    assert first
    assert first == second == third
    assert pauses == [0.5, 1.0]


def test_each_creation_gets_its_own_key_unless_one_is_given() -> None:
    wire = Wire(*(success(CHAT, 201) for _ in range(3)))
    client = wire.client()

    client.chats.create(title="A chat")
    client.chats.create(title="A chat")
    client.chats.create(title="A chat", idempotency_key="mine")

    first, second, third = wire.header("Idempotency-Key")
    assert first != second
    assert third == "mine"


def test_pauses_double_up_to_eight_seconds_and_jitter_shortens_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [backoff_s(attempt) for attempt in (0, 1, 2, 3, 4, 5, 900)] == [
        *(0.5, 1.0, 2.0, 4.0),
        *(8.0, 8.0, 8.0),
    ]
    monkeypatch.setattr("everturn_client.exchange.random.random", lambda: 1.0)
    assert backoff_s(0) == 0.375


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 412, 413])
def test_permanent_failures_are_raised_at_once(status: int, pauses: list[float]) -> None:
    wire = Wire(failure(status))

    with pytest.raises(everturn.APIStatusError):
        wire.client().chats.create(title="A chat")

    assert (len(wire.requests), pauses) == (1, [])


def test_retries_end(pauses: list[float]) -> None:
    wire = Wire(*(failure(503) for _ in range(3)))

    with pytest.raises(everturn.ServiceUnavailableError):
        wire.client().chats.get("c-1")
    with pytest.raises(everturn.APIConnectionError, match="Can't reach http://h: refused"):
        Wire(httpx2.ConnectError("refused")).client(max_retries=0).chats.get("c-1")
    with pytest.raises(everturn.APITimeoutError):
        Wire(httpx2.ReadTimeout("")).client(max_retries=0).chats.get("c-1")

    assert pauses == [0.5, 1.0]


def test_a_retry_after_in_seconds_is_waited_for(pauses: list[float]) -> None:
    Wire(failure(429, headers={"Retry-After": "7"}), success(CHAT)).client().chats.get("c-1")

    assert pauses == [7.0]


def test_a_retry_after_as_a_date_is_waited_for(pauses: list[float]) -> None:
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    wire = Wire(
        failure(503, headers={"Retry-After": then}),
        failure(503, headers={"Retry-After": past}),
        success(CHAT),
    )

    wire.client().chats.get("c-1")

    assert 25 < pauses[0] <= 30
    assert pauses[1] == 0.0


@pytest.mark.parametrize("value", ["soon", "", "-1", "1e3"])
def test_an_unreadable_retry_after_is_ignored(value: str, pauses: list[float]) -> None:
    headers = {"Retry-After": value}

    Wire(failure(503, headers=headers), success(CHAT)).client().chats.get("c-1")

    assert pauses == [0.5]


def test_a_retry_after_that_is_too_long_is_left_to_the_caller(pauses: list[float]) -> None:
    wire = Wire(failure(429, "RATE_LIMITED", headers={"Retry-After": "3600"}))

    with pytest.raises(everturn.RateLimitError) as caught:
        wire.client().chats.get("c-1")

    assert caught.value.retry_after_s == 3600
    assert pauses == []


def test_a_request_that_may_have_arrived_is_repeated_only_where_that_is_safe(
    pauses: list[float],
) -> None:
    wire = Wire(httpx2.ReadError("cut"))
    with pytest.raises(everturn.APIConnectionError):
        wire.client().admin.tools.test("mail", {})
    wire = Wire(httpx2.ReadError("cut"))
    with pytest.raises(everturn.APIConnectionError):
        wire.client().chats.update("c-1", title="x", if_version=3)
    assert wire.header("If-Match") == ['"3"']

    tested = {"output": "42", "isError": False, "durationMs": 3}
    wire = Wire(httpx2.ConnectError("refused"), failure(503), success(tested))
    assert wire.client().admin.tools.test("mail", {}).output == "42"
    assert len(pauses) == 2


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "VALIDATION_ERROR", everturn.BadRequestError),
        (401, "UNAUTHENTICATED", everturn.AuthenticationError),
        (402, "BUDGET_EXCEEDED", everturn.BudgetExceededError),
        (403, "FORBIDDEN", everturn.PermissionDeniedError),
        (404, "NOT_FOUND", everturn.NotFoundError),
        (409, "CONFLICT", everturn.ConflictError),
        (409, "TURN_IN_PROGRESS", everturn.TurnInProgressError),
        (409, "IDEMPOTENCY_CONFLICT", everturn.IdempotencyConflictError),
        (412, "PRECONDITION_FAILED", everturn.PreconditionFailedError),
        (413, "PAYLOAD_TOO_LARGE", everturn.PayloadTooLargeError),
        (429, "RATE_LIMITED", everturn.RateLimitError),
        (500, "INTERNAL", everturn.ServerError),
        (502, "MODEL_REJECTED", everturn.ModelRejectedError),
        (502, "MODEL_UNAVAILABLE", everturn.ModelUnavailableError),
        (503, "SERVICE_UNAVAILABLE", everturn.ServiceUnavailableError),
        (418, "TEAPOT", everturn.APIStatusError),
    ],
)
def test_errors_have_a_class_for_each_status_and_code(
    status: int, code: str, kind: type[everturn.APIStatusError]
) -> None:
    details = [{"path": "body.title", "message": "Too long."}]
    wire = Wire(failure(status, code, details=details, retryable=True, turnId="t-1"))

    with pytest.raises(everturn.APIStatusError) as caught:
        wire.client(max_retries=0).chats.get("c-1")

    error = caught.value
    assert type(error) is kind
    assert (error.status_code, error.code, error.message) == (status, code, "Refused.")
    assert (error.details, error.retryable, error.request_id) == (details, True, "r-9")
    assert error.turn_id == "t-1"
    assert str(error) == f"Refused: body.title: Too long. ({code})"


def test_a_message_that_names_its_fields_is_not_repeated() -> None:
    details = [{"path": "body.title", "message": "Too long."}]
    answer = failure(400, "VALIDATION_ERROR", message="body.title: Too long.", details=details)

    with pytest.raises(everturn.BadRequestError) as caught:
        Wire(answer).client().chats.get("c-1")

    assert str(caught.value) == "body.title: Too long. (VALIDATION_ERROR)"


def test_an_error_of_something_between_has_a_code_of_its_status() -> None:
    headers = {"X-Request-Id": "r-2"}
    wire = Wire(httpx2.Response(504, text="<html>", headers=headers))

    with pytest.raises(everturn.ServerError) as caught:
        wire.client(max_retries=0).chats.get("c-1")

    assert (caught.value.code, caught.value.request_id) == ("HTTP_504", "r-2")
    assert caught.value.retryable


@pytest.mark.parametrize("body", [{}, {"data": {"id": 7}}, []])
def test_a_response_of_another_shape_is_named_as_such(body: object) -> None:
    with pytest.raises(everturn.UnexpectedResponseError, match="can't read"):
        Wire(httpx2.Response(200, json=body)).client().chats.get("c-1")
    with pytest.raises(everturn.UnexpectedResponseError):
        Wire(httpx2.Response(200, text="Welcome!")).client().chats.get("c-1")
    with pytest.raises(everturn.UnexpectedResponseError):
        list(Wire(success([{"id": 7}])).client().chats.list())


def test_a_list_iterates_over_all_its_pages() -> None:
    wire = Wire(
        success([CHAT, {**CHAT, "id": "c-2"}], nextCursor="after-2"),
        success([{**CHAT, "id": "c-3"}], nextCursor=None),
    )

    found = [chat.id for chat in wire.client().chats.list(archived=False, limit=2)]

    assert found == ["c-1", "c-2", "c-3"]
    queries = [dict(request.url.params) for request in wire.requests]
    assert queries == [
        {"archived": "false", "limit": "2"},
        {"archived": "false", "limit": "2", "cursor": "after-2"},
    ]


def test_the_first_items_of_a_list_need_no_more_pages_than_they_are_on() -> None:
    wire = Wire(success([CHAT, {**CHAT, "id": "c-2"}], nextCursor="after-2"))

    assert [chat.id for chat in wire.client().chats.list().first(2)] == ["c-1", "c-2"]
    assert dict(wire.requests[0].url.params) == {"limit": "2"}


def test_pages_can_be_read_one_by_one() -> None:
    wire = Wire(success([CHAT], nextCursor="next"), success([CHAT]))

    pages = list(wire.client().chats.list().pages())

    assert [(len(page.data), page.next_cursor) for page in pages] == [(1, "next"), (1, None)]


async def test_the_async_client_does_the_same(pauses: list[float]) -> None:
    wire = Wire(
        failure(503),
        success(CHAT, 201),
        success([CHAT], nextCursor="next"),
        success([CHAT]),
        success([CHAT]),
    )
    async with wire.async_client() as client:
        created = await client.chats.create(title="Rivers")
        listed = [chat.id async for chat in client.chats.list()]
        first = await client.chats.list().first(5)

    assert created.id == "c-1"
    assert listed == ["c-1", "c-1"]
    assert len(first) == 1
    assert pauses == [0.5]
