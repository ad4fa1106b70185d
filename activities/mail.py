"""The activity of the workflow `SendMail`, and what starts that as soon as a mail is asked for."""

import asyncio
from datetime import timedelta
from typing import Final

import structlog
from temporalio import activity
from temporalio.client import Client
from temporalio.common import (
    Priority,
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError

from activities import names
from activities.heartbeats import heartbeats
from schema.ids import mail_workflow_id
from schema.mail import MailOutcome, MailReference
from schema.names import BACKGROUND_QUEUE, SEND_MAIL, TASK_TIMEOUT, USER_ID_ATTRIBUTE
from services.mail.sending import MailSending
from services.mail.transports import MailPostponedError

_log = structlog.get_logger(__name__)

_USER_ID: Final = SearchAttributeKey.for_keyword(USER_ID_ATTRIBUTE)
_RPC_TIMEOUT: Final = timedelta(seconds=5)


class MailActivities:
    """What the workflow `SendMail` does outside itself."""

    def __init__(self, sending: MailSending) -> None:
        self._sending = sending

    async def unstarted(self) -> list[MailReference]:
        """Return mails whose workflow may not have started; no activity.

        Errors: DatabaseUnavailableError.
        """
        return await self._sending.unstarted()

    @activity.defn(name=names.SEND_MAIL)
    async def send_mail(self, mail: MailReference) -> MailOutcome:
        """Try once to send a mail.

        Errors: ApplicationError `MailPostponed`, which is retried.
        Idempotency: what was sent by a process that died is sent again, with another link.
        """
        async with heartbeats():
            try:
                return await self._sending.send(mail.mail_id)
            except MailPostponedError as error:
                _log.warning("mail_postponed", mail=str(mail.mail_id), problem=error.problem)
                raise ApplicationError(str(error), type=names.MAIL_POSTPONED) from None


async def start_mail(client: Client, mail: MailReference) -> None:
    """Start sending a mail, unless it was before. Errors: RPCError."""
    try:
        await client.start_workflow(
            SEND_MAIL,
            mail,
            id=mail_workflow_id(mail.mail_id),
            task_queue=BACKGROUND_QUEUE,
            task_timeout=TASK_TIMEOUT,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            search_attributes=TypedSearchAttributes(
                [SearchAttributePair(_USER_ID, str(mail.user_id))]
            ),
            static_summary=f"mail · {mail.kind.replace('_', ' ')}",
            # The share of the user, as of their turns (workflows/child_workflows.py).
            priority=Priority(fairness_key=str(mail.user_id)),
            rpc_timeout=_RPC_TIMEOUT,
        )
    except WorkflowAlreadyStartedError:
        return


class MailStarter:
    """Starts `SendMail` in the background, without making anyone wait; else the sweeper does."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._starting: set[asyncio.Task[None]] = set()

    def __call__(self, mail: MailReference) -> None:
        """Start sending a mail whose transaction has committed."""
        task = asyncio.create_task(self._start(mail))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _start(self, mail: MailReference) -> None:
        try:
            await start_mail(self._client, mail)
        except (RPCError, RuntimeError) as error:
            # The second where Temporal was never reached.
            _log.warning("mail_not_started", error=type(error).__name__)
