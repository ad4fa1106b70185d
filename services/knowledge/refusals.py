"""Owns the refusals of documents that no other service knows."""

from enum import StrEnum


class VersionRefusal(StrEnum):
    """Why a version can't be read or published, though its document can be reached."""

    NO_SUCH_VERSION = "no_such_version"
    DRAFT_OF_ANOTHER = "draft_of_another"


class PublicationRefusal(StrEnum):
    """Why a version that is there is not published."""

    NOT_READY = "not_ready"
    FAILED = "failed"
