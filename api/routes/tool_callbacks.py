"""Callbacks: the later answers of workflow tools to calls that they accepted."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, Header, Path, Request
from starlette.requests import ClientDisconnect

from api.access import RATE_LIMITED_DOCS, client_host, enforce
from api.dependencies import Services
from api.envelope import Envelope, envelope
from api.error_messages import BODY_INCOMPLETE
from api.errors import invalid, value_or_raise
from api.openapi import error_docs
from api.routing import GroupRouter
from schema.errors import ErrorCode
from schema.result import Err
from schema.tool_callbacks import ToolCallbackReceipt, ToolCallbackRequest
from services.outgoing.signatures import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from services.workflow_tools.callbacks import CallbackRefusal

router = GroupRouter("/tool-callbacks", tag="tools")


def _body_schema() -> dict[str, Any]:
    """Return the schema of a body without references, which a document could not resolve."""
    schema = ToolCallbackRequest.model_json_schema()
    schema.pop("$defs", None)
    # `JsonValue` allows any JSON and has no schema.
    schema["properties"]["output"].pop("$ref", None)
    return schema


_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _body_schema()}},
    }
}
_UNAUTHENTICATED: Final = frozenset(
    {
        CallbackRefusal.UNKNOWN,
        CallbackRefusal.UNSIGNED,
        CallbackRefusal.OUT_OF_TIME,
        CallbackRefusal.WRONG_SIGNATURE,
    }
)


# Async although nothing is awaited: FastAPI runs plain functions in a thread.
async def _signature(
    message_id: Annotated[
        str, Header(alias=ID_HEADER, description="The callback's ID, as in the URL.")
    ] = "",
    timestamp: Annotated[
        str, Header(alias=TIMESTAMP_HEADER, description="The current Unix time in seconds.")
    ] = "",
    signature: Annotated[
        str,
        Header(
            alias=SIGNATURE_HEADER,
            description="`v1,` and the base64 HMAC-SHA256 of `id.timestamp.body` with the tool's "
            "secret; separate several with spaces.",
        ),
    ] = "",
) -> dict[str, str]:
    return {ID_HEADER: message_id, TIMESTAMP_HEADER: timestamp, SIGNATURE_HEADER: signature}


@router.post(
    "/{callback_id}",
    name="toolCallbacks.create",
    summary="Answer a tool call",
    responses=error_docs(ErrorCode.UNAUTHENTICATED, ErrorCode.NOT_FOUND, ErrorCode.CONFLICT)
    | RATE_LIMITED_DOCS,
    openapi_extra=_BODY,
)
async def answer_tool_call(
    request: Request,
    callback_id: Annotated[UUID, Path(description="The last part of the `callbackUrl`.")],
    signature: Annotated[dict[str, str], Depends(_signature)],
    services: Services,
) -> Envelope[ToolCallbackReceipt]:
    """Answer a call that a workflow tool accepted with 202.

    The sender is authenticated by a signature with the tool's secret, as in Standard Webhooks. A
    call is answered once: another answer is refused, and so is one for a turn that has ended.
    """
    body = await _body(request)
    accepted = await services.tools.callbacks.accept(callback_id, signature, body)
    if isinstance(accepted, Err) and accepted.error in _UNAUTHENTICATED:
        # Valid answers are not limited, however many arrive.
        limits = services.operations.rate_limits
        enforce(request, await limits.wrong_credential(client_host(request)))
    answered = value_or_raise(accepted, "callback")
    await services.temporal.complete_callback(answered)
    return envelope(request, ToolCallbackReceipt(status=answered.status))


async def _body(request: Request) -> bytes:
    """Return the body byte for byte, as it was signed."""
    try:
        return await request.body()
    except ClientDisconnect:
        raise invalid("body", BODY_INCOMPLETE) from None
