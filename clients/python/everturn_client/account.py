"""The account of a user: signing in, the account itself, sessions, API keys, the subscription."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import SecretStr

from everturn_client import models
from everturn_client.calls import (
    UNSET,
    Call,
    Maybe,
    change,
    creation,
    creation_key,
    delete,
    fields,
    filters,
    get,
    listing,
    post,
)
from everturn_client.endpoints import Endpoint, Group, Listing, RunnerT
from everturn_client.user_events import FollowingUser, user_events_call


class Auth(Group[RunnerT]):
    """Signing up, in and out. The client keeps the tokens and refreshes them by itself."""

    @Endpoint
    def signup(
        self,
        *,
        email: str,
        password: str | SecretStr,
        display_name: str | None = None,
        idempotency_key: str | None = None,
    ) -> Call[models.Session]:
        """Create an account and sign in."""
        return post(
            models.Session,
            "auth",
            "signup",
            body=filters(email=email, password=password, display_name=display_name),
            headers=creation_key(idempotency_key),
            signed=False,
            tokens="keep",
        )

    @Endpoint
    def login(self, *, email: str, password: str | SecretStr) -> Call[models.Session]:
        """Sign in with a password."""
        return post(
            models.Session,
            "auth",
            "login",
            body=fields(email=email, password=password),
            signed=False,
            tokens="keep",
        )

    @Endpoint
    def logout(self, *, refresh_token: str | SecretStr) -> Call[None]:
        """Sign out: end the session of a refresh token, and forget this client's tokens."""
        return post(
            type(None), "auth", "logout", body=fields(refresh_token=refresh_token), tokens="forget"
        )

    @Endpoint
    def request_password_reset(self, *, email: str) -> Call[models.SentLink]:
        """Send a link for a new password to the address, if it has an account."""
        body = fields(email=email)
        return post(
            models.SentLink, "auth", "password-reset", body=body, repeatable=False, signed=False
        )

    @Endpoint
    def reset_password(
        self,
        *,
        token: str | SecretStr,
        password: str | SecretStr,
        revoke_api_keys: Maybe[bool] = UNSET,
    ) -> Call[None]:
        """Set a new password with the token of the link; all sessions end."""
        body = fields(token=token, password=password, revoke_api_keys=revoke_api_keys)
        return post(type(None), "auth", "password-reset", "confirm", body=body, signed=False)

    @Endpoint
    def send_verification(self) -> Call[models.SentLink]:
        """Send the link that verifies the user's email address again."""
        return post(models.SentLink, "auth", "email-verification", repeatable=False)

    @Endpoint
    def verify_email(self, *, token: str | SecretStr) -> Call[None]:
        """Verify an email address with the token of the link."""
        body = fields(token=token)
        return post(type(None), "auth", "email-verification", "confirm", body=body, signed=False)

    @Endpoint
    def me(self) -> Call[models.User]:
        """Return the signed-in user."""
        return get(models.User, "auth", "me")


class Users(Group[RunnerT]):
    """The signed-in user's account."""

    @FollowingUser
    def events(self, *, after: str = "") -> Call[Any]:
        """Follow what happens in all chats, after an event if one is named.

        The stream resumes by itself and has no end. Where an event is a `resync`, read the lists.
        """
        return user_events_call(after)

    @Endpoint
    def me(self) -> Call[models.User]:
        """Return the account."""
        return get(models.User, "users", "me")

    @Endpoint
    def update(
        self,
        *,
        display_name: Maybe[str | None] = UNSET,
        email: Maybe[str] = UNSET,
        new_password: Maybe[str | SecretStr] = UNSET,
        current_password: Maybe[str | SecretStr] = UNSET,
        if_version: int | None = None,
    ) -> Call[models.User]:
        """Update the account; a new email or password requires the current password."""
        body = fields(
            display_name=display_name,
            email=email,
            new_password=new_password,
            current_password=current_password,
        )
        return change(models.User, "users", "me", body=body, version=if_version)

    @Endpoint
    def delete(self, *, current_password: Maybe[str | SecretStr] = UNSET) -> Call[None]:
        """Delete the account and everything in it; an account with a password requires it."""
        return delete("users", "me", body=fields(current_password=current_password))

    @Endpoint
    def preferences(self) -> Call[models.Preferences]:
        """Return the preferences."""
        return get(models.Preferences, "users", "me", "preferences")

    @Endpoint
    def set_preferences(
        self, preferences: Mapping[str, Any], *, if_version: int | None = None
    ) -> Call[models.Preferences]:
        """Replace the preferences; omitted fields return to their defaults."""
        return change(
            models.Preferences,
            "users",
            "me",
            "preferences",
            body=fields(**preferences),
            version=if_version,
            method="PUT",
        )

    @Endpoint
    def export(self) -> Call[bytes]:
        """Return everything about the user, as a JSON file."""
        return get(bytes, "users", "me", "export")


class Sessions(Group[RunnerT]):
    """Where the signed-in user is signed in."""

    @Listing
    def list(self, *, limit: int | None = None) -> Call[models.SignedInSession]:
        """List the active sessions, newest first, `limit` on a page."""
        return listing(
            models.SignedInSession, "users", "me", "sessions", query=filters(limit=limit)
        )

    @Endpoint
    def end(self, session_id: str) -> Call[None]:
        """End a session, its access tokens included."""
        return delete("users", "me", "sessions", session_id)

    @Endpoint
    def end_others(self) -> Call[None]:
        """End all sessions but this client's."""
        return delete("users", "me", "sessions")


class ApiKeys(Group[RunnerT]):
    """API keys of the signed-in user."""

    @Endpoint
    def create(
        self,
        *,
        name: str,
        permissions: Sequence[str] | None = None,
        expires_at: datetime | None = None,
        budget: models.BudgetLimits | Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Call[models.CreatedApiKey]:
        """Create a key, which is returned only now.

        By default it may do everything but administration and account changes. Its `budget` can't
        be changed later.
        """
        body = filters(name=name, permissions=permissions, expires_at=expires_at, budget=budget)
        return creation(
            models.CreatedApiKey, "users", "me", "api-keys", body=body, key=idempotency_key
        )

    @Listing
    def list(self, *, limit: int | None = None) -> Call[models.ApiKey]:
        """List the keys, `limit` on a page."""
        return listing(models.ApiKey, "users", "me", "api-keys", query=filters(limit=limit))

    @Endpoint
    def get(self, key_id: str) -> Call[models.ApiKey]:
        """Return a key, without the key itself."""
        return get(models.ApiKey, "users", "me", "api-keys", key_id)

    @Endpoint
    def delete(self, key_id: str) -> Call[None]:
        """Revoke a key."""
        return delete("users", "me", "api-keys", key_id)


class Subscription(Group[RunnerT]):
    """The signed-in user's plan and usage."""

    @Endpoint
    def get(self) -> Call[models.Subscription]:
        """Return the plan and the current period."""
        return get(models.Subscription, "subscription")

    @Endpoint
    def usage(self, *, period: str | None = None) -> Call[models.SubscriptionUsage]:
        """Return the usage of the current period, or of the one that began in `2026-01`."""
        return Call(
            method="GET",
            path="/subscription/usage",
            answer=models.SubscriptionUsage,
            query=filters(period=period),
        )
