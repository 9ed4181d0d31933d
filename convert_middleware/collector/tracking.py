"""The tracking endpoint: takes the GET, answers like Convert as far as that is known, or misbehaves.

A fault that breaks the connection needs the connection: ``serve`` puts it into the request's state. Under
any other server such a fault is played as well as ASGI allows, by an answer that stops short.
"""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from string import printable
from time import monotonic, time
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote

from starlette.responses import HTMLResponse, JSONResponse, Response

from convert_middleware.collector.collector import Collector, error_json
from convert_middleware.collector.faults import NO_BODY
from convert_middleware.errors import WireError

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from convert_middleware.collector.faults import Fault

CONNECTION: Final = "convert_middleware.collector.connection"  # key in scope["state"], set by serve
FLUSH_SECONDS: Final = 0.05
FLUSH_AGAIN: Final = 0.5  # seconds after a flush that failed; requests wait while it is tried
_TICK: Final = 0.25  # seconds until a waiting request notices that the server is closing
_BOT: Final = {"code": "BOT", "message": "Requests of this User-Agent are dropped."}
_PORTAL: Final = "<!doctype html><title>Welcome</title><h1>Please log in to use this network</h1>"
_ELSEWHERE: Final = "/elsewhere"  # where a redirect leads; there is nothing
_DATE_AHEAD: Final = 2  # seconds


class Connection(Protocol):
    """What breaks a connection for real."""

    def reset(self) -> None:
        """Drop it with a TCP reset."""

    def garbage(self) -> None:
        """Answer with something that is not HTTP, and close it."""


class Tracking:
    """The ASGI application behind ``/track/``.

    Args:
        collector: What it feeds.
    """

    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        self._flushes: asyncio.AbstractEventLoop | None = None  # the loop in which a flush is due

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["method"] != "GET":
            text = f"A tracking request is a GET; {scope['method']} is not taken here."
            error = {"parameter": "method", "text": scope["method"], "reason": "must be GET", "message": text}
            refusal = JSONResponse({"error": error}, 405, {"Allow": "GET"})
            await refusal(scope, receive, send)
            return
        fault = self.collector.faults.draw()
        answer = self._take(scope) if fault is None or fault.record else Response(status_code=200)
        if fault is None:
            await answer(scope, receive, send)
        else:
            await self._misbehave(fault, answer, scope, receive, send)

    def _take(self, scope: Scope) -> Response:
        raw: bytes = scope["query_string"]
        try:
            query = raw.decode()
        except UnicodeDecodeError:
            query = quote(raw, safe=printable)  # kept as text; what is no UTF-8 stays none, and is refused
        headers = [
            (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]
        ]
        taken = self.collector.take(scope["path"], query, headers, scope["path_params"].get("project"))
        if self.collector.waiting:
            self._flush_in(FLUSH_SECONDS)
        if isinstance(taken, WireError):
            return JSONResponse({"error": error_json(taken)}, 400)
        if taken.outcome == "bot":
            return JSONResponse(_BOT)
        return Response("/* ok */", media_type="application/javascript")

    def _flush_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._flushes is not loop:  # a loop that ended does nothing any more
            self._flushes = loop
            loop.call_later(seconds, self._flush)

    def _flush(self) -> None:
        self._flushes = None
        self.collector.flush()
        if self.collector.waiting and not self.collector.closing:
            self._flush_in(FLUSH_AGAIN)

    async def _misbehave(
        self, fault: Fault, answer: Response, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if fault.delay_ms:
            await self._pause(fault.delay_ms / 1000)
        if fault.mode == "stall":
            await self._pause(None, receive)
            if self.collector.closing:
                await _break("reset", scope, receive, send)
        elif fault.mode in ("reset", "refuse", "garbage"):
            await _break(fault.mode, scope, receive, send)
        else:
            await _response(fault, answer)(scope, receive, send)

    async def _pause(self, seconds: float | None, receive: Receive | None = None) -> None:
        """Wait until the time is up, the client is gone or the server closes."""
        gone = asyncio.ensure_future(_gone(receive)) if receive else None
        try:
            until = None if seconds is None else monotonic() + seconds
            while not self.collector.closing and not (gone and gone.done()):
                left = _TICK if until is None else min(_TICK, until - monotonic())
                if left <= 0:
                    return
                await asyncio.wait([gone], timeout=left) if gone else await asyncio.sleep(left)
        finally:
            if gone:
                gone.cancel()


def _response(fault: Fault, answer: Response) -> Response:
    """Return what a fault answers where it does answer."""
    headers = {}
    if fault.retry_after is not None:
        date = formatdate(time() + _DATE_AHEAD, usegmt=True)
        headers["Retry-After"] = date if fault.retry_after == "date" else fault.retry_after
    if fault.mode == "bot":
        return JSONResponse(_BOT)
    if fault.status is not None and 300 <= fault.status < 400:
        headers["Location"] = _ELSEWHERE
    if fault.mode == "captive":
        return HTMLResponse(_PORTAL, fault.status or 200, headers)
    if fault.status is None:
        return answer
    if fault.status in NO_BODY:
        return Response(status_code=fault.status, headers=headers)
    return JSONResponse({"status": fault.status, "fault": "as told"}, fault.status, headers)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _break(mode: str, scope: Scope, receive: Receive, send: Send) -> None:
    connection: Connection | None = scope.get("state", {}).get(CONNECTION)
    if connection is None:
        # Any other server: promise more than is sent. The server then has to close the connection.
        headers = [(b"content-length", b"64"), (b"content-encoding", b"gzip")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"\0", "more_body": True})
        return
    if mode == "garbage":
        connection.garbage()
    else:
        connection.reset()
    await _gone(receive)
