"""A site with what lives long or leaves in a server's own way, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from starlette.applications import Starlette
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from convert_middleware import ConvertMiddleware, current
from tests.matrix.servers import FILE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.websockets import WebSocket

asked_to_go_on = anyio.Event()


async def events(request: Request) -> Response:
    """Send events; the second one is a goal, the last one, which waits for ``/go``, another."""
    convert = request.state.convert
    convert.experiment(11, 12)

    async def each() -> AsyncIterator[str]:
        yield "data: one\n\n"
        current().goal(331)
        current().flush()
        yield "data: two\n\n"
        with anyio.fail_after(30):
            await asked_to_go_on.wait()
        current().goal(34)
        yield "data: three\n\n"

    return StreamingResponse(each(), media_type="text/event-stream")


async def go(_: Request) -> Response:
    asked_to_go_on.set()
    return PlainTextResponse("on")


async def file(request: Request) -> Response:
    request.state.convert.goal(33)
    offered = "http.response.pathsend" in request.scope.get("extensions", {})
    return FileResponse(FILE, headers={"x-way": "pathsend" if offered else "body"})


async def plain(_: Request) -> Response:
    return PlainTextResponse("nothing is recorded here")


async def talk(socket: WebSocket) -> None:
    """Record what the visitor says: before the accept, on the way, and at the end."""
    convert = socket.state.convert
    convert.experiment(11, 12)
    await socket.accept(headers=[(b"x-shop", b"1")])
    async for word in socket.iter_text():
        convert.goal(word)
        convert.flush()
        await socket.send_text("noted")
    convert.goal(34)


app = ConvertMiddleware(
    Starlette(
        routes=[
            Route("/events", events),
            Route("/go", go),
            Route("/file", file),
            Route("/plain", plain),
            WebSocketRoute("/talk", talk),
        ]
    ),
    project_id="1",
    customer_id="2",
)
