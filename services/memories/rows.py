"""Rows of memories, and what clients get of them."""

from typing import Final

from sqlalchemy.orm import defer

from schema.ids import UserId, new_id
from schema.memories import (
    CreateMemoryRequest,
    Memory,
    MemorySuggestion,
)
from schema.tables import MemoryRow

# A vector is kilobytes on the wire, and no response has one.
WITHOUT_VECTOR: Final = defer(MemoryRow.embedding)  # type: ignore[arg-type]  # a column, to SQLModel a list


def new_row(
    user_id: UserId,
    said: CreateMemoryRequest | MemorySuggestion,
    vector: list[float] | None,
    *,
    embedder: str,
) -> MemoryRow:
    """Return the row of a new memory, accepted; `embedder` is the name of the vector's embedder."""
    row = MemoryRow(
        id=new_id(),
        user_id=user_id,
        kind=said.kind.value,
        content=said.content,
        importance=said.importance,
        embedding=vector,
        embedder=None if vector is None else embedder,
    )
    if isinstance(said, CreateMemoryRequest):
        row.pinned, row.expires_at = said.pinned, said.expires_at
    return row


def memory_from_row(row: MemoryRow) -> Memory:
    """Return the memory that the row holds."""
    return Memory.model_validate(row, from_attributes=True)
