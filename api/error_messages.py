"""The catalogue of error messages: every refusal of a service and every invalid input, in English.

A code's default message stands beside the code, in `schema/errors.py`. To add a refusal, add its
enum member to the table; a test checks that no member is missing.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from schema.errors import MESSAGES, ErrorCode
from services.auth.email_verification import VerificationRefusal
from services.auth.password_reset import ResetRefusal
from services.auth.service import SignInRefusal
from services.feedback import FeedbackRefusal
from services.files.inspection import FileRefusal
from services.knowledge.versions import PublicationRefusal, VersionRefusal
from services.memories.service import MemoryRefusal
from services.messages import BranchRefusal, ListRefusal
from services.outgoing.signatures import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from services.prompts.service import PromptRefusal
from services.resources import Conflict, ToolRefusal, Unreachable
from services.shares import ShareRefusal
from services.subscriptions.plans import PlanRefusal
from services.subscriptions.service import AssignmentRefusal
from services.turns.acceptance import AcceptanceRefusal
from services.turns.approvals import ApprovalRefusal
from services.turns.regeneration import RegenerationRefusal
from services.users.administration import ManagementRefusal
from services.users.api_keys import ApiKeyRefusal
from services.users.preferences import PreferencesRefusal
from services.users.service import AccountRefusal, DeletionRefusal
from services.users.sessions import SessionRefusal
from services.workflow_tools.callbacks import CallbackRefusal


class Problem(NamedTuple):
    """An error for a client; `path` names the invalid field, if one is to blame.

    `{noun}` and `{Noun}` in the message stand for the kind of resource.
    """

    code: ErrorCode
    message: str
    path: str | None = None


def _invalid(path: str, message: str) -> Problem:
    return Problem(ErrorCode.VALIDATION_ERROR, message, path)


def _conflict(message: str, path: str | None = None) -> Problem:
    return Problem(ErrorCode.CONFLICT, message, path)


def _forbidden(message: str) -> Problem:
    return Problem(ErrorCode.FORBIDDEN, message)


def _unauthenticated(message: str) -> Problem:
    return Problem(ErrorCode.UNAUTHENTICATED, message)


_UNKNOWN_MODEL: Final = _invalid("body.model", "Unknown model.")
_MODEL_NOT_ALLOWED: Final = _forbidden("Your plan doesn't include this model.")
_EMAIL_TAKEN: Final = _conflict("An account with this email already exists.")
_NO_MAIL: Final = _forbidden("This server sends no mail. Ask an administrator.")
_INVALID_LINK: Final = _invalid(
    "body.token", "The link is invalid, was used before, or has expired. Request another one."
)
_LAST_ADMINISTRATOR: Final = _conflict(
    "This is the last administrator. Promote another administrator first."
)
_KEY_REUSED: Final = Problem(
    ErrorCode.IDEMPOTENCY_CONFLICT, MESSAGES[ErrorCode.IDEMPOTENCY_CONFLICT]
)

_FILES: Final = {
    FileRefusal.EMPTY: "The file is empty.",
    FileRefusal.UNKNOWN_TYPE: "Must be a PNG, JPEG, GIF or WebP image, a PDF, or a text file.",
    FileRefusal.SVG: "SVG images aren't supported. Convert it to PNG.",
    FileRefusal.BROKEN: "The file is damaged and can't be read.",
    FileRefusal.ENCRYPTED: "Encrypted PDFs aren't supported.",
    FileRefusal.TOO_COMPLEX: "The file is too complex to be read.",
    FileRefusal.TOO_MANY_PIXELS: "The image has too many pixels.",
    FileRefusal.TOO_MANY_FRAMES: "The animation has too many frames.",
    FileRefusal.TOO_MANY_PAGES: "The PDF has too many pages. Split it, or upload a document.",
    FileRefusal.TOO_MANY_CHARACTERS: "The text is too long. Split it, or upload a document.",
    FileRefusal.UNKNOWN_CHARSET: "Must be UTF-8, or name its charset: `text/plain; charset=…`.",
    FileRefusal.NOT_ITS_TYPE: "The file's content doesn't match its name or type.",
}

REFUSALS: Final[Mapping[type[StrEnum], Mapping[StrEnum, Problem]]] = {
    Unreachable: {
        Unreachable.MISSING: Problem(ErrorCode.NOT_FOUND, "{Noun} not found."),
        Unreachable.FORBIDDEN: _forbidden("You don't have access to this {noun}."),
    },
    Conflict: {
        Conflict.VERSION_CHANGED: Problem(
            ErrorCode.PRECONDITION_FAILED,
            "The {noun} has changed since you read it. Read it again and retry.",
        ),
        Conflict.KEY_REUSED: _KEY_REUSED,
        Conflict.RESOURCE_DELETED: Problem(
            ErrorCode.IDEMPOTENCY_CONFLICT, "The resource created with this key has been deleted."
        ),
    },
    SignInRefusal: {
        SignInRefusal.SIGN_UP_CLOSED: _forbidden("Sign-up is closed. Ask an administrator."),
        SignInRefusal.EMAIL_TAKEN: _EMAIL_TAKEN,
        SignInRefusal.KEY_REUSED: _KEY_REUSED,
        SignInRefusal.WRONG_CREDENTIALS: _unauthenticated("Wrong email or password."),
        SignInRefusal.INVALID_TOKEN: _unauthenticated(
            "The refresh token is invalid or expired. Sign in again."
        ),
    },
    ResetRefusal: {
        ResetRefusal.NO_MAIL: _NO_MAIL,
        ResetRefusal.INVALID_LINK: _INVALID_LINK,
    },
    VerificationRefusal: {
        VerificationRefusal.NO_MAIL: _NO_MAIL,
        VerificationRefusal.NO_EMAIL: _conflict("This account has no email address."),
        VerificationRefusal.VERIFIED_BEFORE: _conflict("The email address is already verified."),
        VerificationRefusal.TOO_MANY: Problem(
            ErrorCode.RATE_LIMITED, "Too many mails within an hour. Use one of the links in them."
        ),
        VerificationRefusal.INVALID_LINK: _INVALID_LINK,
        VerificationRefusal.EMAIL_TAKEN: _EMAIL_TAKEN,
    },
    SessionRefusal: {
        SessionRefusal.BY_KEY: _forbidden("API keys can't see or end sessions."),
    },
    AccountRefusal: {
        AccountRefusal.PASSWORD_MISSING: _invalid(
            "body.currentPassword", "`currentPassword` is required to change this."
        ),
        AccountRefusal.PASSWORD_WRONG: _forbidden("The current password is wrong."),
        AccountRefusal.NO_PASSWORD: _conflict(
            "This account signs in through an external provider."
        ),
        AccountRefusal.EMAIL_TAKEN: _EMAIL_TAKEN,
    },
    DeletionRefusal: {
        DeletionRefusal.BY_KEY: _forbidden("API keys can't delete accounts."),
        DeletionRefusal.LAST_ADMINISTRATOR: _LAST_ADMINISTRATOR,
        DeletionRefusal.PASSWORD_MISSING: _invalid(
            "body.currentPassword", "`currentPassword` is required to delete the account."
        ),
        DeletionRefusal.PASSWORD_WRONG: _forbidden("The current password is wrong."),
    },
    ManagementRefusal: {
        ManagementRefusal.LAST_ADMINISTRATOR: _LAST_ADMINISTRATOR,
        ManagementRefusal.NOT_ADMINISTRATOR: _forbidden("You are no longer an administrator."),
    },
    PreferencesRefusal: {
        PreferencesRefusal.UNKNOWN_MODEL: _invalid(
            "body.defaultModel", "Unknown model, or not included in your plan."
        ),
    },
    ApiKeyRefusal: {
        ApiKeyRefusal.BY_KEY: _forbidden("API keys can't create API keys."),
        ApiKeyRefusal.MISSING_PERMISSION: _forbidden(
            "A key can't have permissions that you don't have."
        ),
        ApiKeyRefusal.INVALID_EXPIRY: _invalid(
            "body.expiresAt", "Must be in the future, at most ten years ahead."
        ),
    },
    AcceptanceRefusal: {
        AcceptanceRefusal.BLANK: _invalid("body.content", "Must not be blank."),
        AcceptanceRefusal.UNKNOWN_PARENT: _invalid("body.parentId", "Not a message of this chat."),
        AcceptanceRefusal.UNKNOWN_MODEL: _UNKNOWN_MODEL,
        AcceptanceRefusal.MODEL_NOT_ALLOWED: _MODEL_NOT_ALLOWED,
        AcceptanceRefusal.BUSY: Problem(
            ErrorCode.TURN_IN_PROGRESS,
            "A turn is already in progress in this chat. Wait for it, cancel it, or set `ifBusy` "
            "to `enqueue` or `interrupt`.",
        ),
        AcceptanceRefusal.QUEUE_FULL: _conflict("Too many queued messages in this chat."),
    },
    FileRefusal: {refusal: _invalid("body.file", sentence) for refusal, sentence in _FILES.items()},
    BranchRefusal: {
        BranchRefusal.UNKNOWN_MESSAGE: _invalid("body.messageId", "Not a message of this chat."),
        BranchRefusal.BUSY: Problem(
            ErrorCode.TURN_IN_PROGRESS,
            "A turn is in progress on this branch. Wait for it, or cancel it.",
        ),
    },
    ListRefusal: {
        ListRefusal.UNKNOWN_BEFORE: _invalid("query.before", "Not a message of this chat."),
        ListRefusal.UNKNOWN_AFTER: _invalid("query.after", "Not a message of this chat."),
    },
    ShareRefusal: {
        ShareRefusal.SWITCHED_OFF: Problem(
            ErrorCode.FORBIDDEN, "Sharing is switched off on this server."
        ),
        ShareRefusal.INVALID_EXPIRY: _invalid(
            "body.expiresAt", "Must be in the future, at most ten years ahead."
        ),
        ShareRefusal.TOO_MANY: _conflict("Too many shares of this chat. Revoke one first."),
        ShareRefusal.UNKNOWN_MESSAGE: _invalid("body.messageId", "Not a message of this chat."),
        ShareRefusal.EMPTY: _conflict("This chat has no messages to share."),
    },
    FeedbackRefusal: {
        FeedbackRefusal.NOT_AN_ANSWER: _conflict("Only answers take feedback."),
    },
    RegenerationRefusal: {
        RegenerationRefusal.BUSY: Problem(
            ErrorCode.TURN_IN_PROGRESS,
            "A turn is already in progress in this chat. Wait for it, or cancel it.",
        ),
        RegenerationRefusal.UNKNOWN_MODEL: _UNKNOWN_MODEL,
        RegenerationRefusal.MODEL_NOT_ALLOWED: _MODEL_NOT_ALLOWED,
    },
    ApprovalRefusal: {
        ApprovalRefusal.NOT_AWAITED: _conflict("This tool call isn't awaiting approval."),
        ApprovalRefusal.DECIDED: _conflict("This tool call has already been decided differently."),
    },
    MemoryRefusal: {
        MemoryRefusal.SAME_CONTENT: _conflict("You have another memory with this content."),
        MemoryRefusal.ACCEPTED_BEFORE: _conflict(
            "This memory was already accepted. Delete it instead."
        ),
        MemoryRefusal.REJECTED_BEFORE: _conflict(
            "This memory was already rejected. Create a new one instead."
        ),
        MemoryRefusal.REPLACED_BEFORE: _conflict(
            "This memory was replaced by a newer one. Create a new one instead."
        ),
    },
    VersionRefusal: {
        VersionRefusal.NO_SUCH_VERSION: Problem(ErrorCode.NOT_FOUND, "Version not found."),
        VersionRefusal.DRAFT_OF_ANOTHER: _forbidden("You don't have access to this draft."),
    },
    PublicationRefusal: {
        PublicationRefusal.NOT_READY: _conflict(
            "This version is still being ingested. Publish it when it is ready."
        ),
        PublicationRefusal.FAILED: _conflict(
            "The ingestion of this version failed; see `problem`. Add a new version."
        ),
    },
    PromptRefusal: {
        PromptRefusal.NAME_TAKEN: _conflict("A prompt with this name already exists.", "body.name"),
        PromptRefusal.NO_SUCH_VERSION: Problem(ErrorCode.NOT_FOUND, "Version not found."),
    },
    PlanRefusal: {
        PlanRefusal.NAME_TAKEN: _conflict("A plan with this name already exists."),
        PlanRefusal.DEFAULT_NEEDED: _conflict("Make another plan the default first."),
        PlanRefusal.DEFAULT_INACTIVE: _conflict("The default plan must be active."),
    },
    AssignmentRefusal: {
        AssignmentRefusal.UNKNOWN_USER: Problem(ErrorCode.NOT_FOUND, "User not found."),
        AssignmentRefusal.UNKNOWN_PLAN: Problem(ErrorCode.NOT_FOUND, "Plan not found."),
        AssignmentRefusal.INACTIVE_PLAN: _conflict("This plan is inactive and can't be assigned."),
        AssignmentRefusal.IN_THE_FUTURE: _invalid("body.startedAt", "Must not be in the future."),
    },
    ToolRefusal: {
        ToolRefusal.NAME_TAKEN: _conflict("This name is already in use."),
        ToolRefusal.NO_ENCRYPTION_KEY: _conflict(
            "Secrets can't be stored without an encryption key. "
            "Set EVERTURN_ENCRYPTION_KEYS for the API and the workers."
        ),
        ToolRefusal.TOO_MANY: _conflict("Too many MCP servers. Delete one first."),
    },
    CallbackRefusal: {
        CallbackRefusal.UNKNOWN: Problem(ErrorCode.NOT_FOUND, "Callback not found."),
        CallbackRefusal.UNSIGNED: _unauthenticated(
            f"Missing signature. Send {ID_HEADER}, {TIMESTAMP_HEADER} and {SIGNATURE_HEADER}."
        ),
        CallbackRefusal.OUT_OF_TIME: _unauthenticated(
            f"`{TIMESTAMP_HEADER}` must be the Unix time, within five minutes of now."
        ),
        CallbackRefusal.WRONG_SIGNATURE: _unauthenticated(
            f"`{SIGNATURE_HEADER}` doesn't match this ID, timestamp and body."
        ),
        CallbackRefusal.ANSWERED: _conflict("This call was already answered."),
        CallbackRefusal.TURN_OVER: _conflict("The turn of this call has ended."),
        CallbackRefusal.TOO_LATE: _conflict("This call has timed out."),
        CallbackRefusal.MALFORMED: _invalid(
            "body", "Must be a JSON object with `output` and, optionally, `isError`."
        ),
    },
}

NESTED_TOO_DEEPLY: Final = "Nested too deeply."
NOT_UTF_8: Final = "Must be valid UTF-8."
TOO_MANY_ITEMS: Final = "Too many fields or items."
UNREADABLE: Final = "The body can't be read."
BODY_INCOMPLETE: Final = "The body is incomplete."
INVALID_JSON: Final = "Invalid JSON."
INVALID_JSON_AT: Final = "Invalid JSON at character {}."
UNKNOWN_PARAMETER: Final = "Unknown query parameter."
MISSING_PERMISSION: Final = "Missing permission: `{}`."
TOO_MANY_REQUESTS: Final = "Too many requests: the limit is {} in {} s. Try again in {} s."
TOO_MANY_STREAMS: Final = (
    "Too many open streams: your plan allows {:,} at a time. Close one, or try again in {} s."
)
LIMIT_REACHED: Final = "Your plan allows {:,} {}. Delete some first."
MESSAGE_TOO_LONG: Final = "Must be at most {:,} characters, not {:,}."
VERSION_UNUSABLE: Final = "This version can't be activated."
TOOL_NOT_ALLOWED: Final = "This tool isn't available to your role or plan."
NO_REFRESH: Final = "No worker could list the tools. Try again later."
NO_TRIAL: Final = "No worker was available. Try again later."
TRIAL_DELETED: Final = "The trial was deleted."
ISSUER_UNAVAILABLE: Final = "The token's issuer can't be reached. Try again later."
NOT_ENTITY_TAGS: Final = 'Must be a list of entity tags, e.g. `"3", "4"`.'
NOT_AN_EVENT: Final = "Must be the ID of an event."
NO_SUCH_EVENT: Final = "This turn has no event with this ID."
DOCUMENT_MEDIA_TYPE: Final = "Must be application/json or multipart/form-data."
DOCUMENT_TYPE: Final = "Must be one of {}."
DOCUMENT_TOO_LARGE: Final = "Documents are limited to {:,} bytes."
DOCUMENT_UNTITLED: Final = "Provide a title: the file has no name."
FORM_EXPECTED: Final = "Must be multipart/form-data."
FILE_TOO_LARGE: Final = "Files are limited to {:,} bytes."
FILE_LOST: Final = "The content of this file is missing."
FILES_UNAVAILABLE: Final = "Files can't be read or stored right now. Try again later."
STORAGE_FULL: Final = "Your plan allows {:,} bytes of files. Delete some first."
ONE_FILE: Final = "Must be exactly one file."
FILE_EMPTY: Final = "The file is empty."
UNKNOWN_CHARSET: Final = "Unknown charset."
WRONG_CHARSET: Final = "The file doesn't match its charset."
UNKNOWN_FORM_CHARSET: Final = "The form's charset is unknown."
