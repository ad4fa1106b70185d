"""`everturn deployment`: for scripts that roll out a version of the workers.

Commands end with code 0 where what they say holds, with 1 after a line with the reason, and
`drained` with 3 where the version is still needed.
"""
# ruff: noqa: PLC0415 -- as in workers/command_line.py

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from temporalio.client import Client

    from services.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Roll out a version of the workers.")

_NOT_DRAINED: Final = 3

BuildId = Annotated[
    str | None, typer.Option("--build-id", help="The version; EVERTURN_BUILD_ID by default.")
]
Wait = Annotated[float, typer.Option(min=0, help="Seconds to wait for it.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def status(*, as_json: Json = False) -> None:
    """Show the versions of the workers, and what still runs on each."""

    async def run(client: "Client", _: "Settings") -> None:
        from workers.deployment.versions import WorkerVersions

        found = await WorkerVersions(client).status()
        typer.echo(found.model_dump_json(by_alias=True) if as_json else str(found))

    _with_temporal(run)


@app.command()
def promote(
    *,
    build_id: BuildId = None,
    wait: Wait = 60.0,
    move: Annotated[
        bool, typer.Option("--move", help="Then move open runs of other versions to it.")
    ] = False,
) -> None:
    """Give new work to a version once its workers poll all queues. Safe to repeat."""

    async def run(client: "Client", settings: "Settings") -> None:
        from workers.deployment.versions import WorkerVersions

        wanted = build_id or _own(settings)
        before = await WorkerVersions(client).promote(wanted, within=timedelta(seconds=wait))
        if before == wanted:
            typer.echo(f"Version {wanted} is current already.")
        else:
            typer.echo(f"Version {wanted} is current. Before: {before or 'none'}.")
        if move:
            await _move(client, settings, wanted)

    _with_temporal(run)


@app.command("move")
def move_runs() -> None:
    """Move open runs of other versions to the current one, if its code can follow them."""

    async def run(client: "Client", settings: "Settings") -> None:
        from workers.deployment.moving import NotCurrentError
        from workers.deployment.versions import WorkerVersions

        own, current = _own(settings), await WorkerVersions(client).current()
        if own != current:
            raise NotCurrentError(own, current)
        await _move(client, settings, own)

    _with_temporal(run)


@app.command()
def drained(
    build_id: Annotated[str, typer.Argument(help="The version whose workers are to be stopped.")],
    *,
    wait: Wait = 0.0,
    as_json: Json = False,
) -> None:
    """End with code 0 if nothing needs a version any more, with 3 if something does."""

    async def run(client: "Client", _: "Settings") -> None:
        from workers.deployment.versions import WorkerVersions

        found = await WorkerVersions(client).drain(build_id, within=timedelta(seconds=wait))
        typer.echo(found.model_dump_json(by_alias=True) if as_json else str(found))
        if not found.is_drained:
            raise SystemExit(_NOT_DRAINED)

    _with_temporal(run)


async def _move(client: "Client", settings: "Settings", build_id: str) -> None:
    """Move runs, with a line for each that stays. Errors: SystemExit if any does."""
    from workers.deployment.moving import ForeignCodeError, move_runs

    if settings.build_id != build_id:
        raise ForeignCodeError(build_id, settings.build_id)
    move = await move_runs(client, build_id)
    for replayed in move.staying:
        typer.echo(f"{replayed} It stays on its version.")
    typer.echo(f"Moved {move.moved} open runs to {build_id}; {len(move.staying)} stay.")
    if move.staying:
        raise SystemExit(1)


def _own(settings: "Settings") -> str:
    from workers.deployment.versions import NoBuildIdError

    if settings.build_id is None:
        raise NoBuildIdError
    return settings.build_id


def _with_temporal(run: Callable[["Client", "Settings"], Awaitable[None]]) -> None:
    """Run a command with a connection to Temporal."""
    from workers.composition.temporal import connect_temporal
    from workers.process import run_process

    async def connected(settings: "Settings") -> None:
        await run(await connect_temporal(settings, lazy=False), settings)

    run_process(connected)
