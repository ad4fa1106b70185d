"""Re-embeds everything that has no vector of the embedder in use, batch by batch."""

from datetime import timedelta
from typing import Final

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import names
    from schema.names import REEMBED
    from schema.reembedding import (
        EmbedBatchInput,
        EmbedBatchOutput,
        EmbeddedKind,
        ReembedOutcome,
        ReembedProgress,
        StaleCount,
    )
    from workflows.retries import LONGEST_BACKGROUND, UNHURRIED

_BATCHES_PER_RUN: Final = 500
"""Then the workflow continues as new; a batch is five events."""

_NEXT: Final = {EmbeddedKind.MEMORIES: EmbeddedKind.PASSAGES, EmbeddedKind.PASSAGES: None}


@workflow.defn(name=REEMBED)
class Reembed:
    """All memories, then all passages. Carries ids and counts only, no text and no vector."""

    @workflow.run
    async def run(self, progress: ReembedProgress | None = None) -> ReembedOutcome:
        """Re-embed what is stale; `progress` is that of the previous run."""
        if progress is None:
            progress = ReembedProgress(total=(await _count()).total)
        batches = 0
        while progress.total and progress.kind is not None:
            if batches == _BATCHES_PER_RUN:
                workflow.continue_as_new(progress)
            workflow.set_current_details(_details(progress))
            progress = _behind(progress, await _embed(progress, progress.kind))
            batches += 1
        workflow.set_current_details(_details(progress))
        return ReembedOutcome(embedded=progress.embedded, skipped=progress.skipped)


async def _count() -> StaleCount:
    counted: StaleCount = await workflow.execute_activity(
        names.COUNT_STALE,
        result_type=StaleCount,
        start_to_close_timeout=timedelta(minutes=2),
        heartbeat_timeout=timedelta(seconds=10),
        schedule_to_close_timeout=LONGEST_BACKGROUND,
        retry_policy=UNHURRIED,
    )
    return counted


async def _embed(progress: ReembedProgress, kind: EmbeddedKind) -> EmbedBatchOutput:
    output: EmbedBatchOutput = await workflow.execute_activity(
        names.EMBED_BATCH,
        EmbedBatchInput(kind=kind, after=progress.after),
        result_type=EmbedBatchOutput,
        summary=f"embed {kind.value} · {_details(progress)}",
        start_to_close_timeout=timedelta(minutes=10),
        heartbeat_timeout=timedelta(seconds=10),
        schedule_to_close_timeout=LONGEST_BACKGROUND,
        retry_policy=UNHURRIED,
    )
    return output


def _behind(progress: ReembedProgress, batch: EmbedBatchOutput) -> ReembedProgress:
    """Return the progress after a batch of its kind."""
    kind = progress.kind
    if kind is not None and batch.place is None:
        kind = _NEXT[kind]
    return ReembedProgress(
        total=progress.total,
        kind=kind,
        after=batch.place,
        embedded=progress.embedded + batch.embedded,
        skipped=progress.skipped + batch.skipped,
    )


def _details(progress: ReembedProgress) -> str:
    skipped = f" · {progress.skipped:,} skipped" if progress.skipped else ""
    return f"{progress.embedded:,} of {progress.total:,}{skipped}"
