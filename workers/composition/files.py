"""The files of users: their limits, and where their contents are."""

from datetime import timedelta

from services.auth.accounts import AccountCache
from services.files.inspection import FileLimits
from services.files.inspector import Inspector
from services.files.object_storage import Bucket, ObjectStorage
from services.files.service import FileService
from services.settings import Settings
from workers.composition.foundation import Foundation


def make_files(foundation: Foundation, accounts: AccountCache) -> FileService:
    """Return the service of files."""
    settings = foundation.settings
    limits = FileLimits(
        bytes=settings.max_file_bytes,
        pixels=settings.max_image_pixels,
        frames=settings.max_image_frames,
        pages=settings.max_pdf_pages,
        chars=settings.max_text_chars,
    )
    return FileService(
        foundation.database,
        accounts,
        Inspector(limits),
        _object_storage(settings),
        unattached_for=timedelta(hours=settings.unattached_file_hours),
        text_only_models=settings.text_only_models or (),
    )


def _object_storage(settings: Settings) -> ObjectStorage | None:
    if settings.files_s3_bucket is None:
        return None
    secret = settings.files_s3_secret_access_key
    bucket = Bucket(
        name=settings.files_s3_bucket,
        prefix=settings.files_s3_prefix or "",
        endpoint=settings.files_s3_endpoint,
        region=settings.files_s3_region,
        access_key_id=settings.files_s3_access_key_id,
        secret_access_key=secret.get_secret_value() if secret else None,
    )
    return ObjectStorage(bucket, timeout_s=settings.files_s3_timeout_s)
