"""Documents that are not what they seem: each fails with a sentence, and the next one is read."""

import pytest

from everturn_client.models import DocumentVersion
from tests.fixtures.documents import bomb, pdf, pdf_with_a_loop_of_pages
from tests.running_everturn.bystanders import Others
from tests.running_everturn.client import Client
from tests.running_everturn.waiting import eventually

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
