"""The ingestion of a document's version: extract, embed batch by batch, finish."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    WorkflowAlreadyStartedError,
    is_cancelled_exception,
)

with workflow.unsafe.imports_passed_through():
    from activities import names
    from schema.ids import ingestion_workflow_id
    from schema.ingestion import (
        DocumentVersionReference,
        FinishIngestionInput,
        IngestionProblem,
        IngestionProgress,
    )
    from schema.names import BACKGROUND_QUEUE, INGEST_DOCUMENT, TASK_TIMEOUT, USER_ID_ATTRIBUTE
    from workflows.child_workflows import let_go, share_of
    from workflows.retries import LONGEST_BACKGROUND, UNHURRIED

_USER_ID: Final = SearchAttributeKey.for_keyword(USER_ID_ATTRIBUTE)

_PAUSES: Final = (timedelta(seconds=1), timedelta(seconds=5), timedelta(seconds=30))
"""Between attempts, where the document itself may be the reason of a failure."""


@workflow.defn(name=INGEST_DOCUMENT)
class IngestDocument:
    """One ingestion. Carries references and counts only; texts and vectors stay in the database."""

    @workflow.run
    async def run(self, version: DocumentVersionReference) -> IngestionProgress:
        """Ingest the version and store how it ended, whatever happens."""
        try:
            progress = await _with_pauses(lambda: self._extract(version))
            while progress.is_under_way and progress.left:
                progress = await self._embed(version, progress)
            if progress.is_under_way:
                progress = await self._finish(version, None)
        except (ActivityError, asyncio.CancelledError) as error:
            progress = await self._finish(version, _problem_of(error))
            if is_cancelled_exception(error):
                raise asyncio.CancelledError from error
            if _is_defect(error):
                raise ApplicationError(
                    "The ingestion failed", type=_type_of(error), non_retryable=True
                ) from error
        workflow.set_current_details(_details(progress))
        return progress

    async def _extract(self, version: DocumentVersionReference) -> IngestionProgress:
        workflow.set_current_details("extracting text")
        extracted: IngestionProgress = await workflow.execute_activity(
            names.EXTRACT_DOCUMENT,
            version,
            result_type=IngestionProgress,
            summary=f"extract · version {version.number}",
            start_to_close_timeout=timedelta(minutes=30),
            heartbeat_timeout=timedelta(seconds=10),
            schedule_to_close_timeout=LONGEST_BACKGROUND,
            retry_policy=UNHURRIED,
        )
        return extracted

    async def _embed(
        self, version: DocumentVersionReference, progress: IngestionProgress
    ) -> IngestionProgress:
        counted = f"{progress.embedded} of {progress.passages} passages"
        workflow.set_current_details(f"embedding {counted}")

        async def embed_batch() -> IngestionProgress:
            embedded: IngestionProgress = await workflow.execute_activity(
                names.EMBED_PASSAGES,
                version,
                result_type=IngestionProgress,
                summary=f"embed · {counted}",
                start_to_close_timeout=timedelta(minutes=10),
                heartbeat_timeout=timedelta(seconds=10),
                schedule_to_close_timeout=LONGEST_BACKGROUND,
                retry_policy=UNHURRIED,
            )
            return embedded

        return await _with_pauses(embed_batch)

    async def _finish(
        self, version: DocumentVersionReference, problem: IngestionProblem | None
    ) -> IngestionProgress:
        """End the ingestion. A cancellation from now on changes nothing."""
        finishing: asyncio.Future[IngestionProgress] = asyncio.ensure_future(
            workflow.execute_activity(
                names.FINISH_INGESTION,
                FinishIngestionInput(version=version, problem=problem),
                result_type=IngestionProgress,
                summary="finish" if problem is None else f"finish · {problem.value}",
                start_to_close_timeout=timedelta(seconds=30),
                schedule_to_close_timeout=LONGEST_BACKGROUND,
                retry_policy=UNHURRIED,
            )
        )
        try:
            return await asyncio.shield(finishing)
        except asyncio.CancelledError:
            return await finishing


async def start_ingestion(version: DocumentVersionReference) -> None:
    """Start an ingestion from another workflow, which it outlives; twice is harmless."""
    try:
        child = await workflow.start_child_workflow(
            INGEST_DOCUMENT,
            version,
            id=ingestion_workflow_id(version.document_id, version.number),
            task_queue=BACKGROUND_QUEUE,
            task_timeout=TASK_TIMEOUT,
            search_attributes=ingestion_attributes(version),
            static_summary=ingestion_summary(version),
            static_details=ingestion_details(version),
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            priority=share_of(version.user_id),
        )
    except WorkflowAlreadyStartedError:
        workflow.logger.info("The ingestion's workflow is already running")
    else:
        let_go(child)


def ingestion_attributes(version: DocumentVersionReference) -> TypedSearchAttributes:
    """Return the search attributes of an ingestion."""
    return TypedSearchAttributes([SearchAttributePair(_USER_ID, str(version.user_id))])


def ingestion_summary(version: DocumentVersionReference) -> str:
    """Return the line by which the Temporal UI names an ingestion."""
    return f"ingestion · version {version.number} of document {version.document_id}"


def ingestion_details(version: DocumentVersionReference) -> str:
    """Return what the Temporal UI shows above an ingestion, as Markdown."""
    user = version.user_id
    return f"User `{user}`\n\nIts state: `everturn admin knowledge list --user {user}`"


async def _with_pauses(attempt: Callable[[], Awaitable[IngestionProgress]]) -> IngestionProgress:
    """Retry a few times only: the document may be why its parser or its embedding fails."""
    for pause in _PAUSES:
        try:
            return await attempt()
        except ActivityError as error:
            if _type_of(error) != names.INGESTION_FALTERED:
                raise
        await workflow.sleep(pause)
    return await attempt()


def _problem_of(error: BaseException) -> IngestionProblem:
    if is_cancelled_exception(error):
        return IngestionProblem.STOPPED
    if _type_of(error) == names.INGESTION_REFUSED:
        return IngestionProblem.EMBEDDING_REFUSED
    return IngestionProblem.KEPT_FAILING


def _is_defect(error: BaseException) -> bool:
    """Whether the failure is one of ours; its owner sees a problem either way."""
    return _type_of(error) not in {None, names.INGESTION_REFUSED, names.INGESTION_FALTERED}


def _type_of(error: BaseException) -> str | None:
    cause = error.cause if isinstance(error, ActivityError) else None
    return cause.type if isinstance(cause, ApplicationError) else None


def _details(progress: IngestionProgress) -> str:
    if progress.status is None:
        return "deleted"
    return f"{progress.status.value} · {progress.embedded} of {progress.passages} passages"
