"""Owns which models a user may ask, and which of these answers a message."""

from collections.abc import Sequence

from schema.plans import Entitlements


def may_ask(entitlements: Entitlements | None, model: str) -> bool:
    """Say whether a plan allows a model; somebody who is gone has none, and may ask none."""
    return entitlements is not None and (
        entitlements.models is None or model in entitlements.models
    )


def choose_model(
    entitlements: Entitlements,
    wanted: str | None,
    *,
    models: Sequence[str],
    preferred: Sequence[str | None],
) -> str | None:
    """Return the model to ask, or None where the plan does not allow it, or allows none.

    `wanted` is one of `models`. Without a wish it is the first of those preferred that is there
    and allowed, or else the first that the plan allows of those there are.
    """
    if wanted is not None:
        return wanted if may_ask(entitlements, wanted) else None
    allowed = models if entitlements.models is None else entitlements.models
    candidates = (*filter(None, preferred), *allowed)
    usable = (model for model in candidates if model in models and may_ask(entitlements, model))
    return next(usable, None)
