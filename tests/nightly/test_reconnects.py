"""A thousand clients who come back at once, after the API was killed."""

from tests.hostile.test_event_streams import SERVED_WITHIN_S, reconnect_after_a_kill
from tests.running_everturn.stack import scripted_model, scripted_stack

# As in production: a crowd of users with few streams each is under its limits.
_LIMITED = {"EVERTURN_RATE_LIMITS": "true"}


async def test_a_thousand_streams_resume_at_once() -> None:
    async with (
        scripted_model() as (model, url),
        scripted_stack(model, url, settings=_LIMITED) as everturn,
    ):
        served_s = await reconnect_after_a_kill(everturn, users=10, streams=100)

    assert served_s < SERVED_WITHIN_S
