"""Selects the embedder of a process from the settings.

SetupError                     services/setup_errors.py
├── EmbeddingKeyError          the provider's key is missing or malformed
├── EmbeddingAddressError      the address is invalid
├── EmbeddingDimensionsError   the size of the vectors is unknown or unsupported
└── EmbeddedModelMissingError  the files of the model are not installed
"""

from typing import Final, Literal, TypeAlias, assert_never

import httpx2

from services.embeddings.embedded_model import MODEL_FILES, EmbeddedModel
from services.embeddings.embedder import Embedder
from services.embeddings.providers import (
    OPENAI_ADDRESS,
    VOYAGE_ADDRESS,
    OpenAiCompatibleEmbedder,
    VoyageEmbedder,
)
from services.setup_errors import SetupError

EmbedderKind: TypeAlias = Literal["embedded", "voyage", "openai"]

_VOYAGE_MODEL: Final = "voyage-3.5"
_VOYAGE_DIMENSIONS: Final = 1024
_OPENAI_MODEL: Final = "text-embedding-3-small"
_OPENAI_DIMENSIONS: Final = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}


class EmbeddingKeyError(SetupError):
    """No provider can be asked for vectors."""

    def __init__(self, setting: str) -> None:
        super().__init__(
            f"{setting} is not set or malformed. Set it, or set EVERTURN_EMBEDDER=embedded, "
            "which needs no key."
        )


class EmbeddingAddressError(SetupError):
    """The provider has no address."""

    def __init__(self) -> None:
        super().__init__(
            "EVERTURN_EMBEDDING_BASE_URL must be an http or https address without credentials or "
            "a query. Correct it, or leave it out to use the provider's own."
        )


class EmbeddingDimensionsError(SetupError):
    """The vectors have no known size."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} Set EVERTURN_EMBEDDING_DIMENSIONS accordingly.")


class EmbeddedModelMissingError(SetupError):
    """The files of the embedded model are not installed."""

    def __init__(self) -> None:
        super().__init__(
            "The embedded embedding model is not installed. Run `make install`, or set "
            "EVERTURN_EMBEDDER to voyage or openai."
        )


def make_embedder(
    kind: EmbedderKind,
    *,
    model: str | None = None,
    base_url: str | None = None,
    dimensions: int | None = None,
    voyage_api_key: str | None = None,
    openai_api_key: str | None = None,
    timeout_s: float = 30.0,
) -> Embedder:
    """Return the embedder that the settings name; empty values count as not set.

    Nothing is loaded or requested yet. An OpenAI-compatible server at its own `base_url` may need
    no key.
    Units: `timeout_s` bounds one request to a provider.
    Errors: SetupError.
    """
    match kind:
        case "embedded":
            return _embedded_model(dimensions)
        case "voyage":
            size = dimensions or _VOYAGE_DIMENSIONS
            return VoyageEmbedder(
                api_key=_key(voyage_api_key, setting="VOYAGE_API_KEY"),
                model=model or _VOYAGE_MODEL,
                dimensions=size,
                base_url=_address(base_url or VOYAGE_ADDRESS),
                timeout_s=timeout_s,
            )
        case "openai":
            name = model or _OPENAI_MODEL
            size, own_size = _openai_dimensions(name, dimensions)
            return OpenAiCompatibleEmbedder(
                api_key=_openai_key(openai_api_key, is_openai=not base_url),
                model=name,
                dimensions=size,
                shorten=_is_to_shorten(size, own_size, is_openai=not base_url),
                base_url=_address(base_url or OPENAI_ADDRESS),
                timeout_s=timeout_s,
            )
        case _:
            assert_never(kind)


def _embedded_model(dimensions: int | None) -> EmbeddedModel:
    if not MODEL_FILES.is_dir():
        raise EmbeddedModelMissingError
    if dimensions not in {None, EmbeddedModel.dimensions}:
        raise EmbeddingDimensionsError(
            f"The embedded model supports only {EmbeddedModel.dimensions} dimensions."
        )
    return EmbeddedModel()


def _openai_dimensions(model: str, wanted: int | None) -> tuple[int, int | None]:
    """Return the size to get and the model's own, if that is known."""
    own = _OPENAI_DIMENSIONS.get(model)
    size = wanted or own
    if size is None:
        raise EmbeddingDimensionsError(f"The number of dimensions of {model!r} is unknown.")
    if own is not None and size > own:
        raise EmbeddingDimensionsError(f"{model!r} supports at most {own} dimensions.")
    return size, own


def _is_to_shorten(size: int, own_size: int | None, *, is_openai: bool) -> bool:
    """Many servers refuse to be asked for a size, even for the model's own."""
    return is_openai if own_size is None else size != own_size


def _openai_key(given: str | None, *, is_openai: bool) -> str | None:
    if not is_openai and not (given or "").strip():
        return None
    return _key(given, setting="OPENAI_API_KEY")


def _key(given: str | None, *, setting: str) -> str:
    """Return the key without white space around it; else its header would be an error's text."""
    key = (given or "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise EmbeddingKeyError(setting)
    return key


def _address(given: str) -> str:
    try:
        url = httpx2.URL(given)
    except httpx2.InvalidURL:
        raise EmbeddingAddressError from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise EmbeddingAddressError
    if url.userinfo or url.query or url.fragment:
        raise EmbeddingAddressError
    return given
