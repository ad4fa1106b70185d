"""Which embedder the settings select, and the errors of invalid settings."""

from pathlib import Path
from typing import Any

import pytest

from services.embeddings import Embedder, make_embedder, selection
from services.embeddings.selection import (
    EmbeddedModelMissingError,
    EmbedderKind,
    EmbeddingAddressError,
    EmbeddingDimensionsError,
    EmbeddingKeyError,
)
from services.setup_errors import SetupError

SECRET = "pa-secret"


async def identity(embedder: Embedder) -> tuple[str, int]:
    await embedder.close()
    return embedder.name, embedder.dimensions


async def test_the_embedded_model_needs_nothing() -> None:
    assert await identity(make_embedder("embedded")) == ("wordllama-256", 256)
    assert await identity(make_embedder("embedded", dimensions=256)) == ("wordllama-256", 256)


@pytest.mark.parametrize(
    ("kind", "chosen", "expected"),
    [
        ("voyage", {}, ("voyage/voyage-3.5/1024", 1024)),
        ("voyage", {"model": "voyage-4", "dimensions": 512}, ("voyage/voyage-4/512", 512)),
        ("openai", {}, ("openai/text-embedding-3-small/1536", 1536)),
        (
            "openai",
            {"model": "BAAI/bge-m3", "dimensions": 1024, "base_url": "http://[::1]/v1"},
            ("openai/BAAI/bge-m3/1024", 1024),
        ),
    ],
)
async def test_a_name_contains_the_model_and_the_dimensions(
    kind: EmbedderKind, chosen: dict[str, Any], expected: tuple[str, int]
) -> None:
    embedder = make_embedder(kind, voyage_api_key=SECRET, openai_api_key=SECRET, **chosen)

    assert await identity(embedder) == expected


def test_a_model_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(selection, "MODEL_FILES", tmp_path / "missing")

    with pytest.raises(EmbeddedModelMissingError, match="make install"):
        make_embedder("embedded")


@pytest.mark.parametrize("key", [None, "", " \n", "s\u00e9same", "two\nlines", "tab\there"])
@pytest.mark.parametrize(
    ("kind", "setting"), [("voyage", "VOYAGE_API_KEY"), ("openai", "OPENAI_API_KEY")]
)
def test_a_missing_or_invalid_key_is_named_but_not_shown(
    kind: EmbedderKind, setting: str, key: str | None
) -> None:
    with pytest.raises(EmbeddingKeyError, match=setting) as mistake:
        make_embedder(kind, voyage_api_key=key, openai_api_key=key)

    assert isinstance(mistake.value, SetupError)
    assert not (key or "").strip() or (key or "") not in str(mistake.value)


async def test_empty_settings_count_as_unset() -> None:
    embedder = make_embedder("voyage", model="", base_url="", voyage_api_key=f" {SECRET}\n")

    assert await identity(embedder) == ("voyage/voyage-3.5/1024", 1024)


@pytest.mark.parametrize(
    "address",
    [
        "api.example.com",
        "ftp://example.com",
        "http://",
        "http://example.com:port",
        "http://user:password@example.com",
        "http://example.com/?key=1",
    ],
)
def test_an_invalid_base_url_is_rejected(address: str) -> None:
    with pytest.raises(EmbeddingAddressError) as mistake:
        make_embedder("openai", model="m", dimensions=8, base_url=address)

    assert "password" not in str(mistake.value)


def test_unknown_or_unsupported_dimensions_are_refused() -> None:
    with pytest.raises(EmbeddingDimensionsError, match="is unknown"):
        make_embedder("openai", model="bge-m3", base_url="http://127.0.0.1:1/v1")
    with pytest.raises(EmbeddingDimensionsError, match="at most 1536 dimensions"):
        make_embedder("openai", dimensions=3072, openai_api_key=SECRET)
    with pytest.raises(EmbeddingDimensionsError, match="only 256 dimensions"):
        make_embedder("embedded", dimensions=1024)
