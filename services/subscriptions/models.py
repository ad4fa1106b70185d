"""Owns which model a message is answered by: the one asked for, if the plan allows it."""

from collections.abc import Sequence

from schema.plans import Entitlements


def choose_model(
    entitlements: Entitlements,
    wanted: str | None,
    *,
    models: Sequence[str],
    preferred: Sequence[str | None],
) -> str | None:
    """Return the model to ask, or None where the plan does not allow it, or allows none.

    Without a wish it is the first of those preferred that is there and allowed, or else the first
    that the plan allows of those there are.
    """
    allowed = models if entitlements.models is None else entitlements.models
    if wanted is not None:
        return wanted if wanted in allowed else None
    candidates = (*preferred, *allowed)
    return next((model for model in candidates if model in models and model in allowed), None)
