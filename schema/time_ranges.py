"""Filters by time: from one moment (inclusive) to another (exclusive)."""

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from schema.wire import FilterModel, Moment


class TimeRange(FilterModel):
    """A filter by time of creation; an omitted end is open."""

    since: Annotated[Moment | None, Field(alias="from", description="Created at or after.")] = None
    until: Annotated[Moment | None, Field(alias="to", description="Created before.")] = None

    @field_validator("until")
    @classmethod
    def _ends_behind_its_start(cls, until: Moment | None, info: ValidationInfo) -> Moment | None:
        since = info.data.get("since")
        if since is not None and until is not None and until <= since:
            raise ValueError("must be later than `from`")
        return until
