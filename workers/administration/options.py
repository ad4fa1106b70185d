"""Owns the options that commands share, and opening a session only once a command runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from workers.administration.target import Target

if TYPE_CHECKING:
    from workers.administration.session import Administration

AsJson = Annotated[bool, typer.Option("--json", help="Print what the API answers, for scripts.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="How many rows at most.")]
UserName = Annotated[str, typer.Argument(metavar="USER", help="An id or an e-mail address.")]


@contextmanager
def administration(context: typer.Context) -> Iterator["Administration"]:
    """Open a session with the API that the options name. Errors: typer.Exit."""
    # Here, so that `everturn --help` stays quick.
    from workers.administration.session import open_administration  # noqa: PLC0415 -- see above

    target = context.find_object(Target)
    if target is None:
        raise typer.Exit(1)
    with open_administration(target) as opened:
        yield opened
