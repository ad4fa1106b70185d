"""A development stack whose servers a test stops and kills, and whose model it scripts."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from temporalio.client import Client as TemporalClient
from temporalio.contrib.pydantic import pydantic_data_converter

from services.settings import Settings
from tests.fakes.scripted_model.model import ScriptedModel
from tests.fakes.scripted_model.server import serve
from tests.running_everturn.model import RemoteModel
from tests.running_everturn.process import environment
from workers.embedded.stack import DevelopmentStack


@dataclass(frozen=True, slots=True)
class ScriptedStack:
    """Everything that `everturn dev` runs; the model outlives the rest."""

    stack: DevelopmentStack
    model: ScriptedModel | RemoteModel

    @property
    def api(self) -> str:
        """The origin of the API."""
        return self.stack.addresses.api

    async def temporal(self) -> TemporalClient:
        """Return a new connection to Temporal."""
        return await TemporalClient.connect(
            self.stack.addresses.temporal, data_converter=pydantic_data_converter
        )

    async def query(self, statement: str, *arguments: object) -> list[dict[str, Any]]:
        """Ask the database as its superuser, whom no policy binds."""
        connection = await asyncpg.connect(self.stack.addresses.migration_database)
        try:
            return [dict(row) for row in await connection.fetch(statement, *arguments)]
        finally:
            await connection.close()

    async def ledger(self, turn_id: str) -> list[dict[str, Any]]:
        """Return the ledger's rows of a turn in the order in which they were opened."""
        return await self.query(
            "SELECT * FROM ledger WHERE turn_id = $1::text::uuid ORDER BY created_at, id", turn_id
        )


@asynccontextmanager
async def scripted_stack(
    model: ScriptedModel | RemoteModel,
    model_url: str,
    *,
    data_dir: Path | None = None,
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[ScriptedStack]:
    """Open a stack, an ephemeral one without `data_dir`, whose processes get these settings."""
    model_settings = {"ANTHROPIC_API_KEY": "scripted", "ANTHROPIC_BASE_URL": model_url}
    with pytest.MonkeyPatch.context() as patch:
        _replace_environment(patch, environment(**model_settings, **(settings or {})))
        stack = DevelopmentStack(
            data_dir, ephemeral=data_dir is None, settings=Settings(api_port=0, _env_file=None)
        )
        await stack.open()
    try:
        yield ScriptedStack(stack, model)
    finally:
        await stack.close()


@asynccontextmanager
async def scripted_model() -> AsyncIterator[tuple[ScriptedModel, str]]:
    """Serve a model from this process, and yield it with its address."""
    model = ScriptedModel()
    async with serve(model) as url:
        yield model, url


def _replace_environment(patch: pytest.MonkeyPatch, wanted: dict[str, str]) -> None:
    """Make the environment of this process what the stack's processes are to inherit."""
    for name in os.environ.keys() - wanted.keys():
        patch.delenv(name)
    for name, value in wanted.items():
        patch.setenv(name, value)
