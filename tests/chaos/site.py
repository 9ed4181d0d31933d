"""A site whose every page records one hit of its own, and which tells on stderr what becomes of hits.

A line that was written to a pipe outlives the process that wrote it, whatever ends that process.
"""

from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from convert_middleware import ConvertMiddleware, Settings, Tracker
from convert_middleware.hooks import Event, HitDead, HitDelivered, HitDropped
from tests.chaos.pulse import BEAT
from tests.chaos.told import BEGUN, MARK, NAMES

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send


def tell(what: str, **more: Any) -> None:
    """Write one line, as a whole or not at all."""
    line = json.dumps({"pid": os.getpid(), "what": what, **more})
    os.write(2, f"{MARK}{line}\n".encode())


def note(event: Event) -> None:
    """Tell how a hit ended; a hook."""
    if isinstance(event, HitDelivered | HitDropped | HitDead):
        tell(NAMES[type(event)], reason=getattr(event, "reason", ""), number=getattr(event, "number", 1))


def record(request: Request) -> Response:
    """Record what nobody else records, every third time as an order, and say which process did."""
    number = request.path_params["number"]
    convert = request.state.convert
    if number % 3:
        new = convert.goal(number)
    else:
        new = convert.revenue(35, transaction_id=f"order {number}", value="9.99")
    return PlainTextResponse(f"{os.getpid()} {new}")


tracker = Tracker(
    Settings.from_env(
        project_id=1,
        customer_id=2,
        secret_key="the shop's own secret, long enough",
        hooks=[note],
    )
)


def watch() -> None:
    """Tell when this thread gets to run."""
    while not _over.wait(BEAT):
        tell("beat", at=time.monotonic())


_over = threading.Event()
_watching = threading.Thread(target=watch, daemon=True)
_site = ConvertMiddleware(Starlette(routes=[Route("/{number:int}", record)]), tracker=tracker)
tell(BEGUN)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve, and be watched."""
    if scope["type"] != "lifespan":
        await _site(scope, receive, send)
        return
    _watching.start()
    try:
        await _site(scope, receive, send)
    finally:
        _over.set()
        _watching.join()
