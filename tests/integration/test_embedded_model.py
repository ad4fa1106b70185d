"""The model in the wheel of wordllama: what its vectors mean, and what it keeps away from."""

import asyncio
import math
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.embeddings import EmbeddingRefusedError, Purpose
from services.embeddings.embedded_model import MODEL_FILES, EmbeddedModel

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
async def model() -> AsyncIterator[EmbeddedModel]:
    model = EmbeddedModel()
    yield model
    await model.close()


async def vector(model: EmbeddedModel, text: str) -> list[float]:
    [vector] = await model.embed([text], purpose=Purpose.QUERY)
    return vector


def similarity(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("I like my coffee without sugar.", "She drinks unsweetened coffee.", "The train is late."),
        ("How do I reset my password?", "Recovering a forgotten password", "A recipe for soup"),
        ("The invoice is due on Friday.", "Payment of the bill", "Cats sleep most of the day."),
        ("He moved to a flat in Paris.", "She lives in an apartment in France.", "Sorting lists"),
    ],
)
async def test_near_texts_are_nearer_than_far_ones(
    model: EmbeddedModel, text: str, near: str, far: str
) -> None:
    origin = await vector(model, text)

    assert similarity(origin, await vector(model, near)) > 0.1 + similarity(
        origin, await vector(model, far)
    )


async def test_the_same_text_has_the_same_vector_in_any_company(model: EmbeddedModel) -> None:
    text = "The quick brown fox"
    others = ["a", "much longer " * 500, "</s>"]

    alone = await vector(model, text)
    among_others = await model.embed([*others, text, *others], purpose=Purpose.DOCUMENT)

    assert await vector(model, text) == alone
    assert among_others[len(others)] == alone


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "\x00",
        "\x01\x02",
        "\ud800",
        "\u200b",
        "\ufeff",
        "\U0001f642" * 3,
        "漢字かな交じり文",
        "</s>",
        "<s><unk></s>",
        "%%%%",
        "a" * 300_000,
        "\u0301" * 1_000,
    ],
)
async def test_any_text_has_a_vector_of_length_1(model: EmbeddedModel, text: str) -> None:
    numbers = await vector(model, text)

    assert len(numbers) == model.dimensions
    assert all(type(number) is float for number in numbers)
    assert math.hypot(*numbers) == pytest.approx(1.0)


def test_a_text_without_tokens_has_a_vector_of_length_1() -> None:
    from services.embeddings.word_vectors import WordVectors  # noqa: PLC0415 -- slow to import

    assert math.hypot(*WordVectors(MODEL_FILES / "wordllama").of("")) == pytest.approx(1.0)


async def test_an_end_marker_within_a_text_is_ordinary_text(model: EmbeddedModel) -> None:
    with_marks = await vector(model, "</s> </s> </s> good morning </s> </s>")
    without = await vector(model, "good morning")

    assert similarity(with_marks, without) < 0.999
    assert similarity(await vector(model, "</s>"), await vector(model, "</p>")) > 0.3


@pytest.mark.parametrize("blank", ["", "  ", "\n"])
async def test_a_blank_text_is_refused(model: EmbeddedModel, blank: str) -> None:
    with pytest.raises(EmbeddingRefusedError):
        await model.embed(["words", blank], purpose=Purpose.DOCUMENT)


async def test_no_texts_have_no_vectors(model: EmbeddedModel) -> None:
    assert await model.embed([], purpose=Purpose.DOCUMENT) == []


async def test_more_than_a_batch_is_embedded_in_order(model: EmbeddedModel) -> None:
    texts = [f"text number {number}" for number in range(2 * model.max_batch + 3)]

    vectors = await model.embed(texts, purpose=Purpose.DOCUMENT)

    assert len(vectors) == len(texts)
    for place in (0, model.max_batch - 1, model.max_batch, len(texts) - 1):
        assert vectors[place] == await vector(model, texts[place])


async def test_first_calls_at_once_share_one_model() -> None:
    model = EmbeddedModel()

    vectors = await asyncio.gather(*(vector(model, "the same") for _ in range(8)))
    await model.close()

    assert all(numbers == vectors[0] for numbers in vectors)


async def test_leaving_while_the_model_loads_affects_no_other_caller() -> None:
    model = EmbeddedModel()
    leaving = asyncio.create_task(vector(model, "never mind"))
    staying = asyncio.create_task(vector(model, "the same"))
    await asyncio.sleep(0)
    leaving.cancel()

    assert await staying == await vector(model, "the same")
    assert (await asyncio.gather(leaving, return_exceptions=True))[0] is not None
    await model.close()


IN_A_PROCESS_OF_ITS_OWN = """
import asyncio, logging, socket, sys

def refuse(*arguments):
    raise AssertionError("the network was used")

async def embed():
    from services.embeddings import Purpose, make_embedder
    model = make_embedder("embedded")
    assert "tokenizers" not in sys.modules and "numpy" not in sys.modules
    socket.socket.connect = socket.getaddrinfo = refuse
    [vector] = await model.embed(["hello"], purpose=Purpose.QUERY)
    await model.close()
    assert len(vector) == 256
    assert logging.getLogger().handlers == []

asyncio.run(embed())
"""


async def test_a_new_process_embeds_without_network_and_keeps_its_logs_quiet() -> None:
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "error", "-c", IN_A_PROCESS_OF_ITS_OWN],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
