"""The extraction of one turn: read, asked, paid for and stored, whatever happens to it.

ModelCallError    the provider failed; `exhausted` once retrying is pointless
DefectError       something of ours failed after the model was asked; `exhausted` likewise
"""

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import structlog

from schema.actors import acting_user
from schema.memories import MemoryHit, MemorySuggestion, SearchMemoriesRequest
from schema.memory_extraction import ExtractionOutcome, NotExtracted
from schema.turns import TurnReference
from services.database import ActorGoneError, Database
from services.embeddings import EmbeddingError
from services.memories.search import MemorySearch
from services.memories.suggestions import MemorySuggestions
from services.memory_extraction.extractor import MemoryExtractor
from services.memory_extraction.ledger import ChargeStatus, ExtractionLedger
from services.memory_extraction.own_words import own_words, says_something
from services.memory_extraction.prompt import MAX_TOKENS, Said
from services.models.failures import ModelCallError
from services.models.pricing import Pricing
from services.prompts.answer_usage import AnswerUsage
from services.shielding import DefectError, shielded, until_stored

_log = structlog.get_logger(__name__)

MAX_ATTEMPTS: Final = 3
"""How often a turn is read at most, those attempts included whose process died."""

_MAX_KNOWN: Final = 20
"""How many of a user's memories the model sees: those that are nearest to what was said."""

_MAX_QUERY_CHARS: Final = 2_000

# Regenerating an answer repeats a question that was read with the first one.
_READ: Final = """
SELECT turns.status, users.status = 'active' AS is_active,
       coalesce(preferences.extract_memories AND preferences.use_memories, true) AS is_wanted,
       coalesce(preferences.auto_accept_memories, false) AS auto_accept,
       coalesce((SELECT status = 'completed' FROM turns AS earlier
                 WHERE earlier.id = turns.regenerates), false) AS was_read,
       EXISTS (SELECT FROM ledger WHERE turn_id = $1 AND kind = 'extraction') AS was_tried,
       question.content AS question,
       (SELECT content FROM messages
        WHERE messages.id = question.parent_id AND role = 'assistant') AS replies_to
FROM turns JOIN users ON users.id = turns.user_id
LEFT JOIN messages AS question ON question.id = turns.user_message_id
LEFT JOIN preferences ON preferences.user_id = turns.user_id
WHERE turns.id = $1
"""


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
    ) -> None:
        self._database = database
        self._extractor = extractor
        self._pricing = pricing
        self._search = search
        self._suggestions = suggestions
        self._ledger = ExtractionLedger(database, pricing)

    async def extract(self, turn: TurnReference) -> ExtractionOutcome:
        """Store what a turn suggests, if its user wants that and the budget allows it.

        Errors: ModelCallError, DefectError.
        Idempotency: a turn with suggestions gets no others; the model may be asked again after a
        process died, and each call is in the ledger.
        """
        try:
            return await self._extract(turn)
        except ActorGoneError:
            return ExtractionOutcome(problem=NotExtracted.GONE)

    async def _extract(self, turn: TurnReference) -> ExtractionOutcome:
        reading = await self._reading(turn)
        if isinstance(reading, int):
            return await self._outcome(turn, suggestions=reading)
        if isinstance(reading, NotExtracted):
            return await self._outcome(turn, problem=reading)
        usage = self._extractor.usage_before(reading.said)
        attempt = await self._ledger.open(
            turn,
            model=self._extractor.model,
            input_tokens=usage.input_tokens,
            max_tokens=MAX_TOKENS,
            most=MAX_ATTEMPTS,
        )
        if isinstance(attempt, NotExtracted):
            return await self._outcome(turn, problem=attempt)
        suggested = await self._ask(turn, reading, usage, attempt=attempt)
        try:
            stored = await shielded(until_stored(lambda: self._store(turn, reading, suggested)))
        except ActorGoneError:
            raise
        except Exception as error:
            raise DefectError(exhausted=attempt >= MAX_ATTEMPTS) from error
        return await self._outcome(turn, suggestions=stored)

    async def give_up(self, turn: TurnReference) -> ExtractionOutcome:
        """Settle what a turn's last attempt left open."""
        await self._ledger.lose_open(turn)
        return await self._outcome(turn, problem=NotExtracted.GAVE_UP)

    async def _reading(self, turn: TurnReference) -> _Reading | NotExtracted | int:
        """Return what to read; or why not, or how many suggestions were stored before."""
        actor = acting_user(turn.user_id)
        async with self._database.statements(actor) as connection:
            found = await connection.fetchrow(_READ, turn.turn_id)
        if found is None or found["status"] != "completed" or found["question"] is None:
            return NotExtracted.GONE
        if not (found["is_wanted"] and found["is_active"]):
            return NotExtracted.NOT_WANTED
        if found["was_read"]:
            return NotExtracted.READ_BEFORE
        if found["was_tried"] and (stored := await self._suggestions.of_turn(actor, turn.turn_id)):
            return len(stored)
        own = own_words(found["question"])
        if not says_something(own):
            return NotExtracted.NOTHING_SAID
        known = await self._known(turn, own)
        said = Said(own, found["replies_to"] or "", [memory.content for memory in known])
        return _Reading(said, known, found["auto_accept"])

    async def _known(self, turn: TurnReference, own: str) -> list[MemoryHit]:
        """Return the memories that may say the same, or the opposite; none without a vector."""
        request = SearchMemoriesRequest(query=own[:_MAX_QUERY_CHARS], limit=_MAX_KNOWN)
        try:
            return await self._search.search(acting_user(turn.user_id), request)
        except EmbeddingError as error:
            _log.warning("memories_not_compared", cause=type(error).__name__)
            return []

    async def _ask(
        self, turn: TurnReference, reading: _Reading, usage: AnswerUsage, *, attempt: int
    ) -> list[MemorySuggestion]:
        known = [memory.id for memory in reading.known]
        is_last = attempt >= MAX_ATTEMPTS
        try:
            suggested = await self._extractor.extract(reading.said, known, usage)
        except asyncio.CancelledError as error:
            await shielded(self._settle(turn, usage, error, attempt=attempt))
            raise
        except ModelCallError as error:
            await shielded(self._settle(turn, usage, error, attempt=attempt))
            error.exhausted = is_last or not error.retryable
            raise
        except Exception as error:
            await shielded(self._settle(turn, usage, error, attempt=attempt))
            raise DefectError(exhausted=is_last) from error
        await shielded(self._settle(turn, usage, None, attempt=attempt))
        return suggested

    async def _settle(
        self,
        turn: TurnReference,
        usage: AnswerUsage,
        failure: BaseException | None,
        *,
        attempt: int,
    ) -> None:
        used, estimated = usage.used(failure)
        status = ChargeStatus.SETTLED
        if failure is not None:
            is_stopped = isinstance(failure, asyncio.CancelledError)
            status = ChargeStatus.CANCELLED if is_stopped else ChargeStatus.FAILED
        await until_stored(
            lambda: self._ledger.settle(
                turn,
                attempt=attempt,
                model=self._extractor.model,
                usage=used,
                estimated=estimated,
                status=status,
            )
        )

    async def _store(
        self, turn: TurnReference, reading: _Reading, suggested: list[MemorySuggestion]
    ) -> int:
        stored = await self._suggestions.suggest(
            acting_user(turn.user_id),
            suggested,
            source_turn_id=turn.turn_id,
            auto_accept=reading.auto_accept,
        )
        return len(stored)

    async def _outcome(
        self, turn: TurnReference, *, suggestions: int = 0, problem: NotExtracted | None = None
    ) -> ExtractionOutcome:
        """Return how the turn's extraction ended, with the cost of all its attempts."""
        cost_usd: Decimal = await self._ledger.cost(turn)
        return ExtractionOutcome(suggestions=suggestions, cost_usd=cost_usd, problem=problem)
