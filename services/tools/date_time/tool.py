"""The `datetime` tool: its input, its four operations and its output in JSON."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated, Final, Literal, TypeAlias, assert_never

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from schema.tools import RetryClass, ToolDefinition
from services.tools.date_time.moments import (
    DateTimeError,
    Moment,
    at_wall_clock,
    calendar_parts,
    in_zone,
    read,
    seconds,
    shifted,
)
from services.tools.date_time.zones import Zones
from services.tools.definition import ToolExecution, ToolOutcome, input_schema

Clock: TypeAlias = Callable[[], datetime]

_DESCRIPTION: Final = (
    "Returns the current time, converts a time between zones, computes the difference between two "
    "times, or adds a duration to a time. Zones are IANA names (Europe/Paris), cities (Paris) or "
    "offsets (+02:00). Returns JSON; read `notes` if present."
)
_INSTRUCTIONS: Final = (
    "Use datetime whenever the answer depends on the current date or time, on weekdays, on time "
    "zones or on durations; never guess them."
)

Operation: TypeAlias = Literal["now", "convert", "difference", "add"]
Duration = Annotated[int, Field(ge=-1_000_000_000, le=1_000_000_000)]


class DateTimeInput(BaseModel):
    """The operation and its operands."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    operation: Operation = Field("now", description="The operation.")
    timezone: str = Field("UTC", max_length=100, description="The zone of times without an offset.")
    moment: str = Field(
        "now",
        alias="datetime",
        max_length=100,
        description="ISO 8601 date or time to convert, to add to, or to measure from.",
    )
    to_timezone: str = Field("UTC", max_length=100, description="For convert: the target zone.")
    other: str = Field(
        "now", max_length=100, description="For difference: ISO 8601 date or time to measure to."
    )
    years: Duration = Field(0, description="For add; like all durations, may be negative.")
    months: Duration = 0
    weeks: Duration = 0
    days: Duration = Field(0, description="For add: calendar days; the time of day stays the same.")
    hours: Duration = Field(0, description="For add: exact hours.")
    minutes: Duration = 0
    seconds: Duration = 0


class DateTime:
    """A tool for the current time and for arithmetic with dates and times."""

    definition: Final = ToolDefinition(
        name="datetime",
        description=_DESCRIPTION,
        input_schema=input_schema(DateTimeInput),
        timeout=timedelta(seconds=5),
        retry_class=RetryClass.IDEMPOTENT,
        instant=True,
        instructions=_INSTRUCTIONS,
    )

    def __init__(
        self, clock: Clock = lambda: datetime.now(UTC), zones: Zones | None = None
    ) -> None:
        self._clock = clock
        self._zones = zones or Zones()

    async def run(
        self, tool_input: Mapping[str, JsonValue], _execution: ToolExecution, /
    ) -> ToolOutcome:
        """Return the answer as JSON, or what is wrong with the input."""
        asked = DateTimeInput.model_validate(tool_input)
        try:
            return ToolOutcome(output=json.dumps(self._answer(asked), ensure_ascii=False))
        except DateTimeError as error:
            return ToolOutcome(output=str(error), is_error=True)

    def _answer(self, asked: DateTimeInput) -> dict[str, JsonValue]:
        match asked.operation:
            case "now":
                return self._now(self._zones.find(asked.timezone)).as_json()
            case "convert":
                return self._convert(asked)
            case "difference":
                return self._difference(asked)
            case "add":
                return self._add(asked)
            case _:
                assert_never(asked.operation)

    def _convert(self, asked: DateTimeInput) -> dict[str, JsonValue]:
        start, target = self._moment(asked.moment, asked), self._zones.find(asked.to_timezone)
        answer = _converted(start, target)
        second = start.second_reading()
        if second is not None:
            answer["second_reading"] = _converted(second, target)
        return answer | _notes(start.note)

    def _difference(self, asked: DateTimeInput) -> dict[str, JsonValue]:
        start, end = self._moment(asked.moment, asked), self._moment(asked.other, asked)
        is_forward = start.instant <= end.instant
        # Months are counted on one calendar: the first moment's.
        there = end.seen_in(start.zone)
        parts = calendar_parts(*((start, there) if is_forward else (there, start)))
        elapsed = abs(end.instant - start.instant)
        within_a_day = elapsed - timedelta(days=elapsed.days)
        return {
            "from": start.as_json(),
            "to": end.as_json(),
            "direction": "forward" if is_forward else "backward",
            "elapsed": {
                "total_seconds": seconds(elapsed),
                **_clock_parts(elapsed.days, within_a_day),
            },
            "calendar": {
                "years": parts.months // 12,
                "months": parts.months % 12,
                # On a day of 25 hours, the rest is up to 25 hours.
                **_clock_parts(parts.days, parts.rest),
            },
        } | _notes(start.note, end.note)

    def _add(self, asked: DateTimeInput) -> dict[str, JsonValue]:
        start = self._moment(asked.moment, asked)
        end, notes = shifted(
            start,
            months=asked.years * 12 + asked.months,
            days=asked.weeks * 7 + asked.days,
            exact=timedelta(hours=asked.hours, minutes=asked.minutes, seconds=asked.seconds),
        )
        return {"from": start.as_json(), "to": end.as_json()} | _notes(start.note, *notes)

    def _moment(self, text: str, asked: DateTimeInput) -> Moment:
        zone = self._zones.find(asked.timezone)
        if text.strip().lower() == "now":
            return self._now(zone)
        written = read(text)
        if written.tzinfo is None:
            return at_wall_clock(written, zone)
        # Without a named zone, the offset is the only zone known for this time.
        is_zone_given = "timezone" in asked.model_fields_set
        return Moment(in_zone(written, UTC), zone if is_zone_given else written.tzinfo)

    def _now(self, zone: tzinfo) -> Moment:
        return Moment(self._clock().astimezone(UTC).replace(microsecond=0), zone)


def _converted(moment: Moment, target: tzinfo) -> dict[str, JsonValue]:
    return {"from": moment.as_json(), "to": moment.seen_in(target).as_json()}


def _clock_parts(days: int, rest: timedelta) -> dict[str, JsonValue]:
    minutes, rest = divmod(rest, timedelta(minutes=1))
    hours, minutes = divmod(minutes, 60)
    return {"days": days, "hours": hours, "minutes": minutes, "seconds": seconds(rest)}


def _notes(*notes: str | None) -> dict[str, JsonValue]:
    present: list[JsonValue] = [note for note in notes if note is not None]
    return {"notes": present} if present else {}
