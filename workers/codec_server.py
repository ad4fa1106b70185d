"""`everturn codec-server`: decrypts for Temporal's UI and command line what goes through Temporal.

It runs where the reader is, on loopback, by someone who may have the keys. Web pages other than the
UI get nothing. Source: Temporal's protocol of remote data encoding.
"""

import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

import typer
from google.protobuf.json_format import MessageToDict, Parse, ParseError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from temporalio.api.common.v1 import Payload, Payloads
from uvicorn import Config, Server

from services.settings import Settings
from services.setup_errors import PortTakenError, SetupError
from workers.composition.payload_encryption import EncryptionCodec, UnreadablePayloadError

_LOOPBACK: Final = "127.0.0.1"
_UI_OF_DEV: Final = "http://127.0.0.1:8233"
_MAX_BODY_BYTES: Final = 8 * 1024 * 1024

_Convert = Callable[[Sequence[Payload]], Awaitable[list[Payload]]]


class NothingToDecodeError(SetupError):
    """No keys are set."""

    def __init__(self) -> None:
        super().__init__(
            "Nothing is encrypted without keys. Set EVERTURN_TEMPORAL_ENCRYPTION_KEYS to those of "
            "the processes."
        )


def make_codec_app(keys: str, *, ui_origin: str) -> Starlette:
    """Return the application, which the UI at this origin and programs without one may use.

    Errors: WeakEncryptionKeyError.
    """
    codec = EncryptionCodec(keys)

    def converting(convert: _Convert) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            # Browsers name the page that asks, other programs name none.
            if request.headers.get("origin", ui_origin) != ui_origin:
                return PlainTextResponse("Only Temporal's UI may ask.\n", status_code=403)
            return await _converted(request, convert)

        return answer

    return Starlette(
        routes=[
            Route("/decode", converting(codec.decode), methods=["POST"]),
            Route("/encode", converting(codec.encode), methods=["POST"]),
        ],
        middleware=[
            Middleware(
                CORSMiddleware,
                allow_origins=[ui_origin],
                allow_methods=["POST"],
                allow_headers=["Authorization", "Content-Type", "X-Namespace"],
                allow_private_network=True,
            )
        ],
    )


async def _converted(request: Request, convert: _Convert) -> Response:
    if int(request.headers.get("content-length", _MAX_BODY_BYTES + 1)) > _MAX_BODY_BYTES:
        return PlainTextResponse("The body is too large.\n", status_code=413)
    try:
        asked = Parse(await request.body(), Payloads())
        payloads = await convert(asked.payloads)
    except (ParseError, UnicodeDecodeError):
        return PlainTextResponse("The body must be payloads in JSON.\n", status_code=400)
    except UnreadablePayloadError as error:
        return PlainTextResponse(f"{error}\n", status_code=400)
    return JSONResponse(MessageToDict(Payloads(payloads=payloads)))


async def serve_codec(settings: Settings, *, port: int, ui_url: str | None) -> None:
    """Serve on loopback until SIGINT or SIGTERM; `ui_url` is by default that of the settings.

    Errors: NothingToDecodeError, WeakEncryptionKeyError, PortTakenError.
    """
    keys = settings.temporal_encryption_keys
    if keys is None or not keys.get_secret_value().strip():
        raise NothingToDecodeError
    ui = urlsplit(ui_url or settings.temporal_ui_url or _UI_OF_DEV)
    origin = f"{ui.scheme}://{ui.netloc}"
    app = make_codec_app(keys.get_secret_value(), ui_origin=origin)
    with _listen(port) as listener:
        endpoint = "http://{}:{}".format(*listener.getsockname())
        typer.echo(f"Set the codec endpoint of Temporal's UI at {origin} to {endpoint}")
        await Server(Config(app, log_config=None, access_log=False)).serve(sockets=[listener])


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((_LOOPBACK, port))
    except OSError as error:
        raise PortTakenError(port, "--port") from error
