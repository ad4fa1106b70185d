"""Calls of the client: retries and their pauses, keys, tokens, errors, pages."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest

import everturn_client as everturn
from everturn_client.exchange import backoff_s

Answer = httpx2.Response | httpx2.RequestError
CHAT = {
    "version": 1,
    "id": "c-1",
    "title": "Rivers",
    "archived": False,
    "createdAt": "2026-01-31T09:00:00.000000Z",
    "updatedAt": "2026-01-31T09:00:00.000000Z",
}
USER = {
    "version": 1,
    "id": "u-1",
    "email": "ada@example.com",
    "displayName": None,
    "role": "user",
    "createdAt": "2026-01-31T09:00:00.000000Z",
    "updatedAt": "2026-01-31T09:00:00.000000Z",
}


def success(data: object, status: int = 200, **meta: object) -> httpx2.Response:
    return httpx2.Response(status, json={"data": data, "meta": {"requestId": "r-1", **meta}})


def failure(
    status: int, code: str = "X", *, headers: dict[str, str] | None = None, **fields: object
) -> httpx2.Response:
    error = {"code": code, "message": "Refused.", "retryable": False, "details": None, **fields}
    body = {"error": error, "meta": {"requestId": "r-9"}}
    return httpx2.Response(status, json=body, headers=headers)


def session(number: int) -> dict[str, object]:
    tokens = {"accessToken": f"access-{number}", "refreshToken": f"refresh-{number}"}
    return {**tokens, "tokenType": "bearer", "expiresIn": 900, "user": USER}


class Wire:
    """Answers requests in order, and keeps them."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[httpx2.Request] = []

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, httpx2.RequestError):
            raise answer
        return answer

    def client(self, **options: Any) -> everturn.Everturn:  # noqa: ANN401
        http = httpx2.Client(transport=httpx2.MockTransport(self.answer))
        return everturn.Everturn("http://h", http_client=http, **options)

    def async_client(self, **options: Any) -> everturn.AsyncEverturn:  # noqa: ANN401
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(self.answer))
        return everturn.AsyncEverturn("http://h", http_client=http, **options)

    @property
    def seen(self) -> list[str]:
        return [f"{request.method} {request.url.path}" for request in self.requests]

    def header(self, name: str) -> list[str | None]:
        return [request.headers.get(name) for request in self.requests]

    def body(self, number: int = -1) -> Any:  # noqa: ANN401
        return json.loads(self.requests[number].content)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The client's pauses in seconds, without jitter."""
    waited: list[float] = []

    async def note(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("everturn_client.runners.time.sleep", waited.append)
    monkeypatch.setattr("everturn_client.runners.asyncio.sleep", note)
    monkeypatch.setattr("everturn_client.exchange.random.random", lambda: 0.0)
    monkeypatch.delenv("EVERTURN_API_KEY", raising=False)
    return waited


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


def test_signing_in_keeps_the_tokens_and_signing_out_forgets_them() -> None:
    wire = Wire(success(session(1)), success(USER), httpx2.Response(204), success(USER))
    client = wire.client()

    signed_in = client.auth.login(email="ada@example.com", password="secret")
    client.auth.me()
    client.auth.logout(refresh_token=signed_in.refresh_token)
    client.auth.me()

    assert wire.body(0) == {"email": "ada@example.com", "password": "secret"}
    assert wire.header("Authorization") == [None, "Bearer access-1", "Bearer access-1", None]
    assert "access-1" not in repr(signed_in)


def test_an_expired_token_is_refreshed_and_the_request_sent_again() -> None:
    wire = Wire(
        success(session(1)), failure(401), success(session(2)), success(CHAT, 201), success(CHAT)
    )
    client = wire.client()
    client.auth.login(email="ada@example.com", password="secret")

    client.chats.create(title="Rivers")
    client.chats.get("c-1")

    assert wire.seen[1:4] == [
        "POST /api/v1/chats",
        "POST /api/v1/auth/refresh",
        "POST /api/v1/chats",
    ]
    assert wire.body(2) == {"refreshToken": "refresh-1"}
    assert wire.header("Authorization")[3:] == ["Bearer access-2", "Bearer access-2"]
    assert wire.header("Idempotency-Key")[1] == wire.header("Idempotency-Key")[3]


def test_a_rejected_refresh_ends_the_session() -> None:
    wire = Wire(success(session(1)), failure(401), failure(401), success(USER))
    client = wire.client()
    client.auth.login(email="ada@example.com", password="secret")

    with pytest.raises(everturn.SessionExpiredError, match="Sign in again"):
        client.auth.me()

    client.auth.me()
    assert wire.header("Authorization")[-1] is None


def test_a_refresh_that_may_have_arrived_is_not_sent_again() -> None:
    wire = Wire(success(session(1)), failure(401), httpx2.ReadError("cut"))
    client = wire.client()
    client.auth.login(email="ada@example.com", password="secret")

    with pytest.raises(everturn.APIConnectionError):
        client.auth.me()

    assert len(wire.requests) == 3


def test_a_token_alone_is_not_refreshed() -> None:
    wire = Wire(failure(401))

    with pytest.raises(everturn.AuthenticationError) as caught:
        wire.client(token="t").auth.me()

    assert not isinstance(caught.value, everturn.SessionExpiredError)
    assert len(wire.requests) == 1


async def test_requests_at_the_same_time_refresh_an_expired_token_once() -> None:
    refreshed = 0

    async def answer(request: httpx2.Request) -> httpx2.Response:
        nonlocal refreshed
        if request.url.path.endswith("/auth/login"):
            return success(session(1))
        if request.url.path.endswith("/auth/refresh"):
            refreshed += 1
            return success(session(2))
        stale = request.headers["Authorization"] == "Bearer access-1"
        return failure(401) if stale else success(USER)

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    async with everturn.AsyncEverturn("http://h", http_client=http) as client:
        await client.auth.login(email="ada@example.com", password="secret")
        await asyncio.gather(*(client.auth.me() for _ in range(5)))

    assert refreshed == 1


def test_fields_that_are_left_out_are_not_sent_and_none_is_null() -> None:
    wire = Wire(success(USER), success(USER))
    client = wire.client()

    client.users.update(display_name=None)
    client.users.update(new_password="new", current_password="old")

    assert wire.body(0) == {"displayName": None}
    assert wire.body(1) == {"newPassword": "new", "currentPassword": "old"}


def test_money_and_times_are_sent_as_the_api_reads_them() -> None:
    assigned = {
        "version": 1,
        "userId": "u-1",
        "planId": "p-1",
        "startedAt": "2026-01-31T09:00:00Z",
        "updatedAt": "2026-01-31T09:00:00Z",
    }
    wire = Wire(success(assigned))

    wire.client().admin.users.assign_plan(
        "u-1", "p-1", started_at=datetime(2026, 1, 31, 9, tzinfo=UTC)
    )

    assert wire.requests[0].method == "PUT"
    assert wire.body() == {"planId": "p-1", "startedAt": "2026-01-31T09:00:00Z"}
    plan = {
        "version": 1,
        "id": "p-1",
        "name": "Team",
        "description": "",
        "isDefault": False,
        "active": True,
        "createdAt": assigned["startedAt"],
        "updatedAt": assigned["startedAt"],
        "entitlements": {"budgetUsd": "5", "maxMemories": 7},
    }
    wire = Wire(success(plan))
    changed = wire.client().admin.plans.update(
        "p-1", entitlements={"budgetUsd": Decimal("5.10")}, is_default=True
    )
    assert wire.body() == {"entitlements": {"budgetUsd": "5.10"}, "isDefault": True}
    assert changed.entitlements.budget_usd == Decimal(5)


def test_a_file_is_sent_as_a_form_and_an_export_is_returned_unchanged() -> None:
    document = {
        "version": 1,
        "id": "d-1",
        "title": "notes",
        "status": "draft",
        "own": True,
        "contentType": "text/plain",
        "latestVersion": 1,
        "publishedVersion": None,
        "ingestion": {
            "status": "pending",
            "problem": None,
            "passageCount": 0,
            "embeddedCount": 0,
        },
        "createdAt": CHAT["createdAt"],
        "updatedAt": CHAT["createdAt"],
    }
    wire = Wire(success(document, 201), httpx2.Response(200, content=b'{"user": 1}'))
    client = wire.client()

    client.knowledge.upload(b"Hello", filename="notes.txt", content_type="text/plain")
    exported = client.users.export()

    sent = wire.requests[0]
    assert sent.headers["Content-Type"].startswith("multipart/form-data")
    assert b'filename="notes.txt"' in sent.content
    assert b"Hello" in sent.content
    assert exported == b'{"user": 1}'


def test_a_response_may_take_as_long_as_the_timeout() -> None:
    wire = Wire(success(CHAT), success(CHAT))

    wire.client().chats.get("c-1")
    wire.client(timeout_s=3).chats.get("c-1")

    timeouts = [request.extensions["timeout"] for request in wire.requests]
    assert [(each["connect"], each["read"]) for each in timeouts] == [(10.0, 90.0), (3, 3)]


def test_a_request_without_a_dedicated_method_can_be_sent() -> None:
    wire = Wire(success([{"id": "m"}]))

    assert wire.client().request("GET", "/models", query={"limit": 1}) == [{"id": "m"}]
    assert wire.seen == ["GET /api/v1/models"]


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://h:9000/", "http://h:9000"),
        ("https://h/api/v1", "https://h"),
        (None, "http://127.0.0.1:8000"),
    ],
)
def test_the_base_is_the_origin(
    given: str | None, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVERTURN_URL", raising=False)
    with everturn.Everturn(given) as client:
        assert client.base_url == url


@pytest.mark.parametrize("given", ["h", "ftp://h", "http://", "http://h:x"])
def test_an_invalid_url_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="Invalid URL"):
        everturn.Everturn(given)


def test_both_clients_have_the_same_methods() -> None:
    def methods(group: object, depth: int = 0) -> set[str]:
        names = {name for name in dir(group) if not name.startswith("_")}
        if depth == 2:
            return names
        nested: set[str] = set()
        for name in names - {"request", "close", "base_url"}:
            nested |= {f"{name}.{inner}" for inner in methods(getattr(group, name), depth + 1)}
        return names | nested

    blocking, awaiting = Wire().client(), Wire().async_client()
    assert methods(blocking) == methods(awaiting)
    build: Callable[..., object] = blocking.chats.create
    assert build.__doc__ == "Create a chat."
