"""Owns turning refusals and exceptions into HTTP answers: one shape, no detail leaked.

ApiError    raised by routes; everything else is translated here
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, TypeVar, assert_never

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from api.envelope import ErrorBody, ErrorEnvelope, FieldProblem, Meta, request_id_of
from api.head_requests import takes_head
from schema.errors import HTTP_STATUS, RETRYABLE, ErrorCode
from schema.pages import InvalidCursorError
from schema.result import Err, Result
from schema.wire import make_storable
from services.auth.external_accounts import AccountExistsError
from services.auth.issuer_keys import IssuerUnavailableError
from services.database import ActorGoneError, DatabaseUnavailableError
from services.resources import Conflict, Unreachable

T = TypeVar("T")
E = TypeVar("E")

_log = structlog.get_logger(__name__)

_RETRY_AFTER_S: Final = "2"
RATE_LIMIT_HEADERS_KEY: Final = "everturn.rate_limit_headers"
"""Where the scope of a request has the headers that tell of its rate limit."""
TOO_DEEP: Final = "This is nested too deep."
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
_SENTENCES: Final = {
    ErrorCode.UNAUTHENTICATED: "Sign in first: send a valid access token as a bearer token.",
    ErrorCode.NOT_FOUND: "There is nothing at this address.",
    ErrorCode.METHOD_NOT_ALLOWED: "This address does not take this method.",
    ErrorCode.PAYLOAD_TOO_LARGE: "The body is too large.",
    ErrorCode.SERVICE_UNAVAILABLE: "Everturn can't reach its database now. Try again shortly.",
    ErrorCode.INTERNAL: "Something went wrong here; it has been logged under the request id.",
}


class ApiError(Exception):
    """A refusal on its way to the client."""

    def __init__(
        self, code: ErrorCode, message: str | None = None, *, path: str | None = None
    ) -> None:
        super().__init__(message or _SENTENCES[code])
        self.code = code
        self.message = message or _SENTENCES[code]
        self.details = None if path is None else [FieldProblem(path=path, message=self.message)]


def invalid(path: str, message: str) -> ApiError:
    """Return the error for one invalid part of a request."""
    return ApiError(ErrorCode.VALIDATION_ERROR, message, path=path)


def refused(refusal: Conflict | Unreachable, noun: str) -> ApiError:
    """Return the error for a refusal that all services share; `noun` is what was asked for."""
    match refusal:
        case Unreachable.MISSING:
            return ApiError(ErrorCode.NOT_FOUND, f"There is no such {noun}.")
        case Unreachable.FORBIDDEN:
            return ApiError(ErrorCode.FORBIDDEN, f"This {noun} belongs to someone else.")
        case Conflict.VERSION_CHANGED:
            return ApiError(
                ErrorCode.PRECONDITION_FAILED,
                f"This {noun} has changed since you read it. Read it again, then change it.",
            )
        case Conflict.KEY_REUSED:
            return ApiError(
                ErrorCode.IDEMPOTENCY_CONFLICT,
                "This idempotency key was used for another request.",
            )
        case Conflict.RESOURCE_DELETED:
            return ApiError(
                ErrorCode.IDEMPOTENCY_CONFLICT,
                "What this idempotency key made has been deleted since.",
            )
        case _:
            assert_never(refusal)


def account_gone(_: Unreachable) -> ApiError:
    """Return the error for a caller whose own account is gone: nobody is signed in any more."""
    return ApiError(ErrorCode.UNAUTHENTICATED)


def value_or_raise(result: Result[T, E], refuse: Callable[[E], ApiError]) -> T:
    """Return what came of a decision, or raise what `refuse` makes of its refusal."""
    if isinstance(result, Err):
        raise refuse(result.error)
    return result.value


def install_error_handlers(app: FastAPI) -> None:
    """Answer every failure of the application in the one shape."""
    _install_caller_handlers(app)

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> JSONResponse:
        return refusal(request, error)

    @app.exception_handler(InvalidCursorError)
    async def no_such_page(request: Request, error: InvalidCursorError) -> JSONResponse:
        return refusal(request, invalid("query.cursor", str(error)))

    @app.exception_handler(RequestValidationError)
    async def not_valid(request: Request, error: RequestValidationError) -> JSONResponse:
        allowed = request.app.openapi()["paths"].get(request.url.path)
        if allowed is not None and request.method.lower() not in allowed:
            # The path of another route has a parameter that this address was taken for.
            code = ErrorCode.METHOD_NOT_ALLOWED
            headers = {"Allow": ", ".join(_methods(request.url.path, allowed))}
            return error_response(request, code, _SENTENCES[code], headers=headers)
        details = [_problem(problem) for problem in error.errors()]
        message = f"{details[0].path}: {details[0].message}" if details else "Invalid request."
        return error_response(request, ErrorCode.VALIDATION_ERROR, message, details=details)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == HTTPStatus.BAD_REQUEST:
            return refusal(request, invalid("body", _why_unreadable(error.__cause__)))
        code = _BY_STATUS.get(error.status_code, ErrorCode.INTERNAL)
        message = _SENTENCES.get(code, str(error.detail))
        headers = error.headers
        if code is ErrorCode.METHOD_NOT_ALLOWED:
            headers = {"Allow": ", ".join(_allowed_methods(request))}
        return error_response(request, code, message, headers=headers)

    @app.exception_handler(DatabaseUnavailableError)
    async def no_database(request: Request, error: DatabaseUnavailableError) -> JSONResponse:
        _log.warning("database_unavailable", cause=type(error.__cause__).__name__)
        code = ErrorCode.SERVICE_UNAVAILABLE
        return error_response(request, code, _SENTENCES[code])

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        _log.error("request_failed", path=request.url.path, exc_info=error)
        return error_response(request, ErrorCode.INTERNAL, _SENTENCES[ErrorCode.INTERNAL])


def _why_unreadable(cause: BaseException | None) -> str:
    """Say why a body could not be read that fails before it can be called invalid JSON."""
    match cause:
        case RecursionError():
            return TOO_DEEP
        case UnicodeError():
            return "This is not valid UTF-8."
        case _:
            return "This can't be read."


def _allowed_methods(request: Request) -> list[str]:
    """Return the methods of all routes at this address; Starlette knows those of the first."""
    paths = request.app.openapi()["paths"]
    if request.url.path in paths:
        return _methods(request.url.path, paths[request.url.path])
    documented = (
        method
        for template, of in paths.items()
        if compile_path(template)[0].match(request.url.path)
        for method in of
    )
    return _methods(request.url.path, documented)


def _methods(path: str, documented: Iterable[str]) -> list[str]:
    """Return the methods that a path takes, of which OpenAPI names all but HEAD."""
    methods = set(map(str.upper, documented))
    if "GET" in methods and takes_head(path):
        methods.add("HEAD")
    return sorted(methods)


def _install_caller_handlers(app: FastAPI) -> None:
    """Answer failures that come of who calls, at whichever route they do."""

    @app.exception_handler(ActorGoneError)
    async def gone(request: Request, _: ActorGoneError) -> JSONResponse:
        return refusal(request, ApiError(ErrorCode.UNAUTHENTICATED))

    @app.exception_handler(AccountExistsError)
    async def account_exists(request: Request, error: AccountExistsError) -> JSONResponse:
        return refusal(request, ApiError(ErrorCode.CONFLICT, str(error)))

    @app.exception_handler(IssuerUnavailableError)
    async def no_issuer(request: Request, _: IssuerUnavailableError) -> JSONResponse:
        message = "The issuer of this token can't be asked for its keys now. Try again shortly."
        return refusal(request, ApiError(ErrorCode.SERVICE_UNAVAILABLE, message))


def refusal(request: Request, error: ApiError) -> JSONResponse:
    """Return the answer for a refusal."""
    return error_response(request, error.code, error.message, details=error.details)


def error_response(
    request: Request,
    code: ErrorCode,
    message: str,
    *,
    details: Sequence[FieldProblem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return the answer for an error."""
    body = ErrorEnvelope(
        error=ErrorBody(
            code=code,
            message=message,
            details=None if details is None else list(details),
            retryable=code in RETRYABLE,
        ),
        meta=Meta(request_id=request_id_of(request)),
    )
    # The middleware that adds these does not see the answer to an unexpected exception.
    told = request.scope.get(RATE_LIMIT_HEADERS_KEY, {})
    extra = {**(headers or {}), **told, "X-Request-Id": request_id_of(request)}
    if code is ErrorCode.SERVICE_UNAVAILABLE:
        extra["Retry-After"] = _RETRY_AFTER_S
    if code is ErrorCode.UNAUTHENTICATED:
        extra["WWW-Authenticate"] = "Bearer"
    return JSONResponse(
        body.model_dump(mode="json", by_alias=True, exclude_none=True),
        status_code=HTTP_STATUS[code],
        headers=extra,
    )


# Which of several shapes a body has is said by a field in it, and is no part of a field's path.
_VARIANTS: Final = (["stdio"], ["http"])


def _problem(problem: Mapping[str, Any]) -> FieldProblem:
    """Say where and what, never what was sent: it may be a secret, or no text at all."""
    where, context = list(problem["loc"]), problem.get("ctx", {})
    match problem["type"]:
        case "json_invalid":
            where, message = where[:1], f"This is not valid JSON, at character {where[-1]}."
        case "too_short" | "string_too_short":
            things = "characters" if isinstance(problem.get("input"), str) else "items"
            message = f"This has to have {context['min_length']} {things} at least."
        case "too_long" | "string_too_long":
            things = "characters" if isinstance(problem.get("input"), str) else "items"
            message = f"This can have {context['max_length']} {things} at most."
        case "value_error" if "error" in context:
            message = f"This {context['error']}."
        case _:
            message = str(problem["msg"])
    if where[:1] == ["body"] and where[1:2] in _VARIANTS:
        del where[1]
    path = make_storable(".".join(map(str, where)))
    return FieldProblem(path=path[:200], message=make_storable(message)[:300])
