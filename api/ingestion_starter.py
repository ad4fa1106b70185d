"""Owns starting the workflows of ingestions from HTTP requests.

Temporal being away is no error here: the version is stored, and the sweep starts it later.
"""

import structlog
from temporalio.client import Client
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from api.temporal_absence import patience, why_away
from schema.ids import DocumentId, UserId, ingestion_workflow_id
from schema.ingestion import DocumentVersionReference
from schema.names import BACKGROUND_QUEUE, TASK_TIMEOUT
from workflows.ingest_document import IngestDocument, ingestion_attributes

_log = structlog.get_logger(__name__)


class IngestionStarter:
    """Starts ingestions."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def start(self, document_id: DocumentId, number: int, *, owner: UserId) -> bool:
        """Start the version's ingestion; False where Temporal is away and the sweep will do it.

        Idempotency: an ingestion that runs stays the only one; one that is over changes nothing.
        """
        version = DocumentVersionReference(document_id=document_id, number=number, user_id=owner)
        workflow_id = ingestion_workflow_id(document_id, number)
        try:
            async with patience():
                await self._client.start_workflow(
                    IngestDocument.run,
                    version,
                    id=workflow_id,
                    task_queue=BACKGROUND_QUEUE,
                    task_timeout=TASK_TIMEOUT,
                    search_attributes=ingestion_attributes(version),
                )
        except WorkflowAlreadyStartedError:
            return True
        except (RPCError, RuntimeError, TimeoutError) as error:
            _log.warning("ingestion_postponed", workflow_id=workflow_id, cause=why_away(error))
            return False
        return True
