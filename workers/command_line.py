"""The command line: one function for each command, each a few lines.

Commands import what they run when they run it: `everturn --help` stays quick, and a production
image needs none of the embedded servers.
"""
# ruff: noqa: PLC0415 -- see above

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schema.names import QUEUES
from workers.administration.command import app as administration
from workers.administration.options import DATA_DIR, ApiUrl, DevDataDir
from workers.deployment.command import app as deployment
from workers.startup import pause_collection

if TYPE_CHECKING:
    from services.settings import Settings

app = typer.Typer(
    name="everturn",
    help="A backend for AI chat in which every chat turn is a durable workflow.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

app.add_typer(administration, name="admin")
app.add_typer(deployment, name="deployment")

DataDir = Annotated[Path, typer.Option(help="Directory for data, logs and addresses.")]


@app.command()
def dev(
    *,
    data_dir: DataDir = DATA_DIR,
    ephemeral: Annotated[bool, typer.Option(help="Delete all data on exit.")] = False,
    port: Annotated[int | None, typer.Option(help="Port of the API; 0 for any free port.")] = None,
) -> None:
    """Run everything on this machine: databases, Temporal with its UI, API and workers."""
    from workers.embedded.fork_server import ForkServer

    fork_server = ForkServer()
    # It imports the longest: before this process does.
    fork_server.begin()
    from workers.dev import run_dev

    run_dev(
        None if ephemeral else data_dir, ephemeral=ephemeral, port=port, fork_server=fork_server
    )


@app.command()
def api() -> None:
    """Run the HTTP API."""
    pause_collection()
    from workers.process import run_process

    async def serve(settings: "Settings") -> None:
        # After the settings have been read: what is wrong with them is said at once.
        from workers.api_process import serve_api

        await serve_api(settings)

    run_process(serve)


@app.command()
def worker(
    queue: Annotated[list[str], typer.Option(help=f"Task queue: {', '.join(QUEUES)}. Repeatable.")],
) -> None:
    """Run workers for one or more task queues."""
    unknown = sorted(set(queue) - set(QUEUES))
    if unknown:
        raise typer.BadParameter(f"unknown queue: {', '.join(unknown)}", param_hint="--queue")
    pause_collection()
    from workers.process import run_process

    async def serve(settings: "Settings") -> None:
        from workers.worker_process import serve_queues

        await serve_queues(settings, queue)

    run_process(serve)


CreateNamespace = Annotated[
    bool, typer.Option("--create-namespace", help="Create the namespace if it is missing.")
]
RetentionDays = Annotated[
    int, typer.Option(min=1, help="How long a new namespace keeps ended workflows, in days.")
]


@app.command()
def migrate(
    *,
    revision: Annotated[
        str, typer.Option(help="`head`, `base` for an empty database, or a number, e.g. 0012.")
    ] = "head",
    yes: Annotated[
        bool, typer.Option("--yes", help="Confirm that reverting deletes data.")
    ] = False,
    temporal: Annotated[
        bool, typer.Option(help="At `head`, also add Temporal's search attributes.")
    ] = True,
    create_namespace: CreateNamespace = False,
    retention_days: RetentionDays = 7,
) -> None:
    """Migrate the database to the newest schema, or to a given revision, and set up Temporal."""
    pause_collection()
    from workers.migration import migrate_database, set_up_temporal
    from workers.process import run_process

    async def run(settings: "Settings") -> None:
        await migrate_database(settings, revision=revision, may_revert=yes)
        if temporal and revision == "head":
            retention = timedelta(days=retention_days)
            await set_up_temporal(settings, create_namespace=create_namespace, retention=retention)

    run_process(run)


@app.command()
def setup_temporal(
    *, create_namespace: CreateNamespace = False, retention_days: RetentionDays = 7
) -> None:
    """Add the search attributes to the namespace in Temporal; `migrate` does so, too."""
    from workers.migration import set_up_temporal
    from workers.process import run_process

    run_process(
        lambda settings: set_up_temporal(
            settings,
            create_namespace=create_namespace,
            retention=timedelta(days=retention_days),
        )
    )


@app.command()
def codec_server(
    *,
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any free port.")] = 8234,
    ui: Annotated[
        str | None,
        typer.Option(help="URL of Temporal's UI, as in the browser; EVERTURN_TEMPORAL_UI_URL."),
    ] = None,
) -> None:
    """Decrypt payloads for Temporal's UI and command line, on this machine."""
    from workers.codec_server import serve_codec
    from workers.process import run_process

    run_process(lambda settings: serve_codec(settings, port=port, ui_url=ui))


@app.command()
def replay(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Files with histories, or folders of them.")
    ] = None,
    *,
    live: Annotated[
        int, typer.Option(min=0, help="Newest running and closed runs of the namespace, of each.")
    ] = 0,
) -> None:
    """Check that this version's workflows can follow histories: exit code 1 if one can't."""
    if not paths and not live:
        raise typer.BadParameter("name files or folders, or use --live")
    from workers.process import run_process
    from workers.replay import replay_histories

    run_process(lambda settings: replay_histories(settings, paths or (), live=live))


@app.command()
def chat(
    *,
    url: ApiUrl = None,
    data_dir: DevDataDir = DATA_DIR,
    email: Annotated[
        str | None, typer.Option(envvar="EVERTURN_EMAIL", help="The account to sign in to.")
    ] = None,
    sign_up: Annotated[bool, typer.Option("--sign-up", help="Create an account first.")] = False,
    chat_id: Annotated[str | None, typer.Option("--chat", help="Continue this chat.")] = None,
    new: Annotated[bool, typer.Option("--new", help="Start a new chat.")] = False,
    model: Annotated[str | None, typer.Option(help="The model that answers.")] = None,
    message: Annotated[
        str | None, typer.Option(help="Send one message, print the answer and exit.")
    ] = None,
) -> None:
    """Chat in the terminal."""
    from workers.terminal_chat.command import run_chat

    sys.exit(
        run_chat(
            url=url,
            data_dir=data_dir,
            email=email,
            sign_up=sign_up,
            chat_id=chat_id,
            new=new,
            model=model,
            message=message,
        )
    )


@app.command()
def demo_model(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any free port.")] = 0,
    host: Annotated[str, typer.Option(help="Loopback address to listen on.")] = "127.0.0.1",
    delay_to_first_ms: Annotated[
        int, typer.Option(min=0, help="Delay before the first event, in milliseconds.")
    ] = 200,
    delay_between_ms: Annotated[
        int, typer.Option(min=0, help="Delay between events, in milliseconds.")
    ] = 15,
) -> None:
    """Run the demo model, a rule-based server that speaks the Messages API."""
    from workers.demo_model.server import run_demo_model

    run_demo_model(host, port, delay_to_first_ms, delay_between_ms)
