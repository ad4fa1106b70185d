"""The delivery of alerts to the operator's webhook: signed, at least once, for about a day.

The queue is the table: a row whose delivery is pending is sent when its `next_attempt_at` has come.
An attempt is counted, and the next one scheduled, before its request is sent, so that a process
that dies in between neither loses an alert nor repeats it without end.
"""

import asyncio
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg
import structlog
from prometheus_client import Counter

from schema.actors import SERVICE
from schema.alerts import Alert, AlertDeliveryOutcome
from schema.tables.columns import utc_now
from services.database import Database
from services.outgoing.client import OutgoingClient
from services.outgoing.errors import OutgoingError
from services.outgoing.signatures import signature_headers
from services.retry_after import wait_asked_for

_log = structlog.get_logger(__name__)

MOST_ATTEMPTS: Final = 32
"""With the pauses between them: 15 s, doubled up to an hour, and so 24 hours in all."""

_AT_ONCE: Final = 16
_TIMEOUT_S: Final = 10.0
"""Of one request; below the first pause, so that an alert is not sent twice at a time."""
_MAX_ANSWER_BYTES: Final = 64 * 1024
_LONGEST_PAUSE: Final = timedelta(hours=1)

_DELIVERED: Final = Counter(
    "everturn_alert_deliveries",
    "Attempts to send an alert to the webhook: delivered, failed, or given up after the last.",
    ("outcome",),
)

_IS_ANY_DUE: Final = """
SELECT EXISTS (
    SELECT FROM alerts WHERE delivery_status = 'pending' AND next_attempt_at <= now()
)
"""
# The last attempt may have died with its process.
_GIVE_UP: Final = """
UPDATE alerts SET delivery_status = 'failed'
WHERE delivery_status = 'pending' AND next_attempt_at <= now() AND delivery_attempts >= $1
RETURNING id
"""
_CLAIM: Final = """
UPDATE alerts SET
    delivery_attempts = delivery_attempts + 1,
    next_attempt_at = now() + least(interval '1 hour',
                                    interval '15 seconds' * power(2, delivery_attempts))
WHERE id IN (
    SELECT id FROM alerts WHERE delivery_status = 'pending' AND next_attempt_at <= now()
    ORDER BY next_attempt_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
RETURNING *
"""
_STORE_SUCCESS: Final = """
UPDATE alerts SET delivery_status = 'delivered', delivered_at = now(), delivery_problem = NULL
WHERE id = $1
"""
_STORE_FAILURE: Final = """
UPDATE alerts SET
    delivery_problem = $2,
    delivery_status = CASE WHEN delivery_attempts >= $3 THEN 'failed' ELSE 'pending' END,
    next_attempt_at = greatest(next_attempt_at, now() + $4::interval)
WHERE id = $1 AND delivery_status = 'pending'
RETURNING delivery_status
"""
_KEEP_UNSENT: Final = """
UPDATE alerts SET delivery_status = 'stored' WHERE delivery_status = 'pending'
"""


@dataclass(frozen=True, slots=True)
class AlertWebhook:
    """Where alerts are sent, and the key that signs them."""

    outgoing: OutgoingClient
    url: str
    key: bytes


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why an attempt failed, and how long the receiver asks to wait."""

    problem: str
    wait: timedelta = timedelta(0)


class AlertDelivery:
    """Sends alerts. Without a webhook they are only stored. Errors: DatabaseUnavailableError."""

    def __init__(self, database: Database, webhook: AlertWebhook | None) -> None:
        self._database = database
        self._webhook = webhook

    async def is_any_due(self) -> bool:
        """Whether an alert is to be sent now.

        Without a webhook none is; those that waited are marked, so that a webhook which is set
        later gets no flood of old alerts.
        """
        async with self._database.statements(SERVICE) as connection:
            is_due: bool = await connection.fetchval(_IS_ANY_DUE)
            if is_due and self._webhook is None:
                await connection.execute(_KEEP_UNSENT)
        return is_due and self._webhook is not None

    async def deliver_due(self) -> AlertDeliveryOutcome:
        """Send the alerts that are due, at most 16, at the same time.

        Idempotency: the receiver's, by the `Idempotency-Key` of the alert.
        """
        if self._webhook is None:
            return AlertDeliveryOutcome(delivered=0, failed=0)
        async with self._database.statements(SERVICE) as connection:
            for row in await connection.fetch(_GIVE_UP, MOST_ATTEMPTS):
                _note_given_up(row["id"], problem=None)
            claimed = await connection.fetch(_CLAIM, _AT_ONCE)
        webhook = self._webhook
        sent = await asyncio.gather(*(self._deliver(webhook, row) for row in claimed))
        return AlertDeliveryOutcome(delivered=sum(sent), failed=len(sent) - sum(sent))

    async def _deliver(self, webhook: AlertWebhook, row: asyncpg.Record) -> bool:
        alert = Alert.model_validate(dict(row))
        failure = await _send(webhook, alert)
        if failure is None:
            async with self._database.statements(SERVICE) as connection:
                await connection.execute(_STORE_SUCCESS, alert.id)
            _DELIVERED.labels("delivered").inc()
            return True
        async with self._database.statements(SERVICE) as connection:
            status = await connection.fetchval(
                _STORE_FAILURE, alert.id, failure.problem, MOST_ATTEMPTS, failure.wait
            )
        if status == "failed":
            _note_given_up(alert.id, problem=failure.problem)
        else:
            _DELIVERED.labels("failed").inc()
            _log.warning(
                "alert_not_delivered",
                alert=str(alert.id),
                attempt=alert.delivery_attempts,
                problem=failure.problem,
            )
        return False


def payload_of(alert: Alert) -> dict[str, Any]:
    """Return what the webhook gets of an alert."""
    resource = None
    if alert.resource_type is not None:
        resource = {"type": alert.resource_type, "id": alert.resource_id}
    wire = alert.model_dump(mode="json", by_alias=True)
    same = ("id", "kind", "severity", "userId", "details", "createdAt")
    return {**{name: wire[name] for name in same}, "resource": resource}


async def _send(webhook: AlertWebhook, alert: Alert) -> _Failure | None:
    """Send an alert once; return why it was not taken, or None."""
    body = json.dumps(payload_of(alert), separators=(",", ":")).encode()
    key = str(alert.id)
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": key,
        # On a kept connection that the server is closing, it is unknown what was read.
        "Connection": "close",
        **signature_headers(webhook.key, body, message_id=key, moment=utc_now()),
    }
    try:
        answer = await webhook.outgoing.request(
            "POST",
            webhook.url,
            headers=headers,
            content=body,
            timeout_s=_TIMEOUT_S,
            max_bytes=_MAX_ANSWER_BYTES,
        )
    except OutgoingError as error:
        return _Failure(error.sentence)
    if 200 <= answer.status < 300:
        return None
    asked = wait_asked_for(answer.headers, longest=_LONGEST_PAUSE)
    return _Failure(f"The webhook answered with status {answer.status}.", asked or timedelta(0))


def _note_given_up(alert_id: UUID, *, problem: str | None) -> None:
    _DELIVERED.labels("given_up").inc()
    _log.error("alert_given_up", alert=str(alert_id), problem=problem)
