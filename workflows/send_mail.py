"""Sending a mail: tried until the server takes or refuses it, or its link has expired."""

from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from activities import names
    from schema.mail import MAIL_LIFETIMES, MailOutcome, MailReference
    from schema.names import SEND_MAIL

_PATIENT: Final = RetryPolicy(
    initial_interval=timedelta(seconds=2), maximum_interval=timedelta(minutes=5)
)
"""Servers that put unknown senders off (greylisting) take a mail after some minutes."""
_LAST_LOOK: Final = timedelta(minutes=10)
"""Beyond the lifetime, so that an attempt finds the mail expired, and stores that."""


@workflow.defn(name=SEND_MAIL)
class SendMail:
    """One mail. Carries references only: address, token and text stay out of the history."""

    @workflow.run
    async def run(self, mail: MailReference) -> MailOutcome:
        """Try until the mail is sent, refused or too old."""
        outcome: MailOutcome = await workflow.execute_activity(
            names.SEND_MAIL,
            mail,
            result_type=MailOutcome,
            summary="send mail",
            start_to_close_timeout=timedelta(minutes=2),
            heartbeat_timeout=timedelta(seconds=10),
            schedule_to_close_timeout=MAIL_LIFETIMES[mail.kind] + _LAST_LOOK,
            retry_policy=_PATIENT,
        )
        status = "deleted" if outcome.status is None else outcome.status.value
        problem = "" if outcome.problem is None else f" ({outcome.problem})"
        workflow.set_current_details(f"{status}{problem}")
        return outcome
