"""Owns the address at which workflow tools answer calls that they had taken."""

from typing import Annotated, Any, Final, assert_never
from uuid import UUID

from fastapi import Depends, Header, Path, Request
from starlette.requests import ClientDisconnect

from api.dependencies import Services, client_host
from api.documentation import error_docs
from api.envelope import Envelope, envelope
from api.errors import ApiError, invalid
from api.group_router import GroupRouter
from api.rate_limit_answers import RATE_LIMITED_DOCS, tell
from schema.errors import ErrorCode
from schema.result import Err
from schema.tool_callbacks import ToolCallbackReceipt, ToolCallbackRequest
from services.workflow_tools.callbacks import CallbackRefusal
from services.workflow_tools.signatures import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER

router = GroupRouter("/tool-callbacks", tag="tools")


def _body_schema() -> dict[str, Any]:
    """Return the schema of a body, without references: in a document they would lead nowhere."""
    schema = ToolCallbackRequest.model_json_schema()
    schema.pop("$defs", None)
    # Any JSON at all, which has no schema to be referred to.
    schema["properties"]["output"].pop("$ref", None)
    return schema


_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _body_schema()}},
    }
}
_UNBELIEVED: Final = {
    CallbackRefusal.UNSIGNED: (
        f"Sign the answer: send {ID_HEADER}, {TIMESTAMP_HEADER} and {SIGNATURE_HEADER}."
    ),
    CallbackRefusal.OUT_OF_TIME: (
        f"{TIMESTAMP_HEADER} has to be the time in seconds, within five minutes of now."
    ),
    CallbackRefusal.WRONG_SIGNATURE: (
        f"{SIGNATURE_HEADER} is not that of this id, time and body by the tool's secret."
    ),
}
_OVER: Final = {
    CallbackRefusal.ANSWERED: "This call was answered already.",
    CallbackRefusal.TURN_OVER: "The turn that made this call is over.",
    CallbackRefusal.TOO_LATE: "This call is not waited for any more.",
}


# Async although nothing waits: FastAPI hands plain functions to a thread.
async def _signature(
    message_id: Annotated[
        str, Header(alias=ID_HEADER, description="The callback's id, as in the address.")
    ] = "",
    timestamp: Annotated[
        str, Header(alias=TIMESTAMP_HEADER, description="Now, in seconds since 1970.")
    ] = "",
    signature: Annotated[
        str,
        Header(
            alias=SIGNATURE_HEADER,
            description="`v1,` and base64 of the HMAC-SHA256 of `id.timestamp.body`, by the "
            "tool's secret; several are separated by spaces.",
        ),
    ] = "",
) -> dict[str, str]:
    return {ID_HEADER: message_id, TIMESTAMP_HEADER: timestamp, SIGNATURE_HEADER: signature}


@router.post(
    "/{callback_id}",
    summary="Answer a tool call later",
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
    """Give the answer of a call that a workflow tool took with 202.

    Who sends it is known by the signature, as Standard Webhooks has it, by the secret of the tool;
    nobody is signed in. A call is answered once: another answer is refused, and so is one for a
    turn that is over.
    """
    accepted = await services.tools.callbacks.accept(callback_id, signature, await _body(request))
    if isinstance(accepted, Err):
        if accepted.error is CallbackRefusal.UNKNOWN or accepted.error in _UNBELIEVED:
            # Those whose answers are in order are let through, however many they send.
            guess = await services.operations.rate_limits.wrong_credential(client_host(request))
            tell(request, guess)
        raise _refused(accepted.error)
    await services.temporal.complete_callback(accepted.value)
    return envelope(request, ToolCallbackReceipt(status=accepted.value.status))


async def _body(request: Request) -> bytes:
    """Return the body as it was signed, to the byte."""
    try:
        return await request.body()
    except ClientDisconnect:
        raise invalid("body", "The body ended too soon.") from None


def _refused(refusal: CallbackRefusal) -> ApiError:
    match refusal:
        case CallbackRefusal.UNKNOWN:
            return ApiError(ErrorCode.NOT_FOUND, "There is no such callback.")
        case (
            CallbackRefusal.UNSIGNED | CallbackRefusal.OUT_OF_TIME | CallbackRefusal.WRONG_SIGNATURE
        ):
            return ApiError(ErrorCode.UNAUTHENTICATED, _UNBELIEVED[refusal])
        case CallbackRefusal.ANSWERED | CallbackRefusal.TURN_OVER | CallbackRefusal.TOO_LATE:
            return ApiError(ErrorCode.CONFLICT, _OVER[refusal])
        case CallbackRefusal.MALFORMED:
            return invalid("body", 'Send {"output": anything, "isError": true or false} as JSON.')
        case _:
            assert_never(refusal)
