"""The settings of files: their limits, and the storage of their contents."""

from typing import Annotated, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode

from schema.web_addresses import WebAddress


class FileSettings(BaseSettings):
    """What an operator can set about files; a part of `Settings`."""

    max_file_bytes: int = Field(25 * 1024 * 1024, ge=1024, le=100 * 1024 * 1024)
    max_image_pixels: int = Field(50_000_000, ge=1, le=200_000_000)
    max_image_frames: int = Field(1_000, ge=1, le=10_000, description="Of an animation.")
    max_pdf_pages: int = Field(100, ge=1, le=100)
    max_text_chars: int = Field(400_000, ge=1, le=2_000_000)
    text_only_models: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        None, description="Of the models, those that take neither images nor PDFs."
    )
    unattached_file_hours: float = Field(
        24.0, gt=0, le=24 * 30, description="How long a file is kept that no message names."
    )
    files_s3_bucket: str | None = Field(
        None, description="Where contents of new files go; without it, into the database."
    )
    files_s3_prefix: str | None = Field(None, description="Before each key, e.g. `everturn/`.")
    files_s3_endpoint: WebAddress | None = Field(
        None, description="Of a compatible storage; without it, that of AWS."
    )
    files_s3_region: str | None = None
    files_s3_access_key_id: str | None = Field(
        None, description="Without keys, the machine's own credentials count."
    )
    files_s3_secret_access_key: SecretStr | None = None
    files_s3_timeout_s: float = Field(20.0, gt=0, le=60, description="Of one request.")

    @field_validator("text_only_models", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    @field_validator("files_s3_bucket", "files_s3_endpoint", "files_s3_region", mode="before")
    @classmethod
    def _unset_file(cls, value: object) -> object:
        return None if value == "" else value

    @model_validator(mode="after")
    def _sign_requests_to_s3(self) -> Self:
        if (self.files_s3_access_key_id is None) != (self.files_s3_secret_access_key is None):
            raise ValueError(
                "Set EVERTURN_FILES_S3_ACCESS_KEY_ID and EVERTURN_FILES_S3_SECRET_ACCESS_KEY "
                "together."
            )
        return self
