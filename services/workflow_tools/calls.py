"""Calls of workflow tools: the signed request, and what becomes of its response.

All that is stored of a call is the id of its callback; `callbacks.py` accepts that.
"""

import json
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from typing import Final
from urllib.parse import quote
from uuid import UUID, uuid4

import structlog
from pydantic import JsonValue

from schema.tables.columns import utc_now
from schema.tools import RetryClass, ToolDefinition
from services.database import Database, DatabaseUnavailableError
from services.outgoing.client import OutgoingClient
from services.outgoing.errors import OutgoingError
from services.outgoing.signatures import signature_headers
from services.tools.definition import ToolExecution, ToolOutcome, ToolUnavailableError
from services.tools.executor import AnswersLater
from services.tools.secrets import SecretVault, UnreadableSecretError
from services.workflow_tools.answers import Later, WebhookAnswer, meaning_of
from services.workflow_tools.service import Webhook, find_webhook

_log = structlog.get_logger(__name__)

CALLBACKS_PATH: Final = "/api/v1/tool-callbacks"
_MAX_ANSWER_BYTES: Final = 1024 * 1024
_NOT_AWAITED: Final = (
    "The workflow accepted the call and will answer later. Trials don't wait for callbacks."
)
# The same for every attempt of a call. It is stored before the request is made: a workflow may call
# back before its response has been read.
_EXPECT_CALLBACK: Final = """
UPDATE tool_calls SET callback_id = coalesce(callback_id, $4)
WHERE turn_id = $1 AND step = $2 AND tool_call_id = $3
  AND status NOT IN ('completed', 'failed', 'denied')
RETURNING callback_id
"""


class WorkflowToolCalls:
    """Calls webhooks for users, and for trials of administrators."""

    def __init__(
        self, database: Database, vault: SecretVault, outgoing: OutgoingClient, *, public_url: str
    ) -> None:
        self._database = database
        self._vault = vault
        self._outgoing = outgoing
        self._public_url = public_url

    async def run(
        self,
        definition: ToolDefinition,
        tool_input: Mapping[str, JsonValue],
        execution: ToolExecution,
        /,
    ) -> ToolOutcome | AnswersLater:
        """Call the webhook once, and return its outcome, or that it will answer later.

        Idempotency: the workflow's, by the `Idempotency-Key` of the call.
        Errors: ToolUnavailableError.
        """
        try:
            webhook = await find_webhook(self._database, self._vault, definition.name)
            if webhook is None or not webhook.enabled:
                return _error("This tool was removed or disabled.")
            callback_id = await self._expected_callback(execution)
        except UnreadableSecretError:
            _log.error("workflow_tool_secret_unreadable", tool=definition.name)
            return _error("This tool is unavailable: an administrator must enter its secret again.")
        except DatabaseUnavailableError as error:
            raise ToolUnavailableError("The tool can't be run right now.", reached=False) from error
        body = self._body(definition, tool_input, execution, callback_id)
        answer = await self._send(webhook, body, execution, definition.timeout.total_seconds())
        if isinstance(answer, ToolOutcome):
            return answer
        meaning = _meaning(answer, definition, execution)
        if meaning is not Later.BY_CALLBACK:
            return meaning.model_copy(update={"output": webhook.mask(meaning.output)})
        if callback_id is None:
            return ToolOutcome(output=_NOT_AWAITED)
        return AnswersLater(callback_id)

    async def _expected_callback(self, execution: ToolExecution) -> UUID | None:
        """Return the id of the call's callback; a trial has none."""
        if execution.turn_id is None:
            return None
        call = (execution.turn_id, execution.step, execution.tool_call_id)
        async with self._database.statements(execution.actor) as connection:
            expected: UUID | None = await connection.fetchval(_EXPECT_CALLBACK, *call, uuid4())
        if expected is None:
            raise ToolUnavailableError("The turn ended before the call was sent.", reached=False)
        return expected

    def _body(
        self,
        definition: ToolDefinition,
        tool_input: Mapping[str, JsonValue],
        execution: ToolExecution,
        callback_id: UUID | None,
    ) -> bytes:
        """Return the request's body, in ASCII, so that no decoding on the way changes it."""
        payload = {
            "tool": definition.name,
            "input": dict(tool_input),
            "key": execution.key,
            "turnId": _text(execution.turn_id),
            "chatId": _text(execution.chat_id),
            "userId": str(execution.actor.user_id),
            "toolCallId": execution.tool_call_id,
            "step": execution.step,
            "attempt": execution.attempt,
            "callbackId": _text(callback_id),
            "callbackUrl": None if callback_id is None else self.callback_url(callback_id),
        }
        return json.dumps(payload, separators=(",", ":")).encode()

    def callback_url(self, callback_id: UUID) -> str:
        """Return the URL for a workflow's later answer."""
        return f"{self._public_url}{CALLBACKS_PATH}/{callback_id}"

    async def _send(
        self, webhook: Webhook, body: bytes, execution: ToolExecution, timeout_s: float
    ) -> WebhookAnswer | ToolOutcome:
        key = _in_header(execution.key)
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/plain;q=0.5",
            "User-Agent": _user_agent(),
            "Idempotency-Key": key,
            # On a kept connection that the server is closing, it is unknown what was read.
            "Connection": "close",
            **signature_headers(webhook.key, body, message_id=key, moment=utc_now()),
        }
        try:
            answer = await self._outgoing.request(
                "POST",
                webhook.url,
                headers=headers,
                content=body,
                timeout_s=timeout_s,
                max_bytes=_MAX_ANSWER_BYTES,
            )
        except OutgoingError as error:
            _log.warning("webhook_failed", tool=webhook.name, error=type(error).__name__)
            what = "returned no result" if error.reached else "could not be called"
            sentence = f"The workflow {what}. {error.sentence}"
            if not error.is_final:
                raise ToolUnavailableError(sentence, reached=error.reached) from None
            cost_usd = None if error.reached else Decimal(0)
            return ToolOutcome(output=sentence, is_error=True, cost_usd=cost_usd)
        # Here, because a refusal is quoted in part: it could end in the midst of a secret.
        text = webhook.mask(answer.body.decode("utf-8", "surrogateescape"))
        masked = text.encode("utf-8", "surrogateescape")
        return WebhookAnswer(answer.status, answer.headers, masked)


def _meaning(
    answer: WebhookAnswer, definition: ToolDefinition, execution: ToolExecution
) -> ToolOutcome | Later:
    """Return what an answer means; it may be that of an engine that an earlier attempt missed."""
    may_be_repeated = definition.retry_class is not RetryClass.NEVER
    return meaning_of(
        answer, now=utc_now(), may_be_starting=may_be_repeated and execution.attempt > 1
    )


def _error(sentence: str) -> ToolOutcome:
    return ToolOutcome(output=sentence, is_error=True)


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)


def _in_header(key: str) -> str:
    """Return a key that is valid in a header: the model's part of it may be anything."""
    return quote(key, safe=":~!$&*+=@")


@cache
def _user_agent() -> str:
    return f"everturn/{version('everturn')}"
