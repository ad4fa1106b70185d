"""`make eval`: how well memories are found and extracted, with what is configured.

    python -m tests.evaluation.evaluate

Servers of its own are started for it, and nothing else is changed. No figure fails the run: the
gates are in the tests.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from pydantic import SecretStr

from schema.actors import Actor, acting_user
from schema.ids import UserId, new_id
from services.auth.accounts import AccountCache
from services.memories.search import MemorySearch
from services.memories.service import MemoryService
from services.settings import Settings
from tests.evaluation.extraction import report
from tests.evaluation.retrieval import Retrieval, retrieval_set
from tests.fixtures.stack_servers import StackServers
from workers.composition.foundation import Foundation, open_foundation

_NAME = "evaluation"


@asynccontextmanager
async def _foundation() -> AsyncIterator[tuple[Foundation, str]]:
    """Yield a foundation on servers of its own, and the address of their superuser."""
    servers = StackServers([_NAME])
    try:
        await servers.open()
        addresses = await servers.create_stack(_NAME)
        settings = Settings().model_copy(
            update={
                "database_url": SecretStr(addresses.database),
                "redis_url": SecretStr(addresses.redis),
            }
        )
        async with open_foundation(settings) as foundation:
            yield foundation, addresses.superuser
    finally:
        await servers.close()


async def _evaluate() -> None:
    async with _foundation() as (foundation, superuser):
        database, embedder = foundation.database, foundation.embedder
        accounts = AccountCache(database, lifetime_s=60)

        async def new_user() -> Actor:
            user_id = UserId(new_id())
            connection = await asyncpg.connect(superuser)
            try:
                await connection.execute(
                    "INSERT INTO users (id, email) VALUES ($1, $2)",
                    user_id,
                    f"{user_id}@example.com",
                )
            finally:
                await connection.close()
            return acting_user(user_id)

        retrieval = Retrieval(
            MemoryService(database, embedder, accounts), MemorySearch(database, embedder), new_user
        )
        found = retrieval_set()
        print(f"Memories that are found, with {embedder.name}")
        for group in ("tuning", "held_out"):
            quality = await retrieval.quality(getattr(found, group), found)
            print(f"  {group:10} {quality}")
    print("Memories that are extracted")
    for line in await report(Settings()):
        print(line)


def main() -> None:
    """Print all figures."""
    asyncio.run(_evaluate())


if __name__ == "__main__":
    main()
