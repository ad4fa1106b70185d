"""Invalid requests for subscriptions and usage."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from schema.ids import first_id_at, new_id
from schema.subscriptions import AssignPlanRequest, UsageFilter
from schema.tables.columns import utc_now

PLAN = "01900000-0000-7000-8000-000000000001"


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"planId": None},
        {"planId": "x"},
        {"planId": 1},
        {"planId": PLAN, "startedAt": "2026-01-31T09:00:00"},
        {"planId": PLAN, "startedAt": "1999-12-31T23:59:59Z"},
        {"planId": PLAN, "startedAt": "0001-01-01T00:00:00+14:00"},
        {"planId": PLAN, "startedAt": "9999-12-31T23:59:59-14:00"},
        {"planId": PLAN, "startedAt": 1_700_000_000},
        {"planId": PLAN, "startedAt": "soon"},
        {"planId": PLAN, "userId": PLAN},
    ],
    ids=str,
)
def test_an_invalid_assignment_is_rejected(request_: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AssignPlanRequest.model_validate(request_)


def test_an_assignment_may_say_since_when() -> None:
    request = AssignPlanRequest.model_validate(
        {"planId": PLAN, "startedAt": "2026-01-31T10:00:00+01:00"}
    )

    assert request.plan_id == UUID(PLAN)
    assert request.started_at == datetime(2026, 1, 31, 9, tzinfo=UTC)


@pytest.mark.parametrize("end", ["2026-01-01T00:00:00Z", "2025-12-31T00:00:00Z"])
def test_a_range_must_end_after_its_start(end: str) -> None:
    with pytest.raises(ValidationError, match="later than `from`"):
        UsageFilter.model_validate({"from": "2026-01-01T00:00:00Z", "to": end})


def test_ids_are_in_the_range_of_their_creation_time() -> None:
    before = first_id_at(utc_now())

    made = new_id()

    assert before <= made
    assert first_id_at(datetime(2200, 1, 1, tzinfo=UTC)) > made
    assert first_id_at(datetime(1969, 1, 1, tzinfo=UTC)) == UUID(int=0)
