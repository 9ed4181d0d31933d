"""A request leaves nothing for the garbage collector: while that works, every page waits.

Servers hand over ways to answer that lead back to the request, so that any way from the request to those is a
cycle. The connections here do as theirs.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

from convert_middleware import ConvertMiddleware, ConvertWSGIMiddleware, Tracker
from convert_middleware.testing import RecordedTracker

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.websockets import WebSocket


class Connection:
    """A request and the way to answer it, as uvicorn and wsgiref have them in one object."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.answered: list[Any] = []

    async def send(self, message: Any) -> None:
        self.answered.append(message)

    async def receive(self) -> dict[str, Any]:
        return {"type": "websocket.connect" if self.request["type"] == "websocket" else "http.request"}

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: object = None
    ) -> Callable[[bytes], None]:
        self.answered += [status, headers]
        return self.answered.append


def record(convert: Any) -> None:
    convert.experiment(11, 12)
    convert.goal(331)
    convert.revenue(35, transaction_id="ab12345", value="1599.99", products=10)


async def page(request: Request) -> PlainTextResponse:
    record(request.state.convert)
    return PlainTextResponse("page")


async def socket(websocket: WebSocket) -> None:
    record(websocket.state.convert)
    await websocket.accept()
    await websocket.close()


def wsgi_page(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    record(environ["convert"])
    start_response("200 OK", [])
    return [b"page"]


SITE = Starlette(routes=[Route("/", page), WebSocketRoute("/socket", socket)])


def over_asgi(tracker: Tracker, **scope: Any) -> Connection:
    connection = Connection(
        {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [], "state": {}}
        | scope
    )
    app = ConvertMiddleware(SITE, tracker=tracker)
    asyncio.run(app(connection.request, connection.receive, connection.send))
    return connection


def over_websocket(tracker: Tracker) -> Connection:
    return over_asgi(tracker, type="websocket", path="/socket", subprotocols=[])


def over_wsgi(tracker: Tracker) -> Connection:
    connection = Connection({"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http"})
    body: Any = ConvertWSGIMiddleware(wsgi_page, tracker=tracker)(
        connection.request, connection.start_response
    )
    connection.answered += body
    body.close()
    return connection


@pytest.fixture
def tracker() -> Iterator[RecordedTracker]:
    recorded = RecordedTracker()
    yield recorded
    recorded.close()


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("visit", [over_asgi, over_websocket, over_wsgi])
def test_a_request_is_gone_when_it_is_over(
    visit: Callable[[Tracker], Connection], tracker: RecordedTracker
) -> None:
    connection = visit(tracker)
    assert connection.answered
    recorder = connection.request.get("convert") or connection.request["state"]["convert"]
    assert recorder.goals == (331,)
    gone = [weakref.ref(connection), weakref.ref(recorder)]

    del connection, recorder

    assert [each() for each in gone] == [None, None]
