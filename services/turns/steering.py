"""Messages that join a turn while it runs: which ones may, and how each takes its place in it.

A steering message waits as the question of a queued turn, so that whatever ends the running turn
makes it the next one. The statements of a step that joins it close that turn.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from schema.events import end_of_joined
from schema.turns import CallModelInput, TurnReference, TurnStatus
from services.database import Connection
from services.events.writer import EventWriter, turn_news
from services.prompts.attachments import attached, read_attachments
from services.prompts.conversation import JoinedMessage, PromptMaterial, SaidMessage
from services.prompts.fitting import fitted, tokens_in
from services.turns.prompt_reading import PreparedPrompt

# A message may join the turn in whose branch it was sent, behind others that wait there; if it
# asks for nothing that the turn doesn't have, and counts towards the same budgets.
MAY_JOIN: Final = """
WITH RECURSIVE place AS (
    SELECT id, turn_id, parent_id FROM messages WHERE id = $2
    UNION ALL
    SELECT said.id, said.turn_id, said.parent_id FROM place
    JOIN turns ON turns.id = place.turn_id AND turns.status = 'queued' AND NOT turns.active
    JOIN messages AS said ON said.id = place.parent_id
)
SELECT EXISTS (
    SELECT FROM place JOIN turns ON place.id = turns.user_message_id OR place.turn_id = turns.id
    WHERE turns.id = $1 AND turns.cancel_requested_at IS NULL
      AND ($3::text IS NULL OR turns.model = $3) AND turns.api_key_id IS NOT DISTINCT FROM $4
      AND ($5::jsonb IS NULL OR turns.options = $5)
)
"""

LAST_ASKED: Final = """coalesce((
        SELECT asked.user_message_id FROM turns AS asked
        WHERE asked.steers = turns.id AND asked.joined_step IS NOT NULL
        ORDER BY asked.id DESC LIMIT 1
    ), turns.user_message_id)"""
"""What the answer of the turn in `turns` follows: the last message that joined, or its question."""

_LOCK_CHAT: Final = "SELECT FROM chats WHERE id = $1 FOR UPDATE"

# An answer that another execution stores now was given without the messages.
_LOCK_STEP: Final = """
SELECT status = 'completed' FROM steps WHERE turn_id = $1 AND step = $2 FOR UPDATE
"""

_WAITING: Final = f"""
SELECT turns.id, messages.id AS message_id, messages.role, messages.content, messages.tokens,
       {attached("message_id = messages.id")} AS attachments
FROM turns JOIN messages ON messages.id = turns.user_message_id
WHERE turns.steers = $1 AND turns.status = 'queued' AND NOT turns.active
  AND turns.cancel_requested_at IS NULL
ORDER BY turns.id
FOR UPDATE OF turns
"""  # noqa: S608 -- a constant of ours

# The message is taken out of the row of those that wait, and put between what it joins (the turn's
# question, or the message that joined last) and the first of those.
_JOIN: Final = f"""
WITH place AS (
    SELECT said.id, said.chat_id, said.parent_id AS behind, turns.id AS turn_id,
           {LAST_ASKED} AS joins
    FROM turns JOIN messages AS said ON said.id = $2 WHERE turns.id = $1
), placed AS (
    UPDATE messages SET
        parent_id = CASE WHEN messages.id = place.id THEN place.joins
                         WHEN messages.parent_id = place.id THEN place.behind
                         ELSE place.id END,
        turn_id = CASE WHEN messages.id = place.id THEN place.turn_id ELSE messages.turn_id END,
        joined_step = CASE WHEN messages.id = place.id THEN $4 ELSE messages.joined_step END
    FROM place
    WHERE messages.chat_id = place.chat_id AND (
        messages.id = place.id
        OR messages.parent_id = place.id AND place.behind <> place.joins
        OR messages.parent_id = place.joins AND messages.role = 'user'
           AND messages.turn_id > place.turn_id)
), leaf AS (
    UPDATE chats SET leaf_id = place.behind FROM place
    WHERE chats.id = place.chat_id AND chats.leaf_id = place.id AND place.behind <> place.joins
)
UPDATE turns SET status = 'completed', joined_step = $4, finished_at = now() WHERE id = $3
"""  # noqa: S608 -- the constant above


class PromptLimits(NamedTuple):
    """What a prompt may have: all of it, and what it has before the turn's own steps."""

    window_tokens: int
    budget_tokens: int

    def hold(self, material: PromptMaterial) -> bool:
        """Whether all fits that can't be left out."""
        asked = material._replace(messages=material.messages[-1:], steps=(), calls=())
        if tokens_in(asked) > self.budget_tokens:
            return False
        return tokens_in(fitted(material, limit_tokens=self.window_tokens)) <= self.window_tokens


async def join_waiting(
    connection: Connection, call: CallModelInput, prompt: PreparedPrompt, limits: PromptLimits
) -> PreparedPrompt:
    """Have the messages that wait for the turn join it before the step, in their order.

    Those join that fit with all that can't be left out; the others wait on. The caller's
    transaction holds the chat from now on, and must not be committed unless it claims the step.
    """
    turn = call.turn
    await connection.execute(_LOCK_CHAT, turn.chat_id)
    if await connection.fetchval(_LOCK_STEP, turn.turn_id, call.step):
        return prompt
    material = prompt.material
    for waiting in await connection.fetch(_WAITING, turn.turn_id):
        said = SaidMessage(
            waiting["role"],
            waiting["content"],
            waiting["tokens"],
            attachments=read_attachments(waiting["attachments"]),
        )
        message = JoinedMessage(call.step, said, waiting["message_id"], waiting["id"])
        more = material._replace(joined=[*material.joined, message])
        if not limits.hold(more):
            break
        await connection.execute(
            _JOIN, turn.turn_id, message.message_id, message.turn_id, call.step
        )
        material = more
    return prompt if material is prompt.material else prompt._replace(material=material)


async def end_joined(
    events: EventWriter, turn: TurnReference, joined: Iterable[JoinedMessage]
) -> None:
    """End the streams of the turns whose messages have joined another."""
    for message in joined:
        own = turn.model_copy(update={"turn_id": message.turn_id})
        news = turn_news(own, TurnStatus.COMPLETED)
        await events.close(message.turn_id, [end_of_joined(turn.turn_id)], news=news)
