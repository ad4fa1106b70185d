"""Embedders of providers against a server on loopback that speaks their wires."""

import asyncio
import math
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from services.embeddings import (
    Embedder,
    EmbeddingAnswerError,
    EmbeddingError,
    EmbeddingRefusedError,
    EmbeddingUnavailableError,
    Purpose,
    make_embedder,
)
from services.embeddings.endpoint import EmbeddingEndpoint
from services.embeddings.selection import EmbedderKind
from tests.fakes import raw_server
from tests.fakes.embedding_api import (
    KEY,
    OWN_DIMENSIONS,
    Answer,
    EmbeddingApi,
    breaking_off,
    changed,
    dribbling,
    endlessly,
    never,
    repeating_the_request,
    saying,
    serving,
    shuffled,
    vector_of,
    with_vector,
)
from tests.fakes.raw_server import answered, serving_raw

WORDS = "a person's own words"
SHORT_S = 0.3


def provider(kind: EmbedderKind, origin: str, *, timeout_s: float = 30.0) -> Embedder:
    return make_embedder(
        kind,
        model="scripted",
        base_url=origin if kind == "voyage" else f"{origin}/compatible/",
        dimensions=OWN_DIMENSIONS,
        voyage_api_key=KEY,
        openai_api_key=KEY,
        timeout_s=timeout_s,
    )


def unit_vector_of(text: str, dimensions: int = OWN_DIMENSIONS) -> list[float]:
    numbers = vector_of(text, dimensions)
    return [number / math.hypot(*numbers) for number in numbers]


@pytest.fixture(scope="module")
def api() -> EmbeddingApi:
    return EmbeddingApi()


@pytest.fixture(scope="module")
async def origin(api: EmbeddingApi) -> AsyncIterator[str]:
    async with serving(api) as origin:
        yield origin


@pytest.fixture(autouse=True)
def nothing_is_left(api: EmbeddingApi) -> None:
    api.script.clear()
    api.requests.clear()


@pytest.fixture(params=["voyage", "openai"])
async def embedder(request: pytest.FixtureRequest, origin: str) -> AsyncIterator[Embedder]:
    embedder = provider(request.param, origin)
    yield embedder
    await embedder.close()


@pytest.fixture(params=["voyage", "openai"])
async def impatient(request: pytest.FixtureRequest, origin: str) -> AsyncIterator[Embedder]:
    embedder = provider(request.param, origin, timeout_s=SHORT_S)
    yield embedder
    await embedder.close()


async def failure(embedder: Embedder, *texts: str) -> EmbeddingError:
    with pytest.raises(EmbeddingError) as caught:
        await embedder.embed(texts or [WORDS], purpose=Purpose.DOCUMENT)
    error = caught.value
    assert WORDS not in str(error)
    assert KEY not in str(error)
    assert error.__cause__ is None
    return error


async def test_voyage_gets_requests_in_its_own_format(api: EmbeddingApi, origin: str) -> None:
    embedder = provider("voyage", origin)
    await embedder.embed([WORDS], purpose=Purpose.QUERY)
    await embedder.embed([WORDS], purpose=Purpose.DOCUMENT)
    await embedder.close()

    assert [request.body["input_type"] for request in api.requests] == ["query", "document"]
    assert api.requests[0].path == "/v1/embeddings"
    assert api.requests[0].authorization == f"Bearer {KEY}"
    assert api.requests[0].body == {
        "model": "scripted",
        "input": [WORDS],
        "input_type": "query",
        "output_dimension": OWN_DIMENSIONS,
        "truncation": True,
    }


async def test_voyage_is_found_by_an_address_with_its_version(origin: str) -> None:
    embedder = provider("voyage", f"{origin}/v1/")

    assert await embedder.embed([WORDS], purpose=Purpose.QUERY) == [unit_vector_of(WORDS)]
    await embedder.close()


async def test_a_self_hosted_server_needs_no_size_and_no_key(
    api: EmbeddingApi, origin: str
) -> None:
    embedder = make_embedder(
        "openai", model="mine", dimensions=OWN_DIMENSIONS, base_url=f"{origin}/compatible"
    )
    await embedder.embed([WORDS], purpose=Purpose.QUERY)
    await embedder.close()

    assert api.requests[0].authorization is None
    assert api.requests[0].body == {
        "model": "mine",
        "input": [WORDS],
        "encoding_format": "float",
    }


async def test_a_model_that_has_more_dimensions_is_asked_for_fewer(
    api: EmbeddingApi, origin: str
) -> None:
    embedder = make_embedder(
        "openai", dimensions=12, base_url=f"{origin}/compatible", openai_api_key=KEY
    )

    assert await embedder.embed([WORDS], purpose=Purpose.QUERY) == [unit_vector_of(WORDS, 12)]
    assert api.requests[0].body["dimensions"] == 12
    await embedder.close()


async def test_vectors_come_in_the_order_of_the_texts(
    api: EmbeddingApi, embedder: Embedder
) -> None:
    texts = [f"text {number}" for number in range(7)]
    api.script = [shuffled]

    vectors = await embedder.embed(texts, purpose=Purpose.DOCUMENT)

    assert vectors == [unit_vector_of(text) for text in texts]
    assert len(api.requests) == 1


async def test_many_texts_are_spread_over_requests(api: EmbeddingApi, embedder: Embedder) -> None:
    texts = [f"text {number}" for number in range(2 * embedder.max_batch + 1)]

    vectors = await embedder.embed(texts, purpose=Purpose.DOCUMENT)

    assert vectors == [unit_vector_of(text) for text in texts]
    sizes = [len(request.body["input"]) for request in api.requests]
    assert sizes == [embedder.max_batch, embedder.max_batch, 1]


async def test_large_texts_are_spread_by_their_size_and_cut(
    api: EmbeddingApi, embedder: Embedder
) -> None:
    vectors = await embedder.embed(["漢" * 35_000] * 15, purpose=Purpose.DOCUMENT)

    assert len(vectors) == 15
    assert len(api.requests) > 1
    for request in api.requests:
        assert sum(len(text.encode()) for text in request.body["input"]) <= 100_000


async def test_no_texts_ask_for_nothing(api: EmbeddingApi, embedder: Embedder) -> None:
    assert await embedder.embed([], purpose=Purpose.DOCUMENT) == []
    assert api.requests == []


async def test_a_blank_text_is_refused_before_anything_is_sent(
    api: EmbeddingApi, embedder: Embedder
) -> None:
    error = await failure(embedder, *[WORDS] * embedder.max_batch, " \n")

    assert isinstance(error, EmbeddingRefusedError)
    assert api.requests == []


async def test_unencodable_characters_are_sent_as_replacements(
    api: EmbeddingApi, embedder: Embedder
) -> None:
    await embedder.embed(["a\ud800b\x00c \U0001f642"], purpose=Purpose.QUERY)

    assert api.requests[0].body["input"] == ["a\ufffdb\ufffdc \U0001f642"]


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("2", timedelta(seconds=2)),
        ("0", timedelta(0)),
        ("86400", timedelta(minutes=5)),
        ("inf", timedelta(minutes=5)),
        ("nan", None),
        ("-1", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
async def test_a_limited_rate_passes_and_says_when(
    api: EmbeddingApi, embedder: Embedder, header: str, wait: timedelta | None
) -> None:
    api.script = [saying("slower", status=429, retry_after=header)]

    error = await failure(embedder)

    assert isinstance(error, EmbeddingUnavailableError)
    assert error.retry_after == wait
    assert await embedder.embed([WORDS], purpose=Purpose.QUERY) == [unit_vector_of(WORDS)]


@pytest.mark.parametrize("status", [408, 409, 425, 500, 502, 503, 529])
async def test_a_failing_provider_is_unavailable_and_asked_once(
    api: EmbeddingApi, embedder: Embedder, status: int
) -> None:
    api.script = [saying("sorry", status=status)]

    error = await failure(embedder)

    assert isinstance(error, EmbeddingUnavailableError)
    assert error.retry_after is None
    assert str(status) in str(error)
    assert len(api.requests) == 1


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 413, 422])
async def test_a_refusal_is_final(api: EmbeddingApi, embedder: Embedder, status: int) -> None:
    api.script = [saying("no", status=status, location="/v1/embeddings")]

    error = await failure(embedder)

    assert isinstance(error, EmbeddingRefusedError)
    assert str(status) in str(error)
    assert len(api.requests) == 1


async def test_quoted_input_is_not_repeated_in_errors(
    api: EmbeddingApi, embedder: Embedder
) -> None:
    api.script = [repeating_the_request]

    assert isinstance(await failure(embedder), EmbeddingRefusedError)


@pytest.mark.parametrize("behaviour", [never, dribbling])
async def test_a_slow_provider_is_not_waited_for(
    api: EmbeddingApi, impatient: Embedder, behaviour: Answer
) -> None:
    api.script = [behaviour]

    error = await asyncio.wait_for(failure(impatient), 10)

    assert isinstance(error, EmbeddingUnavailableError)
    assert "in time" in str(error)


async def test_a_connection_that_breaks_is_unavailable(
    api: EmbeddingApi, embedder: Embedder
) -> None:
    api.script = [breaking_off]

    assert isinstance(await failure(embedder), EmbeddingUnavailableError)


@pytest.mark.parametrize("kind", ["voyage", "openai"])
async def test_an_unreachable_provider_is_unavailable(kind: EmbedderKind) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    embedder = provider(kind, f"http://127.0.0.1:{port}")

    assert isinstance(await failure(embedder), EmbeddingUnavailableError)
    await embedder.close()


@pytest.mark.parametrize(
    "answer",
    [
        changed(lambda entries: entries[:-1]),
        changed(lambda entries: [*entries, entries[0]]),
        changed(lambda entries: [{**entry, "index": 0} for entry in entries]),
        changed(lambda entries: [{"embedding": entry["embedding"]} for entry in entries]),
        with_vector([1.0] * (OWN_DIMENSIONS - 1)),
        with_vector([1.0] * (OWN_DIMENSIONS + 1)),
        with_vector([math.nan] * OWN_DIMENSIONS),
        with_vector([None] * OWN_DIMENSIONS),
        with_vector([0.0] * OWN_DIMENSIONS),
        with_vector("AACAPwAAgD8AAIA/"),
        saying("<html>Sign in to the network</html>"),
        saying(""),
        saying("", status=204),
        saying("not what it says", content_encoding="gzip"),
        endlessly,
    ],
)
async def test_an_invalid_response_is_recognised(
    api: EmbeddingApi, embedder: Embedder, answer: Answer
) -> None:
    api.script = [answer]

    error = await asyncio.wait_for(failure(embedder, WORDS, "another text"), 30)

    assert isinstance(error, EmbeddingAnswerError)


async def test_a_leaving_caller_is_released_at_once(api: EmbeddingApi, embedder: Embedder) -> None:
    asked = asyncio.Event()

    async def silent(request: Request, entries: list[dict[str, Any]]) -> Response:
        asked.set()
        return await never(request, entries)

    api.script = [silent]
    call = asyncio.create_task(embedder.embed([WORDS], purpose=Purpose.QUERY))
    await asyncio.wait_for(asked.wait(), 10)
    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(call, 10)


async def test_requests_of_different_users_share_neither_cookies_nor_answers() -> None:
    one, other = (
        answered(b'{"data": [{"index": 0, "embedding": %s}]}' % vector, "Set-Cookie: a=b")
        for vector in (b"[1.0, 0.0]", b"[0.0, 1.0]")
    )

    async with serving_raw(raw_server.saying(one + other)) as server:
        endpoint = EmbeddingEndpoint(url=server.url, api_key=None, timeout_s=30)
        vectors = [await endpoint.vectors({}, count=1, dimensions=2) for _ in range(3)]
        await endpoint.close()

    assert vectors == [[[1.0, 0.0]]] * 3
    assert len(server.requests) == 3
    assert not [request for request in server.requests if b"\ncookie:" in request.lower()]
