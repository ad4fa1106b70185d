"""The commands about turns, feedback, prompts and documents."""

from pathlib import Path
from typing import Annotated

import typer

from workers.administration.options import (
    AsJson,
    Limit,
    Since,
    Until,
    UserFilter,
    administration,
    text_of,
)

app = typer.Typer()
prompts = typer.Typer(no_args_is_help=True, help="Prompts of the system layer.")
knowledge = typer.Typer(no_args_is_help=True, help="Documents of all users.")
app.add_typer(prompts, name="prompts")
app.add_typer(knowledge, name="knowledge")

TurnId = Annotated[str, typer.Argument(metavar="TURN", help="The turn's ID.")]
Status = Annotated[str | None, typer.Option(help="Filter by status, e.g. failed.")]
PromptName = Annotated[str, typer.Argument(metavar="PROMPT", help="The prompt's ID or name.")]
ContentFile = Annotated[
    Path | None, typer.Option("--file", help="The file with the text; - for standard input.")
]

_TURNS = {
    "id": "id",
    "user": "userId",
    "status": "status",
    "model": "model",
    "cost in USD": "costUsd",
    "error": "error.code",
    "created": "createdAt",
}
_FEEDBACK = {
    "user": "userId",
    "turn": "turnId",
    "rating": "rating",
    "reason": "reason",
    "text": "text",
    "model": "model",
    "prompt": "promptVersion",
    "created": "createdAt",
}
_PROMPTS = {
    "id": "id",
    "name": "name",
    "latest": "latestVersion",
    "active": "activeVersion",
    "description": "description",
}
_VERSIONS = {
    "number": "number",
    "active": "active",
    "note": "note",
    "content": "content",
    "created": "createdAt",
}
_DOCUMENTS = {
    "id": "id",
    "title": "title",
    "user": "userId",
    "status": "status",
    "ingestion": "ingestion.status",
    "problem": "ingestion.problem",
    "created": "createdAt",
}


@app.command()
def turns(
    context: typer.Context,
    *,
    user: UserFilter = None,
    status: Status = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List turns of all users, newest first."""
    with administration(context) as admin:
        owner = None if user is None else admin.user_id(user)
        found = admin.api.turns.list(user_id=owner, status=status)
        admin.show_rows(found.first(limit), _TURNS, as_json=as_json)


@app.command()
def turn(
    context: typer.Context,
    turn_id: Annotated[
        str | None, typer.Argument(metavar="[TURN]", help="The turn's ID; by default the latest.")
    ] = None,
    *,
    user: UserFilter = None,
    status: Status = None,
    as_json: AsJson = False,
) -> None:
    """Show why a turn ended as it did, and everything else about it; this is audited.

    Without TURN, it is the latest one, e.g. the latest `--user ada@example.com --status failed`.
    """
    # Imported here, so that `everturn --help` stays quick.
    from workers.administration.turn_report import turn_report  # noqa: PLC0415 -- see above

    with administration(context) as admin:
        if turn_id is None:
            turn_id = admin.latest_turn(user=user, status=status)
        elif user is not None or status is not None:
            raise typer.BadParameter("pass either TURN or filters")
        inspected = admin.api.turns.get(turn_id)
        if as_json:
            admin.show(inspected, as_json=True)
        else:
            owner = admin.api.users.get(inspected.turn.user_id)
            admin.print(turn_report(inspected, owner=owner.email or owner.id))


@app.command()
def cancel(context: typer.Context, turn_id: TurnId, *, as_json: AsJson = False) -> None:
    """Cancel a turn."""
    with administration(context) as admin:
        admin.show(admin.api.turns.cancel(turn_id), as_json=as_json)


@app.command()
def rerun(context: typer.Context, turn_id: TurnId, *, as_json: AsJson = False) -> None:
    """Answer the message of a chat's latest turn again."""
    with administration(context) as admin:
        admin.show(admin.api.turns.rerun(turn_id), as_json=as_json)


@app.command()
def feedback(
    context: typer.Context,
    *,
    user: UserFilter = None,
    rating: Annotated[str | None, typer.Option(help="Filter by rating: up or down.")] = None,
    model: Annotated[str | None, typer.Option(help="Filter by model.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List feedback on answers, newest first; this is audited."""
    with administration(context) as admin:
        owner = None if user is None else admin.user_id(user)
        found = admin.api.feedback(
            user_id=owner, rating=rating, model=model, since=since, until=until
        )
        admin.show_rows(found.first(limit), _FEEDBACK, as_json=as_json)


@prompts.command("list")
def list_prompts(context: typer.Context, *, limit: Limit = 50, as_json: AsJson = False) -> None:
    """List prompts."""
    with administration(context) as admin:
        admin.show_rows(admin.api.prompts.list().first(limit), _PROMPTS, as_json=as_json)


@prompts.command("show")
def show_prompt(
    context: typer.Context, prompt: PromptName, *, limit: Limit = 10, as_json: AsJson = False
) -> None:
    """Show a prompt and its latest versions."""
    with administration(context) as admin:
        prompt_id = admin.prompt_id(prompt)
        admin.show(admin.api.prompts.get(prompt_id), as_json=as_json)
        if not as_json:
            versions = admin.api.prompts.versions(prompt_id, sort="-number")
            admin.show_rows(versions.first(limit), _VERSIONS, title="versions", as_json=False)


@prompts.command("versions")
def list_versions(
    context: typer.Context, prompt: PromptName, *, limit: Limit = 50, as_json: AsJson = False
) -> None:
    """List the versions of a prompt, latest first."""
    with administration(context) as admin:
        versions = admin.api.prompts.versions(admin.prompt_id(prompt), sort="-number")
        admin.show_rows(versions.first(limit), _VERSIONS, as_json=as_json)


@prompts.command("create")
def create_prompt(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The prompt's name.")],
    *,
    file: ContentFile = None,
    description: Annotated[str | None, typer.Option(help="The prompt's description.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a prompt, with the text of a file as its first version."""
    content = text_of(file, name="--file")
    with administration(context) as admin:
        created = admin.api.prompts.create(name=name, description=description, content=content)
        admin.show(created, as_json=as_json)


@prompts.command("update")
def update_prompt(
    context: typer.Context,
    prompt: PromptName,
    *,
    file: ContentFile = None,
    note: Annotated[str | None, typer.Option(help="What has changed.")] = None,
    activate: Annotated[bool, typer.Option("--activate", help="Activate it at once.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create a version of a prompt from the text of a file."""
    content = text_of(file, name="--file")
    with administration(context) as admin:
        prompt_id = admin.prompt_id(prompt)
        version = admin.api.prompts.create_version(prompt_id, content=content, note=note)
        if activate:
            admin.show(admin.api.prompts.activate(prompt_id, version.number), as_json=as_json)
        else:
            admin.show(version, as_json=as_json)


@prompts.command("activate")
def activate_prompt(
    context: typer.Context,
    prompt: PromptName,
    number: Annotated[int, typer.Argument(help="The version's number.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Activate a version of a prompt."""
    with administration(context) as admin:
        activated = admin.api.prompts.activate(admin.prompt_id(prompt), number)
        admin.show(activated, as_json=as_json)


@knowledge.command("list")
def list_documents(
    context: typer.Context,
    *,
    user: UserFilter = None,
    status: Annotated[
        str | None, typer.Option(help="Filter by status: draft or published.")
    ] = None,
    search: Annotated[str | None, typer.Option(help="Search in titles.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List documents of all users, newest first."""
    with administration(context) as admin:
        owner = None if user is None else admin.user_id(user)
        found = admin.api.knowledge.list(user_id=owner, status=status, search=search)
        admin.show_rows(found.first(limit), _DOCUMENTS, as_json=as_json)


@knowledge.command("unpublish")
def unpublish(
    context: typer.Context,
    document_id: Annotated[str, typer.Argument(metavar="DOCUMENT", help="The document's ID.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Unpublish a document, so that only its owner finds it."""
    with administration(context) as admin:
        admin.show(admin.api.knowledge.unpublish(document_id), as_json=as_json)
