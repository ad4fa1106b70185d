"""Owns turning rows of chats and messages into what clients see."""

from schema.chats import Chat, Message, MessageRole, MessageStatus
from schema.ids import ChatId, MessageId, TurnId
from schema.tables import ChatRow, MessageRow


def chat_from_row(row: ChatRow) -> Chat:
    """Return the chat that the row holds."""
    return Chat(
        id=ChatId(row.id),
        title=row.title,
        archived=row.archived_at is not None,
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def message_from_row(row: MessageRow) -> Message:
    """Return the message that the row holds."""
    return Message(
        id=MessageId(row.id),
        chat_id=ChatId(row.chat_id),
        turn_id=TurnId(row.turn_id),
        role=MessageRole(row.role),
        content=row.content,
        status=MessageStatus(row.status),
        created_at=row.created_at,
    )
