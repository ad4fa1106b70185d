"""Owns showing the metrics of this process; at the root, where Prometheus looks for them."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from api.dependencies import Services
from api.metrics import metrics_of

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {
            "description": "The metrics of the API here, in Prometheus' text format.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
)
async def show_metrics(request: Request, services: Services) -> Response:
    """Return what the API has counted."""
    degraded = services.operations.rate_limits.is_degraded
    text = metrics_of(request).exposition(limiter_degraded=degraded)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
