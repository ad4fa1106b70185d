"""Documents that are not what they seem: each fails with a sentence, and the next one is read."""

import asyncio
from pathlib import Path
from typing import Final

import pytest

from everturn_client.models import DocumentVersion
from tests.fixtures.documents import (
    bomb,
    pdf,
    pdf_of_streams,
    pdf_with_a_loop_of_pages,
    stream,
)
from tests.running_everturn.bystanders import Others
from tests.running_everturn.client import Client
from tests.running_everturn.stack import ScriptedStack
from tests.running_everturn.waiting import eventually

_LARGEST: Final = 25 * 1024 * 1024
_PROSE = (
    "All human beings are born free and equal in dignity and rights. They are endowed with reason "
    "and conscience and should act towards one another in a spirit of brotherhood. "
)
_SHIFTED = "".join(chr(ord(char) + 3) if char.isalpha() else char for char in _PROSE)


async def ingested(client: Client, document_id: str) -> DocumentVersion:
    """Return the only version of a document, once it is ready or has failed."""

    async def look() -> DocumentVersion:
        (version,) = [version async for version in client.api.knowledge.versions(document_id)]
        return version

    return await eventually(look, lambda version: version.status in {"ready", "failed"})


@pytest.mark.parametrize(
    "data",
    [
        bomb(400_000_000, layers=2),
        pdf_with_a_loop_of_pages(),
        pdf(*[_SHIFTED] * 3),
    ],
    ids=["400 MB", "pages in circles", "other letters than it shows"],
)
async def test_a_hostile_document_fails_and_the_next_one_is_read(
    client: Client, others: Others, data: bytes
) -> None:
    knowledge = client.api.knowledge

    async with others("hostile PDFs"):
        hostile = await knowledge.upload(data, filename="a.pdf", content_type="application/pdf")
        failed = await ingested(client, hostile.id)

    assert failed.status == "failed"
    assert failed.problem
    harmless = await knowledge.upload(pdf(_PROSE), filename="b.pdf", content_type="application/pdf")
    assert (await ingested(client, harmless.id)).status == "ready"


async def test_twenty_of_the_largest_files_at_once_are_stored_whole_and_not_held_in_memory(
    everturn: ScriptedStack, client: Client, others: Others
) -> None:
    data = pdf_of_streams([stream(b"%" * (_LARGEST - 1_000))])
    api = everturn.stack.pid("api")
    before = peak_mib(api)

    async with others("large files", rounds=1):
        files = await asyncio.gather(
            *(client.api.files.upload(data, filename=f"{n}.pdf") for n in range(20))
        )

    assert {file.size for file in files} == {len(data)}
    assert peak_mib(api) - before < 200
    for file in files[::7]:
        assert await client.api.files.content(file.id) == data
    for file in files:
        await client.api.files.delete(file.id)


def peak_mib(pid: int | None) -> float:
    """Return the most memory that a process has had since this was asked last."""
    process = Path(f"/proc/{pid}")
    status = (process / "status").read_text()
    (process / "clear_refs").write_text("5")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
