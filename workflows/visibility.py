"""What operators see of a turn in Temporal without opening its history.

Ids, names, counts and costs only: who may see the runs may not read the chats.
"""

from collections.abc import Collection
from typing import Any, Final

from temporalio import workflow
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    SearchAttributeUpdate,
    TypedSearchAttributes,
)

with workflow.unsafe.imports_passed_through():
    from schema.names import (
        CHAT_ID_ATTRIBUTE,
        COST_ATTRIBUTE,
        ERROR_CODE_ATTRIBUTE,
        FAILED_TOOLS_ATTRIBUTE,
        MODEL_ATTRIBUTE,
        PLAN_ATTRIBUTE,
        STATUS_ATTRIBUTE,
        USER_ID_ATTRIBUTE,
    )
    from schema.turns import TurnOutcome, TurnReference, TurnStatus

ADMIN_VIEW: Final = "adminView"
"""The memo's field with the URL at which administrators see everything about a turn."""

_TURNS: Final = "/api/v1/admin/turns"

_USER_ID: Final = SearchAttributeKey.for_keyword(USER_ID_ATTRIBUTE)
_CHAT_ID: Final = SearchAttributeKey.for_keyword(CHAT_ID_ATTRIBUTE)
_MODEL: Final = SearchAttributeKey.for_keyword(MODEL_ATTRIBUTE)
_STATUS: Final = SearchAttributeKey.for_keyword(STATUS_ATTRIBUTE)
_ERROR_CODE: Final = SearchAttributeKey.for_keyword(ERROR_CODE_ATTRIBUTE)
_PLAN: Final = SearchAttributeKey.for_keyword(PLAN_ATTRIBUTE)
_COST: Final = SearchAttributeKey.for_float(COST_ATTRIBUTE)
_FAILED_TOOLS: Final = SearchAttributeKey.for_keyword_list(FAILED_TOOLS_ATTRIBUTE)


def turn_attributes(turn: TurnReference) -> TypedSearchAttributes:
    """Return the search attributes that a turn's workflow starts with."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(_USER_ID, str(turn.user_id)),
            SearchAttributePair(_CHAT_ID, str(turn.chat_id)),
            SearchAttributePair(_MODEL, turn.model),
            SearchAttributePair(_STATUS, TurnStatus.RUNNING.value),
        ]
    )


def turn_summary(turn: TurnReference) -> str:
    """Return the line by which the Temporal UI names a turn's run."""
    return f"turn · {turn.model}"


def turn_details(turn: TurnReference, memo: dict[str, str]) -> str:
    """Return what the Temporal UI shows above a turn's run, as Markdown."""
    return (
        f"User `{turn.user_id}`, chat `{turn.chat_id}`\n\n"
        f"Everything about it: `everturn admin turn {turn.turn_id}` or {memo[ADMIN_VIEW]}"
    )


def turn_memo(turn: TurnReference, public_url: str | None) -> dict[str, str]:
    """Return the memo of a turn's run: where administrators see it."""
    return {ADMIN_VIEW: f"{public_url or ''}{_TURNS}/{turn.turn_id}"}


def sweep_memo(public_url: str | None) -> dict[str, str]:
    """Return the memo of a sweep, by which the turns that it starts name where they are seen."""
    return {ADMIN_VIEW: f"{public_url or ''}{_TURNS}"}


def memo_of_child(turn: TurnReference) -> dict[str, str]:
    """Return the memo of a turn that this workflow starts: at the API that its own names."""
    own: str = workflow.memo_value(ADMIN_VIEW, "", type_hint=str)
    return turn_memo(turn, own.partition(_TURNS)[0])


def show_status(status: TurnStatus) -> None:
    """Set the search attribute of a turn that begins to wait, or continues."""
    _upsert(_STATUS.value_set(status.value))


def show_outcome(outcome: TurnOutcome, *, plan: str | None, failed_tools: Collection[str]) -> None:
    """Set the search attributes of a turn that has ended."""
    code = outcome.error_code
    _upsert(
        _STATUS.value_set(outcome.status.value),
        _COST.value_set(float(outcome.cost_usd)),
        *([] if code is None else [_ERROR_CODE.value_set(code.value)]),
        *([] if plan is None else [_PLAN.value_set(plan)]),
        *([_FAILED_TOOLS.value_set(sorted(failed_tools))] if failed_tools else []),
    )


def _upsert(*updates: SearchAttributeUpdate[Any]) -> None:
    """Set search attributes: one event.

    A run of an earlier version has no status to begin with, and replays without these events. A
    patch would say the same by two more events in each turn.
    """
    if workflow.info().typed_search_attributes.get(_STATUS) is not None:
        workflow.upsert_search_attributes(updates)
