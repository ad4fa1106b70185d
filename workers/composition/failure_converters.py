"""How failures are written into Temporal's histories: without stack traces.

They name the folders of machines. Where something fails unexpectedly, its trace is in the log.
"""

from temporalio.api.failure.v1 import Failure
from temporalio.converter import (
    DefaultFailureConverter,
    DefaultFailureConverterWithEncodedAttributes,
    PayloadConverter,
)
from temporalio.exceptions import FailureError


class TracelessFailureConverter(DefaultFailureConverter):
    """Leaves stack traces out of histories."""

    def _error_to_failure(
        self, error: FailureError, payload_converter: PayloadConverter, failure: Failure
    ) -> None:
        # Its caller may encode what this leaves; causes come through here, each by itself.
        super()._error_to_failure(error, payload_converter, failure)
        failure.stack_trace = ""


class EncodedTracelessFailureConverter(
    TracelessFailureConverter, DefaultFailureConverterWithEncodedAttributes
):
    """Also makes messages payloads, which a codec can encrypt."""
