"""The file docs/openapi.json: written from the application, or compared with it.

python -m workers.openapi docs/openapi.json
python -m workers.openapi --check docs/openapi.json
"""

import json
import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from api.app import create_app
from api.service_groups import ApiServices


def openapi_document() -> str:
    """Return the OpenAPI document of the API as JSON. Opens no connection."""
    # Routes use services only while they serve a request.
    nothing = cast("ApiServices", object())
    document = create_app(nothing, max_body_bytes=1).openapi()
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _main(
    path: Annotated[Path, typer.Argument(help="The file to write.")],
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Only check whether it is up to date.")
    ] = False,
) -> None:
    """Write the OpenAPI document, or compare it."""
    document = openapi_document()
    if not check:
        path.write_text(document, encoding="utf-8")
    elif not path.is_file() or path.read_text(encoding="utf-8") != document:
        sys.exit(f"{path} is out of date. Run `make openapi`.")
    else:
        sys.stdout.write(f"{path}: up to date\n")


if __name__ == "__main__":
    typer.run(_main)
