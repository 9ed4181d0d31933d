"""The site in Starlette: ``uvicorn examples.frameworks.starlette_site:app``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import FileResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from convert_middleware import ConvertMiddleware, Recorder, current

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

FILE = Path(__file__).parent / "hello.txt"


async def home(request: Request) -> PlainTextResponse:
    convert: Recorder = request.state.convert
    return PlainTextResponse(f"variation {convert.experiment(11, 12)}")


def signup(request: Request) -> PlainTextResponse:
    """Run in a thread, as every endpoint that is not async."""
    convert: Recorder = request.state.convert
    return PlainTextResponse("first" if convert.goal(331) else "again")


async def buy(request: Request) -> PlainTextResponse:
    request.state.convert.revenue(35, transaction_id="ab12345", value="1599.99", products=10)
    return PlainTextResponse("thanks")


async def chunks() -> AsyncIterator[str]:
    yield "one\n"
    current().goal(34)
    yield "two\n"
    yield "three\n"


async def stream(request: Request) -> StreamingResponse:  # noqa: ARG001 - Starlette hands it in
    return StreamingResponse(chunks(), media_type="text/plain")


async def file(request: Request) -> FileResponse:
    request.state.convert.goal(33)
    return FileResponse(FILE)


async def plain(request: Request) -> PlainTextResponse:  # noqa: ARG001 - Starlette hands it in
    return PlainTextResponse("nothing is recorded here")


app = Starlette(
    routes=[
        Route("/", home),
        Route("/signup", signup, methods=["POST"]),
        Route("/buy", buy, methods=["POST"]),
        Route("/stream", stream),
        Route("/file", file),
        Route("/plain", plain),
    ]
)
app.add_middleware(ConvertMiddleware, project_id="1", customer_id="2")
