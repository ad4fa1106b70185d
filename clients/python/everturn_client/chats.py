"""Chats, their messages, and the turns that answer them."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Literal, TypedDict, Unpack

from pydantic import JsonValue

from everturn_client import chat_models as models
from everturn_client.calls import (
    UNSET,
    Call,
    Maybe,
    change,
    creation,
    delete,
    fields,
    filters,
    get,
    listing,
    post,
)
from everturn_client.endpoints import Endpoint, Group, Listing, RunnerT
from everturn_client.streams import ConnectionState, Opening, Streaming, following

IfBusy = Literal["reject", "enqueue", "interrupt", "steer"]
OnConnection = Callable[[ConnectionState], None]


class ThinkingBudget(TypedDict):
    """How many tokens the model may think with, at most."""

    budgetTokens: int


class TurnOptions(TypedDict, total=False):
    """What a message asks of its turn; regenerating takes those of the turn by default.

    `tools` are the names of those that the model may use; `max_tokens` include its thinking.
    `response_schema` is a JSON schema: see `structured` of the answer's message.
    """

    tools: Sequence[str] | None
    thinking: Literal["off", "on"] | ThinkingBudget | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    max_tokens: int | None
    stop_sequences: Sequence[str] | None
    response_schema: Mapping[str, JsonValue] | None


class MessageOptions(TurnOptions, total=False):
    """What a message asks of its turn.

    `metadata` is your own, returned with the message and never sent to the model. `attachments` are
    the IDs of files, which `client.files.upload` returns.
    """

    metadata: Mapping[str, JsonValue] | None
    attachments: Sequence[str]


class Chats(Group[RunnerT]):
    """Chats."""

    @Endpoint
    def create(
        self,
        *,
        title: Maybe[str] = UNSET,
        messages: Maybe[Sequence[Mapping[str, JsonValue]]] = UNSET,
        idempotency_key: str | None = None,
    ) -> Call[models.Chat]:
        """Create a chat; without a title, it gets one after its first answer.

        `messages` is a conversation from elsewhere: each has `role`, `content` and `createdAt`.
        """
        body = fields(title=title, messages=messages)
        return creation(models.Chat, "chats", body=body, key=idempotency_key)

    @Endpoint
    def fork(
        self,
        chat_id: str,
        *,
        message_id: Maybe[str] = UNSET,
        title: Maybe[str] = UNSET,
        idempotency_key: str | None = None,
    ) -> Call[models.Chat]:
        """Copy a branch up to a message, by default the whole current one, into a new chat."""
        body = fields(message_id=message_id, title=title)
        return creation(models.Chat, "chats", chat_id, "fork", body=body, key=idempotency_key)

    @Endpoint
    def share(
        self,
        chat_id: str,
        *,
        message_id: Maybe[str] = UNSET,
        title: Maybe[str] = UNSET,
        expires_at: Maybe[datetime] = UNSET,
        idempotency_key: str | None = None,
    ) -> Call[models.CreatedShare]:
        """Create a link by which anyone can read a branch up to a message."""
        body = fields(message_id=message_id, title=title, expires_at=expires_at)
        return creation(
            models.CreatedShare, "chats", chat_id, "shares", body=body, key=idempotency_key
        )

    @Listing
    def shares(self, chat_id: str, *, limit: int | None = None) -> Call[models.Share]:
        """List the shares of a chat, the latest first, `limit` on a page."""
        return listing(models.Share, "chats", chat_id, "shares", query=filters(limit=limit))

    @Endpoint
    def revoke_share(self, share_id: str) -> Call[None]:
        """End a share: its link stops working."""
        return delete("shares", share_id)

    @Endpoint
    def read_shared(self, token: str) -> Call[models.SharedConversation]:
        """Return what was said on a shared branch; this needs no account."""
        return get(models.SharedConversation, "shared", token)

    @Listing
    def list(
        self,
        *,
        q: str | None = None,
        search: str | None = None,
        archived: bool | Literal["any"] | None = None,
        pinned: bool | None = None,
        tags: Sequence[str] | None = None,
        sort: str | None = None,
        limit: int | None = None,
    ) -> Call[models.Chat]:
        """List chats, the latest first, `limit` on a page; archived ones only if asked for.

        `q` finds words in titles and messages; `hits` of each chat says where. `search` is its
        old name. With `tags`, a chat must have all of them.
        """
        query = filters(q=q, search=search, archived=archived, pinned=pinned, sort=sort)
        query |= filters(tag=tags, limit=limit)
        return listing(models.Chat, "chats", query=query)

    @Endpoint
    def get(self, chat_id: str) -> Call[models.Chat]:
        """Return a chat."""
        return get(models.Chat, "chats", chat_id)

    @Endpoint
    def update(
        self,
        chat_id: str,
        *,
        title: Maybe[str] = UNSET,
        archived: Maybe[bool] = UNSET,
        pinned: Maybe[bool] = UNSET,
        tags: Maybe[Sequence[str]] = UNSET,
        if_version: int | None = None,
    ) -> Call[models.Chat]:
        """Rename, archive, pin or tag a chat, or undo that; `tags` replace all earlier ones."""
        body = fields(title=title, archived=archived, pinned=pinned, tags=tags)
        return change(models.Chat, "chats", chat_id, body=body, version=if_version)

    @Endpoint
    def choose_branch(self, chat_id: str, message_id: str) -> Call[models.Chat]:
        """Make the newest branch through a message the current one."""
        body = fields(message_id=message_id)
        return change(models.Chat, "chats", chat_id, "leaf", body=body, version=None, method="PUT")

    @Listing
    def turns(
        self, chat_id: str, *, status: Sequence[str] | None = None, limit: int | None = None
    ) -> Call[models.ListedTurn]:
        """List the turns of all branches of a chat, the latest first."""
        query = filters(status=status, limit=limit)
        return listing(models.ListedTurn, "chats", chat_id, "turns", query=query)

    @Listing
    def summaries(self, chat_id: str, *, limit: int | None = None) -> Call[models.ChatSummary]:
        """List what stands for older messages in a long chat's prompts, the newest first."""
        return listing(
            models.ChatSummary, "chats", chat_id, "summaries", query=filters(limit=limit)
        )

    @Endpoint
    def delete(self, chat_id: str) -> Call[None]:
        """Delete a chat with its messages."""
        return delete("chats", chat_id)


class Messages(Group[RunnerT]):
    """Messages of a chat, and their answers."""

    @Endpoint
    def create(
        self,
        chat_id: str,
        *,
        content: str,
        model: str | None = None,
        if_busy: IfBusy | None = None,
        parent_id: Maybe[str | None] = UNSET,
        idempotency_key: str | None = None,
        **options: Unpack[MessageOptions],
    ) -> Call[models.Answer]:
        """Send a message and wait for its answer.

        It follows the current branch. With the `parent_id` of an earlier question it is an edit of
        that, on a branch of its own; None begins the conversation again.
        Where the answer takes longer than the API waits, `assistant_message` is None:
        `client.turns.events(answer.turn.id)` follows the turn from there.
        """
        body = filters(content=content, stream=False, model=model, if_busy=if_busy)
        body |= fields(parent_id=parent_id, **options)
        return creation(models.Answer, "chats", chat_id, "messages", body=body, key=idempotency_key)

    @Streaming
    def stream(
        self,
        chat_id: str,
        *,
        content: str,
        model: str | None = None,
        if_busy: IfBusy | None = None,
        parent_id: Maybe[str | None] = UNSET,
        idempotency_key: str | None = None,
        reconnect_s: float = 60.0,
        on_connection: OnConnection | None = None,
        **options: Unpack[MessageOptions],
    ) -> Opening:
        """Send a message and stream its answer; use it as a context manager.

        A broken connection is resumed for `reconnect_s` seconds; `on_connection` is called with
        each change.
        """
        body = filters(content=content, stream=True, model=model, if_busy=if_busy)
        body |= fields(parent_id=parent_id, **options)
        call = creation(models.Answer, "chats", chat_id, "messages", body=body, key=idempotency_key)
        return Opening(call=call, reconnect_s=reconnect_s, on_connection=on_connection)

    @Listing
    def list(
        self,
        chat_id: str,
        *,
        branch: str | None = None,
        sort: Literal["createdAt", "-createdAt"] | None = None,
        before: str | None = None,
        after: str | None = None,
        siblings: bool = False,
        limit: int | None = None,
    ) -> Call[models.Message]:
        """List the messages of the current branch, the oldest first, `limit` on a page.

        `branch` is the last message of another branch, or `all` for all messages of the chat;
        `before` and `after` are messages between which to list.
        """
        query = filters(branch=branch, sort=sort, siblings=siblings or None, limit=limit)
        query |= filters(before=before, after=after)
        return listing(models.Message, "chats", chat_id, "messages", query=query)

    @Endpoint
    def get(self, message_id: str) -> Call[models.Message]:
        """Return a message, with its siblings."""
        return get(models.Message, "messages", message_id)

    @Endpoint
    def delete(self, message_id: str) -> Call[None]:
        """Delete a message with all messages that follow it."""
        return delete("messages", message_id)

    @Endpoint
    def give_feedback(
        self,
        message_id: str,
        rating: Literal["up", "down"],
        *,
        reason: str | None = None,
        text: str | None = None,
    ) -> Call[models.Feedback]:
        """Rate an answer; this replaces earlier feedback on it."""
        body = filters(rating=rating, reason=reason, text=text)
        path = ("messages", message_id, "feedback")
        return change(models.Feedback, *path, body=body, version=None, method="PUT")

    @Endpoint
    def withdraw_feedback(self, message_id: str) -> Call[None]:
        """Delete the feedback on an answer."""
        return delete("messages", message_id, "feedback")


class Turns(Group[RunnerT]):
    """Turns: the answers to messages, as they run."""

    @Listing
    def list(
        self, *, status: Sequence[str] | None = None, limit: int | None = None
    ) -> Call[models.ListedTurn]:
        """List the turns of all chats, the latest first, with tool calls that await approval."""
        return listing(models.ListedTurn, "turns", query=filters(status=status, limit=limit))

    @Endpoint
    def get(self, turn_id: str) -> Call[models.Turn]:
        """Return a turn."""
        return get(models.Turn, "turns", turn_id)

    @Streaming
    def events(
        self,
        turn_id: str,
        *,
        after: str = "",
        reconnect_s: float = 60.0,
        on_connection: OnConnection | None = None,
    ) -> Opening:
        """Stream a turn, from its start or after an event; use it as a context manager."""
        return following(turn_id, after=after, reconnect_s=reconnect_s, on_connection=on_connection)

    @Endpoint
    def cancel(self, turn_id: str) -> Call[models.Turn]:
        """Cancel a turn; its stream says when it has ended."""
        return post(models.Turn, "turns", turn_id, "cancel")

    @Endpoint
    def regenerate(
        self,
        turn_id: str,
        *,
        model: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[TurnOptions],
    ) -> Call[models.Answer]:
        """Answer the message of a turn again, beside its answer, and wait for it."""
        body = {**filters(stream=False, model=model), **fields(**options)}
        return creation(
            models.Answer, "turns", turn_id, "regenerate", body=body, key=idempotency_key
        )

    @Streaming
    def stream_regenerate(
        self,
        turn_id: str,
        *,
        model: str | None = None,
        idempotency_key: str | None = None,
        reconnect_s: float = 60.0,
        on_connection: OnConnection | None = None,
        **options: Unpack[TurnOptions],
    ) -> Opening:
        """Answer the message of a turn again, beside its answer, and stream that."""
        body = {**filters(stream=True, model=model), **fields(**options)}
        call = creation(
            models.Answer, "turns", turn_id, "regenerate", body=body, key=idempotency_key
        )
        return Opening(call=call, reconnect_s=reconnect_s, on_connection=on_connection)

    @Endpoint
    def tool_call(self, turn_id: str, tool_call_id: str) -> Call[models.ToolCall]:
        """Return a tool call with its whole input, which events leave out if it is long."""
        return get(models.ToolCall, "turns", turn_id, "tool-calls", tool_call_id)

    @Endpoint
    def decide(
        self,
        turn_id: str,
        tool_call_id: str,
        decision: Literal["approve", "deny"],
        *,
        reason: str | None = None,
        input: Mapping[str, JsonValue] | None = None,  # noqa: A002 -- the name on the wire
        remember_for_chat: bool = False,
    ) -> Call[models.DecidedToolCall]:
        """Approve or deny a tool call that awaits approval; an approval may change its input."""
        body = filters(
            decision=decision,
            reason=reason,
            input=input,
            remember_for_chat=remember_for_chat or None,
        )
        return post(models.DecidedToolCall, "turns", turn_id, "approvals", tool_call_id, body=body)


class Models(Group[RunnerT]):
    """The models that the caller may choose."""

    @Listing
    def list(self) -> Call[models.OfferedModel]:
        """List the models that the caller's plan allows."""
        return listing(models.OfferedModel, "models", query={})
