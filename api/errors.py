"""Errors as HTTP responses: one shape for all, without internal details.

ApiError    raised by routes; everything else is translated here
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final, TypeAlias, TypeVar

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from api import error_messages
from api.envelope import ErrorBody, ErrorResponse, FieldProblem, Meta, request_id_of
from api.error_messages import REFUSALS, Problem
from api.routing import TooManyItemsError, takes_head
from api.security_headers import SECURITY_HEADERS
from api.validation_messages import validation_message
from schema.budgets import BudgetExceeded
from schema.errors import HTTP_STATUS, MESSAGES, RETRYABLE, ErrorCode
from schema.ids import TurnId
from schema.pages import InvalidCursorError
from schema.result import Err, Result
from schema.turn_options import UNION_TAGS
from schema.wire import make_storable
from services.auth.external_accounts import AccountExistsError
from services.auth.issuer_keys import IssuerUnavailableError
from services.database import ActorGoneError, DatabaseUnavailableError
from services.files.service import StorageFull
from services.files.store import FilesUnavailableError
from services.knowledge.extraction.extractor import ExtractionProcessError
from services.prompts.service import Unusable
from services.resources import InvalidField, LimitReached, Unreachable
from services.subscriptions.plans import UnknownModel
from services.turns.acceptance import TooLong
from services.turns.options import NotIncluded

T = TypeVar("T")

Refusal: TypeAlias = (
    StrEnum
    | BudgetExceeded
    | InvalidField
    | LimitReached
    | NotIncluded
    | StorageFull
    | TooLong
    | UnknownModel
    | Unusable
)
"""What services return instead of a result; enums are looked up in `error_messages.REFUSALS`."""

Details: TypeAlias = Sequence[FieldProblem] | BudgetExceeded | None

_log = structlog.get_logger(__name__)

_RETRY_AFTER_S: Final = "2"
_MAX_DETAILS: Final = 100
RATE_LIMIT_HEADERS_KEY: Final = "everturn.rate_limit_headers"
"""The key of a request's rate limit headers in its scope."""
_BY_STATUS: Final = {
    400: ErrorCode.VALIDATION_ERROR,
    401: ErrorCode.UNAUTHENTICATED,
    403: ErrorCode.FORBIDDEN,
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    412: ErrorCode.PRECONDITION_FAILED,
    413: ErrorCode.PAYLOAD_TOO_LARGE,
    422: ErrorCode.VALIDATION_ERROR,
    429: ErrorCode.RATE_LIMITED,
    503: ErrorCode.SERVICE_UNAVAILABLE,
}


class ApiError(Exception):
    """An error on its way to the client; `turn_id` is the failed turn's, if one failed."""

    def __init__(
        self,
        code: ErrorCode,
        message: str | None = None,
        *,
        path: str | None = None,
        details: Details = None,
        turn_id: TurnId | None = None,
    ) -> None:
        self.code = code
        self.message = message or MESSAGES[code]
        super().__init__(self.message)
        self.details = details
        if path is not None:
            self.details = [FieldProblem(path=path, message=self.message)]
        self.turn_id = turn_id


def invalid(path: str, message: str) -> ApiError:
    """Return the error for one invalid part of a request."""
    return ApiError(ErrorCode.VALIDATION_ERROR, message, path=path)


def refused(refusal: Refusal, noun: str) -> ApiError:  # noqa: PLR0911 -- one for each kind
    """Return the error for a service's refusal; `noun` is the kind of resource."""
    match refusal:
        case BudgetExceeded():
            # Without Retry-After: until it resets may be weeks, which no client should wait for.
            return ApiError(ErrorCode.BUDGET_EXCEEDED, refusal.message, details=refusal)
        case InvalidField(path=path, message=message):
            return invalid(path, message)
        case NotIncluded(path=path, message=message):
            return ApiError(ErrorCode.FORBIDDEN, message, path=path)
        case LimitReached(limit):
            message = error_messages.LIMIT_REACHED.format(limit, _plural(noun))
            return ApiError(ErrorCode.FORBIDDEN, message)
        case StorageFull(limit):
            return ApiError(ErrorCode.FORBIDDEN, error_messages.STORAGE_FULL.format(limit))
        case TooLong(length, limit):
            message = error_messages.MESSAGE_TOO_LONG.format(limit, length)
            return invalid("body.content", message)
        case UnknownModel(position):
            return invalid(f"body.entitlements.models.{position}", "Unknown model.")
        case Unusable(problems):
            details = [FieldProblem(path="content", message=problem) for problem in problems]
            message = error_messages.VERSION_UNUSABLE
            return ApiError(ErrorCode.CONFLICT, message, details=details)
        case _:
            return _of_problem(REFUSALS[type(refusal)][refusal], noun)


def _of_problem(problem: Problem, noun: str) -> ApiError:
    capitalised = f"{noun[:1].upper()}{noun[1:]}"
    message = problem.message.replace("{noun}", noun).replace("{Noun}", capitalised)
    return ApiError(problem.code, message, path=problem.path)


def _plural(noun: str) -> str:
    return f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}s"


def value_or_raise(result: Result[T, Refusal], noun: str) -> T:
    """Return a decision's value, or raise the error for its refusal."""
    if isinstance(result, Err):
        raise refused(result.error, noun)
    return result.value


def account_or_raise(result: Result[T, Refusal]) -> T:
    """Return a decision's value for the caller's account, or raise the error for its refusal.

    A caller whose account was deleted in the meantime is not signed in.
    """
    if isinstance(result, Err) and result.error is Unreachable.MISSING:
        raise ApiError(ErrorCode.UNAUTHENTICATED)
    return value_or_raise(result, "account")


def install_error_handlers(app: FastAPI) -> None:
    """Respond to every failure of the application in the same shape."""
    _install_caller_handlers(app)
    _install_outage_handlers(app)

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> JSONResponse:
        return refusal(request, error)

    @app.exception_handler(InvalidCursorError)
    async def invalid_cursor(request: Request, error: InvalidCursorError) -> JSONResponse:
        return refusal(request, invalid("query.cursor", str(error)))

    @app.exception_handler(RequestValidationError)
    async def not_valid(request: Request, error: RequestValidationError) -> JSONResponse:
        allowed = _documented(request.app).get(request.url.path)
        if allowed is not None and request.method not in allowed:
            # Another route's path parameter matched this path.
            code = ErrorCode.METHOD_NOT_ALLOWED
            headers = {"Allow": ", ".join(_methods(request.url.path, allowed))}
            return error_response(request, code, MESSAGES[code], headers=headers)
        # What reads the same body before the route finds the same.
        details = [*dict.fromkeys(map(field_problem, error.errors()[:_MAX_DETAILS]))]
        code = ErrorCode.VALIDATION_ERROR
        message = f"{details[0].path}: {details[0].message}" if details else MESSAGES[code]
        return error_response(request, ErrorCode.VALIDATION_ERROR, message, details=details)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == HTTPStatus.BAD_REQUEST:
            return refusal(request, invalid("body", _why_unreadable(error.__cause__)))
        code = _BY_STATUS.get(error.status_code, ErrorCode.INTERNAL)
        message = MESSAGES[code]
        headers = error.headers
        if code is ErrorCode.METHOD_NOT_ALLOWED:
            headers = {"Allow": ", ".join(_allowed_methods(request))}
        return error_response(request, code, message, headers=headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        _log.error("request_failed", path=request.url.path, exc_info=error)
        return error_response(request, ErrorCode.INTERNAL, MESSAGES[ErrorCode.INTERNAL])


def _why_unreadable(cause: BaseException | None) -> str:
    """Return why a body can't be read, for failures that come before JSON's own."""
    match cause:
        case RecursionError():
            return error_messages.NESTED_TOO_DEEPLY
        case UnicodeError():
            return error_messages.NOT_UTF_8
        case TooManyItemsError():
            return error_messages.TOO_MANY_ITEMS
        case _:
            return error_messages.UNREADABLE


def _allowed_methods(request: Request) -> list[str]:
    """Return the methods of all routes with this path; Starlette knows the first route's."""
    paths = _documented(request.app)
    if request.url.path in paths:
        return _methods(request.url.path, paths[request.url.path])
    documented = (
        method
        for template, of in paths.items()
        if compile_path(template)[0].match(request.url.path)
        for method in of
    )
    return _methods(request.url.path, documented)


def _documented(app: FastAPI) -> dict[str, set[str]]:
    """Return the methods of each documented path, without the document: that takes a second."""
    found: dict[str, set[str]] | None = getattr(app.state, "documented_methods", None)
    if found is None:
        found = app.state.documented_methods = {}
        for route in iter_route_contexts(app.routes):
            if getattr(route, "include_in_schema", False) and route.path_format:
                found.setdefault(route.path_format, set()).update(route.methods or ())
    return found


def _methods(path: str, documented: Iterable[str]) -> list[str]:
    """Return the methods that a path takes; routes list all but HEAD."""
    methods = set(documented)
    if "GET" in methods and takes_head(path):
        methods.add("HEAD")
    return sorted(methods)


def _install_caller_handlers(app: FastAPI) -> None:
    """Respond to failures that concern the caller, on any route."""

    @app.exception_handler(ActorGoneError)
    async def gone(request: Request, _: ActorGoneError) -> JSONResponse:
        return refusal(request, ApiError(ErrorCode.UNAUTHENTICATED))

    @app.exception_handler(AccountExistsError)
    async def account_exists(request: Request, error: AccountExistsError) -> JSONResponse:
        return refusal(request, ApiError(ErrorCode.CONFLICT, str(error)))

    @app.exception_handler(IssuerUnavailableError)
    async def no_issuer(request: Request, _: IssuerUnavailableError) -> JSONResponse:
        message = error_messages.ISSUER_UNAVAILABLE
        return refusal(request, ApiError(ErrorCode.SERVICE_UNAVAILABLE, message))


def _install_outage_handlers(app: FastAPI) -> None:
    """Respond to outages of what the application depends on."""

    @app.exception_handler(DatabaseUnavailableError)
    async def no_database(request: Request, error: DatabaseUnavailableError) -> JSONResponse:
        _log.warning("database_unavailable", cause=type(error.__cause__).__name__)
        code = ErrorCode.SERVICE_UNAVAILABLE
        return error_response(request, code, MESSAGES[code])

    @app.exception_handler(FilesUnavailableError)
    @app.exception_handler(ExtractionProcessError)
    async def no_files(request: Request, error: Exception) -> JSONResponse:
        _log.warning("files_unavailable", cause=type(error).__name__)
        return refusal(
            request, ApiError(ErrorCode.SERVICE_UNAVAILABLE, error_messages.FILES_UNAVAILABLE)
        )


def refusal(request: Request, error: ApiError) -> JSONResponse:
    """Return the response for an error."""
    return error_response(
        request, error.code, error.message, details=error.details, turn_id=error.turn_id
    )


def error_response(
    request: Request,
    code: ErrorCode,
    message: str,
    *,
    details: Details = None,
    turn_id: TurnId | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return the response for an error."""
    body = ErrorResponse(
        error=ErrorBody(
            code=code,
            message=message,
            details=list(details) if isinstance(details, Sequence) else details,
            retryable=code in RETRYABLE,
            turn_id=turn_id,
        ),
        meta=Meta(request_id=request_id_of(request)),
    )
    # The middleware that adds these does not see the response to an unexpected exception.
    limits = request.scope.get(RATE_LIMIT_HEADERS_KEY, {})
    extra = {
        **SECURITY_HEADERS,
        **(headers or {}),
        **limits,
        "X-Request-Id": request_id_of(request),
    }
    if turn_id is not None:
        extra["X-Turn-Id"] = str(turn_id)
    if code is ErrorCode.SERVICE_UNAVAILABLE:
        extra["Retry-After"] = _RETRY_AFTER_S
    if code is ErrorCode.UNAUTHENTICATED:
        extra["WWW-Authenticate"] = "Bearer"
    return JSONResponse(
        body.model_dump(mode="json", by_alias=True, exclude_none=True),
        status_code=HTTP_STATUS[code],
        headers=extra,
    )


# The discriminator of a body with several shapes is not part of a field's path.
_VARIANTS: Final = (["stdio"], ["http"])


def field_problem(problem: Mapping[str, Any]) -> FieldProblem:
    """Return one of pydantic's errors as a client sees it: the field's path, and what is valid."""
    where = [step for step in problem["loc"] if step not in UNION_TAGS]
    message = validation_message(problem)
    if problem["type"] == "json_invalid":
        del where[1:]
    if where[:1] == ["body"] and where[1:2] in _VARIANTS:
        del where[1]
    path = make_storable(".".join(map(str, where)))
    return FieldProblem(path=path[:200], message=make_storable(message)[:300])
