"""Owns ranges of time in filters: from one moment on, until just before another."""

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from schema.wire import FilterModel, Moment


class TimeRange(FilterModel):
    """A filter by when something was made; an end that is left out is open."""

    since: Annotated[Moment | None, Field(alias="from", description="Made then or later.")] = None
    until: Annotated[Moment | None, Field(alias="to", description="Made before then.")] = None

    @field_validator("until")
    @classmethod
    def _ends_behind_its_start(cls, until: Moment | None, info: ValidationInfo) -> Moment | None:
        since = info.data.get("since")
        if since is not None and until is not None and until <= since:
            raise ValueError("has to be later than `from`")
        return until
