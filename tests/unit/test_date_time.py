import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from services.tools.date_time import DateTime
from services.tools.date_time.zones import Zones
from tests.fixtures.tool_executions import an_execution

ZONES = Zones()
NOW = datetime(2026, 3, 14, 15, 9, 26, 535897, tzinfo=UTC)


def clock() -> datetime:
    return NOW


async def answer(**asked: JsonValue) -> dict[str, Any]:
    outcome = await DateTime(clock, ZONES).run(asked, an_execution())
    assert not outcome.is_error, outcome.output
    answered: dict[str, Any] = json.loads(outcome.output)
    return answered


async def refusal(**asked: JsonValue) -> str:
    outcome = await DateTime(clock, ZONES).run(asked, an_execution())
    assert outcome.is_error, outcome.output
    return outcome.output


async def test_without_input_the_current_time_in_utc_is_returned() -> None:
    assert await answer() == {
        "datetime": "2026-03-14T15:09:26+00:00",
        "timezone": "UTC",
        "weekday": "Saturday",
        "unix_seconds": 1773500966,
    }


async def test_the_clock_of_the_machine_is_read_in_utc_by_default() -> None:
    outcome = await DateTime().run({}, an_execution())
    assert json.loads(outcome.output)["datetime"].endswith("+00:00")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Europe/Paris", "Europe/Paris"),
        ("europe/paris", "Europe/Paris"),
        ("Paris", "Europe/Paris"),
        ("New York", "America/New_York"),
        ("new_york", "America/New_York"),
        ("Argentina/Ushuaia", "America/Argentina/Ushuaia"),
        ("Japan", "Japan"),
        ("utc", "UTC"),
        ("Z", "UTC"),
        ("+05:30", "UTC+05:30"),
        ("UTC-3", "UTC-03:00"),
        ("GMT+0200", "UTC+02:00"),
        ("\N{MINUS SIGN}03:00", "UTC-03:00"),
    ],
)
async def test_zones_are_found_by_name_city_and_offset(name: str, key: str) -> None:
    assert key == (await answer(timezone=name))["timezone"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Pariss", "Europe/Paris"),
        ("America/New_Yrok", "America/New_York"),
        ("Buenos Aires", "America/Argentina/Buenos_Aires or America/Buenos_Aires"),
    ],
)
async def test_an_unknown_zone_is_refused_with_the_nearest_names(name: str, hint: str) -> None:
    assert hint in await refusal(timezone=name)


@pytest.mark.parametrize("name", ["", "America", "../../etc/passwd", "right/UTC", "\0", "+99:00"])
async def test_an_invalid_zone_is_refused(name: str) -> None:
    assert "Unknown or ambiguous time zone" in await refusal(timezone=name)


async def test_a_system_without_zone_data_says_so_and_still_knows_offsets() -> None:
    tool = DateTime(clock, Zones(names=set))
    missing = await tool.run({"timezone": "Paris"}, an_execution())
    assert missing.is_error
    assert "no time zone data" in missing.output
    assert not (await tool.run({"timezone": "+01:00"}, an_execution())).is_error


async def test_a_time_is_converted_between_zones() -> None:
    answered = await answer(
        operation="convert", datetime="2024-07-01T12:00", timezone="Paris", to_timezone="Tokyo"
    )
    assert answered["from"]["datetime"] == "2024-07-01T12:00:00+02:00"
    assert answered["to"] == {
        "datetime": "2024-07-01T19:00:00+09:00",
        "timezone": "Asia/Tokyo",
        "weekday": "Monday",
        "unix_seconds": 1719828000,
    }
    assert "notes" not in answered


async def test_an_offset_in_the_time_wins_over_the_zone() -> None:
    answered = await answer(
        operation="convert", datetime="2024-07-01T12:00Z", timezone="Paris", to_timezone="-05:00"
    )
    assert answered["from"]["datetime"] == "2024-07-01T14:00:00+02:00"
    assert answered["to"]["datetime"] == "2024-07-01T07:00:00-05:00"


async def test_a_fraction_of_a_second_is_kept() -> None:
    answered = await answer(operation="convert", datetime="1970-01-01T00:00:01.5Z")
    assert answered["to"]["unix_seconds"] == 1.5


async def test_a_time_that_the_clocks_skip_is_moved_with_a_note() -> None:
    answered = await answer(operation="convert", datetime="2024-03-31T02:30", timezone="Paris")
    assert answered["from"]["datetime"] == "2024-03-31T03:30:00+02:00"
    (note,) = answered["notes"]
    assert "2024-03-31T02:30:00 does not exist in Europe/Paris" in note
    assert "moved to 2024-03-31T03:30:00+02:00" in note


async def test_an_ambiguous_time_gets_both_readings() -> None:
    answered = await answer(operation="convert", datetime="2024-11-03T01:30", timezone="New York")
    assert answered["to"]["datetime"] == "2024-11-03T05:30:00+00:00"
    assert answered["second_reading"]["from"]["datetime"] == "2024-11-03T01:30:00-05:00"
    assert answered["second_reading"]["to"]["datetime"] == "2024-11-03T06:30:00+00:00"
    assert "2024-11-03T01:30:00-04:00 and at 2024-11-03T01:30:00-05:00" in answered["notes"][0]


async def test_a_difference_is_exact_and_by_the_calendar() -> None:
    answered = await answer(
        operation="difference", datetime="2023-01-31", other="2024-03-01T12:30:05"
    )
    assert answered["direction"] == "forward"
    assert answered["elapsed"] == {
        "total_seconds": 34_173_005,
        "days": 395,
        "hours": 12,
        "minutes": 30,
        "seconds": 5,
    }
    assert answered["calendar"] == {
        "years": 1,
        "months": 1,
        "days": 1,
        "hours": 12,
        "minutes": 30,
        "seconds": 5,
    }


async def test_24_hours_of_a_day_with_25_hours_are_not_counted_as_a_day() -> None:
    span = {"datetime": "2024-11-02T02:50:17", "timezone": "America/New_York"}
    difference = await answer(operation="difference", other="2024-11-03T02:00:57-05:00", **span)
    total = await answer(operation="add", **span, **difference["calendar"])

    calendar, elapsed = difference["calendar"], difference["elapsed"]
    assert (calendar["days"], calendar["hours"], calendar["minutes"]) == (0, 24, 10)
    assert (elapsed["days"], elapsed["hours"], elapsed["minutes"]) == (1, 0, 10)
    assert total["to"] == difference["to"]


async def test_a_day_with_a_change_of_the_clocks_is_one_day_of_23_hours() -> None:
    answered = await answer(
        operation="difference",
        datetime="2024-03-30T12:00",
        other="2024-03-31T12:00",
        timezone="Paris",
    )
    assert answered["elapsed"]["hours"] == 23
    assert (answered["calendar"]["days"], answered["calendar"]["hours"]) == (1, 0)


async def test_a_difference_between_the_two_readings_of_one_time_is_an_hour() -> None:
    answered = await answer(
        operation="difference",
        datetime="2024-11-03T01:30-04:00",
        other="2024-11-03T01:30-05:00",
        timezone="New York",
    )
    assert answered["elapsed"]["total_seconds"] == 3600
    assert answered["calendar"]["hours"] == 1


async def test_a_difference_into_the_past_says_its_direction() -> None:
    answered = await answer(operation="difference", datetime="2026-03-15T15:09:26")
    assert answered["to"]["datetime"] == "2026-03-14T15:09:26+00:00"
    assert (answered["direction"], answered["elapsed"]["days"]) == ("backward", 1)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"datetime": "2024-01-31", "months": 1}, "2024-02-29T00:00:00+00:00"),
        ({"datetime": "2024-02-29", "years": -1}, "2023-02-28T00:00:00+00:00"),
        ({"datetime": "2024-01-01", "weeks": 1, "days": 1}, "2024-01-09T00:00:00+00:00"),
        ({"datetime": "2024-01-01", "hours": -1}, "2023-12-31T23:00:00+00:00"),
        ({"minutes": 1, "seconds": 1}, "2026-03-14T15:10:27+00:00"),
        (
            {"datetime": "2024-03-30T12:00", "days": 1, "timezone": "Paris"},
            "2024-03-31T12:00:00+02:00",
        ),
        (
            {"datetime": "2024-03-30T12:00", "hours": 24, "timezone": "Paris"},
            "2024-03-31T13:00:00+02:00",
        ),
        ({"datetime": "2024-01-01T00:00+09:00", "days": 1}, "2024-01-02T00:00:00+09:00"),
    ],
)
async def test_days_keep_the_time_of_day_and_hours_are_exact(
    asked: dict[str, JsonValue], expected: str
) -> None:
    assert expected == (await answer(operation="add", **asked))["to"]["datetime"]


async def test_a_sum_notes_when_a_month_lacks_the_day() -> None:
    answered = await answer(operation="add", datetime="2024-01-31", months=1)
    assert answered["notes"] == ["February 2024 has no day 31: its last day was used."]


async def test_a_sum_within_a_skipped_hour_is_noted() -> None:
    answered = await answer(
        operation="add", datetime="2024-03-30T02:30", days=1, timezone="Europe/Paris"
    )
    assert "does not exist" in answered["notes"][0]


@pytest.mark.parametrize(
    "asked",
    [
        {"operation": "add", "years": 9000},
        {"operation": "add", "years": -1_000_000_000},
        {"operation": "add", "days": 1_000_000_000},
        {"operation": "add", "weeks": -1_000_000_000},
        {"operation": "add", "hours": 1_000_000_000},
        {"operation": "convert", "datetime": "0001-01-01", "timezone": "+09:00"},
        {"operation": "convert", "datetime": "9999-12-31T23:00", "to_timezone": "+09:00"},
    ],
)
async def test_moments_outside_the_calendar_are_refused(asked: dict[str, JsonValue]) -> None:
    assert "years 1 to 9999" in await refusal(**asked)


@pytest.mark.parametrize("text", ["yesterday", "", "2024-13-01", "2024-02-30", "12:30"])
async def test_an_invalid_time_is_refused_with_an_example(text: str) -> None:
    assert "2024-03-31T14:30:00" in await refusal(operation="convert", datetime=text)


moments = st.datetimes(datetime(1990, 1, 1), datetime(2037, 1, 1)).map(  # noqa: DTZ001
    lambda moment: f"{moment:%Y-%m-%dT%H:%M:%S}Z"
)


@settings(database=None, deadline=None, max_examples=100)
@given(moments, moments, st.sampled_from(["Europe/Paris", "America/New_York", "Asia/Kolkata"]))
async def test_adding_the_calendar_difference_leads_to_the_later_moment(
    first: str, second: str, zone: str
) -> None:
    earlier, later = sorted((first, second))
    difference = await answer(operation="difference", datetime=earlier, other=later, timezone=zone)
    total = await answer(operation="add", datetime=earlier, timezone=zone, **difference["calendar"])
    assert difference["to"] == total["to"]
