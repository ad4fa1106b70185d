"""Search attributes by which operators find turns in Temporal: user, chat and first model."""

from typing import Final

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

with workflow.unsafe.imports_passed_through():
    from schema.names import CHAT_ID_ATTRIBUTE, MODEL_ATTRIBUTE, USER_ID_ATTRIBUTE
    from schema.turns import TurnReference

_USER_ID: Final = SearchAttributeKey.for_keyword(USER_ID_ATTRIBUTE)
_CHAT_ID: Final = SearchAttributeKey.for_keyword(CHAT_ID_ATTRIBUTE)
_MODEL: Final = SearchAttributeKey.for_keyword(MODEL_ATTRIBUTE)


def turn_attributes(turn: TurnReference) -> TypedSearchAttributes:
    """Return the search attributes of a turn's workflow. They hold ids and names, no content."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(_USER_ID, str(turn.user_id)),
            SearchAttributePair(_CHAT_ID, str(turn.chat_id)),
            SearchAttributePair(_MODEL, turn.model),
        ]
    )
