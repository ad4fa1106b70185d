"""The extraction of one turn: read, asked, paid for and stored, whatever happens to it.

ModelCallError    the provider failed; `exhausted` once retrying is pointless
DefectError       something of ours failed after the model was asked; `exhausted` likewise
"""

from dataclasses import dataclass
from typing import Final

import structlog

from schema.actors import acting_user
from schema.after_turn import NotDone, WorkOutcome
from schema.events import MemoriesSuggestedEvent
from schema.memories import MemoryHit, MemorySuggestion, SearchMemoriesRequest
from schema.turns import TurnReference
from services.background_calls import BackgroundCalls, Called, columns_of_called, outcome_of
from services.database import ActorGoneError, Database
from services.database.queries import AttributeRow
from services.embeddings import EmbeddingError
from services.events.writer import EventWriter, News
from services.memories.search import MemorySearch
from services.memories.suggestions import MemorySuggestions
from services.memory_extraction.extractor import MemoryExtractor
from services.memory_extraction.own_words import own_words, says_something
from services.memory_extraction.prompt import MAX_TOKENS, Said
from services.models.pricing import Pricing
from services.subscriptions.ledger import ChargeKind

_log = structlog.get_logger(__name__)

_MAX_KNOWN: Final = 20
"""How many of a user's memories the model sees: those that are nearest to what was said."""

_MAX_QUERY_CHARS: Final = 2_000

# Regenerating an answer repeats a question that was read with the first one. What joined the turn
# was said with its question.
_READ: Final = f"""
SELECT {columns_of_called(ChargeKind.EXTRACTION)},
       turns.status, users.status = 'active' AS is_active,
       coalesce(preferences.extract_memories AND preferences.use_memories, true) AS is_wanted,
       coalesce(preferences.auto_accept_memories, false) AS auto_accept,
       coalesce((SELECT status = 'completed' FROM turns AS earlier
                 WHERE earlier.id = turns.regenerates), false) AS was_read,
       EXISTS (SELECT FROM memories WHERE memories.user_id = turns.user_id
               AND memories.status = 'accepted') AS has_memories,
       question.content || coalesce((
           SELECT string_agg(E'\n\n' || content, '' ORDER BY id) FROM messages AS joined
           WHERE joined.turn_id = $1 AND joined_step > 0), '') AS question,
       (SELECT content FROM messages
        WHERE messages.id = question.parent_id AND role = 'assistant') AS replies_to
FROM turns JOIN users ON users.id = turns.user_id
LEFT JOIN messages AS question ON question.id = turns.user_message_id
LEFT JOIN preferences ON preferences.user_id = turns.user_id
WHERE turns.id = $1
"""  # noqa: S608 -- a constant


@dataclass(frozen=True, slots=True)
class _Reading:
    """A turn that is to be read."""

    said: Said
    known: list[MemoryHit]
    auto_accept: bool


class MemoryExtraction:
    """Learns from turns, as their users. Errors: DatabaseUnavailableError."""

    def __init__(
        self,
        database: Database,
        extractor: MemoryExtractor,
        pricing: Pricing,
        *,
        search: MemorySearch,
        suggestions: MemorySuggestions,
        events: EventWriter,
    ) -> None:
        self._events = events
        self._database = database
        self._extractor = extractor
        self._search = search
        self._suggestions = suggestions
        self._calls = BackgroundCalls(database, pricing, ChargeKind.EXTRACTION)

    async def extract(self, turn: TurnReference) -> WorkOutcome:
        """Store what a turn suggests, if its user wants that and the budget allows it.

        Errors: ModelCallError, DefectError.
        Idempotency: a turn with suggestions gets no others; the model may be asked again after a
        process died, and each call is in the ledger.
        """
        try:
            return await self._extract(turn)
        except ActorGoneError:
            return WorkOutcome(problem=NotDone.GONE)

    async def _extract(self, turn: TurnReference) -> WorkOutcome:
        reading, before = await self._reading(turn)
        if not isinstance(reading, _Reading):
            return outcome_of(reading, before.cost_usd)
        known = [memory.id for memory in reading.known]
        usage = self._extractor.usage_before(reading.said)
        stored, cost_usd = await self._calls.run(
            turn,
            model=self._extractor.model,
            usage=usage,
            max_tokens=MAX_TOKENS,
            ask=lambda: self._extractor.extract(reading.said, known, usage),
            store=lambda suggested: self._store(turn, reading, suggested),
            before=before,
        )
        return outcome_of(stored, cost_usd)

    async def give_up(self, turn: TurnReference) -> WorkOutcome:
        """Settle what a turn's last attempt left open."""
        return await self._calls.give_up(turn)

    async def _reading(self, turn: TurnReference) -> tuple[_Reading | NotDone | int, Called]:
        """Return what to read; or why not, or how many suggestions were stored before."""
        actor = acting_user(turn.user_id)
        reader = self._database.reader(actor)
        found = await reader.fetchrow(_READ, turn.turn_id, record_class=AttributeRow)
        if found is None:
            return NotDone.GONE, Called()
        before = Called(found.calls, found.failed_calls, found.called_usd)
        if (problem := _problem_of(found)) is not None:
            return problem, before
        if before.calls and (stored := await self._suggestions.of_turn(actor, turn.turn_id)):
            return len(stored), before
        own = own_words(found.question)
        if not says_something(own):
            return NotDone.NOTHING_SAID, before
        known = await self._known(turn, own) if found.has_memories else []
        said = Said(own, found.replies_to or "", [memory.content for memory in known])
        return _Reading(said, known, found.auto_accept), before

    async def _known(self, turn: TurnReference, own: str) -> list[MemoryHit]:
        """Return the memories that may say the same, or the opposite; none without a vector."""
        request = SearchMemoriesRequest(query=own[:_MAX_QUERY_CHARS], limit=_MAX_KNOWN)
        try:
            return await self._search.search(acting_user(turn.user_id), request)
        except EmbeddingError as error:
            _log.warning("memories_not_compared", cause=type(error).__name__)
            return []

    async def _store(
        self, turn: TurnReference, reading: _Reading, suggested: list[MemorySuggestion]
    ) -> int:
        stored = await self._suggestions.suggest(
            acting_user(turn.user_id),
            suggested,
            source_turn_id=turn.turn_id,
            auto_accept=reading.auto_accept,
        )
        if stored:
            event = MemoriesSuggestedEvent(turn_id=turn.turn_id, suggested=len(stored))
            await self._events.announce(News(turn.user_id, event))
        return len(stored)


def _problem_of(found: AttributeRow) -> NotDone | None:
    """Return why a turn is not to be read, if it isn't."""
    if found.status != "completed" or found.question is None:
        return NotDone.GONE
    if not (found.is_wanted and found.is_active):
        return NotDone.NOT_WANTED
    return NotDone.READ_BEFORE if found.was_read else None
