"""Periods: months from where a subscription began, without gap or overlap."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.subscriptions import Period
from services.subscriptions.periods import period_at, period_of_month

ANCHORS = st.datetimes(
    datetime(2000, 1, 1),  # noqa: DTZ001 -- hypothesis adds the zone
    datetime(2100, 1, 1),  # noqa: DTZ001 -- as above
    timezones=st.just(UTC),
)
MOMENTS = st.datetimes(
    datetime(2000, 1, 1),  # noqa: DTZ001 -- as above
    datetime(2150, 1, 1),  # noqa: DTZ001 -- as above
    timezones=st.just(UTC),
)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def period(start: str, end: str) -> Period:
    return Period(start=utc(start), end=utc(end))


@given(ANCHORS, MOMENTS)
def test_every_moment_is_in_its_period(anchor: datetime, moment: datetime) -> None:
    found = period_at(moment, anchor=anchor)

    assert found.start <= moment < found.end


@given(ANCHORS, MOMENTS)
def test_periods_follow_each_other_without_gap_or_overlap(
    anchor: datetime, moment: datetime
) -> None:
    found = period_at(moment, anchor=anchor)

    following = period_at(found.end, anchor=anchor)
    preceding = period_at(found.start - timedelta(microseconds=1), anchor=anchor)

    assert following.start == found.end
    assert preceding.end == found.start
    assert period_at(found.end - timedelta(microseconds=1), anchor=anchor) == found


@given(ANCHORS)
def test_the_first_period_begins_with_the_subscription(anchor: datetime) -> None:
    assert period_at(anchor, anchor=anchor).start == anchor


@given(ANCHORS, MOMENTS)
def test_a_month_names_the_period_that_begins_in_it(anchor: datetime, moment: datetime) -> None:
    found = period_at(moment, anchor=anchor)

    assert period_of_month(f"{found.start:%Y-%m}", anchor=anchor) == (
        found if found.start.year >= 2000 else None
    )


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-02-10", period("2026-01-31T09:00", "2026-02-28T09:00")),
        ("2026-02-28T08:59", period("2026-01-31T09:00", "2026-02-28T09:00")),
        ("2026-02-28T09:00", period("2026-02-28T09:00", "2026-03-31T09:00")),
        ("2026-04-30T12:00", period("2026-04-30T09:00", "2026-05-31T09:00")),
        ("2028-02-29T10:00", period("2028-02-29T09:00", "2028-03-31T09:00")),
        ("2026-12-31T23:00", period("2026-12-31T09:00", "2027-01-31T09:00")),
        ("2026-01-01", period("2025-12-31T09:00", "2026-01-31T09:00")),
    ],
)
def test_a_day_that_a_month_lacks_is_its_last(moment: str, expected: Period) -> None:
    assert period_at(utc(moment), anchor=utc("2026-01-31T09:00")) == expected


def test_without_a_subscription_periods_are_the_calendars() -> None:
    assert period_at(utc("2026-02-28T23:59")) == period("2026-02-01", "2026-03-01")


def test_zones_are_those_of_utc() -> None:
    east = datetime(2026, 3, 1, 3, tzinfo=timezone(timedelta(hours=5)))

    assert period_at(east) == period("2026-02-01", "2026-03-01")


@pytest.mark.parametrize(
    "text",
    ["", "2026", "2026-13", "2026-00", "2026-1", "26-01", "1999-12", "2026-01-01", "२०२६-०१", "x"],
)
def test_invalid_months_name_no_period(text: str) -> None:
    assert period_of_month(text) is None
