"""Children of the soak: a site on an outbox in a file, a server with faults, visitors who come at a rate.

python -m benchmarks.soaked site TRACKING_PORT FILE
python -m benchmarks.soaked server
python -m benchmarks.soaked visitors
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from dataclasses import asdict
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from benchmarks.children import say
from benchmarks.world import _OK, Server, Visitor, questions
from convert_middleware import ConvertMiddleware, Settings, Tracker

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

SHARE: Final = 1 / 3  # of capacity
CONNECTIONS: Final = 32
_OUTAGE: Final = 45.0, 5.0  # seconds between two outages, and of one
_BUSY: Final = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
_NEVER: Final = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"
_dice: Final = Random(1)


class FaultyServer(Server):
    """Refuses, resets and stalls now and then if told to, and is down for some seconds of a minute."""

    faults = False

    def on_message_complete(self) -> None:
        """Answer, or do worse."""
        dice = _dice.random() if FaultyServer.faults else 1.0
        down = FaultyServer.faults and time.monotonic() % sum(_OUTAGE) > _OUTAGE[0]
        if down or dice < 0.02:
            self._transport.write(_BUSY)
        elif dice < 0.025:
            self._transport.write(_NEVER)
        elif dice < 0.03:
            self._transport.abort()
        elif dice < 0.0302:
            pass  # the client gives up by itself
        else:
            Server.requests += 1
            self._transport.write(_OK)


class Caller(Visitor):
    """Asks when it is time, and not earlier than it is answered."""

    pause = 0.0  # seconds from one request to the next; 0: none

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin somewhere in the pause."""
        self._transport = transport
        self._next = time.monotonic() + _dice.random() * Caller.pause
        self._plan()

    def on_message_complete(self) -> None:
        """Take note of an answer, and ask again when it is time."""
        now = time.monotonic()
        if self._parser.get_status_code() != 200:
            self._end(RuntimeError(f"the site answered {self._parser.get_status_code()}"))
            return
        self._latencies.append(now - self._asked)
        self._plan()

    def _plan(self) -> None:
        self._next += Caller.pause
        left = max(0.0, self._next - time.monotonic())
        if time.monotonic() + left >= self._until:
            asyncio.get_running_loop().call_soon(self._end, None)
        else:
            asyncio.get_running_loop().call_later(left, self._ask)


async def visit(port: int, seconds: float, rate: float) -> dict[str, float]:
    """Ask for pages at a rate, and tell what came of it; a rate of 0: as fast as they are answered."""
    Caller.pause = CONNECTIONS / rate if rate else 0.0
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    start = time.monotonic()
    make = partial(Caller, latencies, start + seconds)
    callers = [(await loop.create_connection(make, "127.0.0.1", port))[1] for _ in range(CONNECTIONS)]
    await asyncio.gather(*[caller.done for caller in callers])
    latencies.sort()
    p99 = latencies[len(latencies) * 99 // 100] if latencies else 0.0
    return {"pages": len(latencies), "seconds": time.monotonic() - start, "p99": p99}


async def send_visitors() -> None:
    """Visit what the parent names, until it goes."""
    say({})
    async for question in questions():
        say(await visit(**question))


async def serve() -> None:
    """Track for the site until the parent goes."""
    server = await asyncio.get_running_loop().create_server(FaultyServer, "127.0.0.1", 0)
    async with server:
        say({"port": server.sockets[0].getsockname()[1]})
        async for question in questions():
            FaultyServer.faults = question.get("faults", FaultyServer.faults)
            say({"taken": Server.requests})


async def be_site(tracking_port: int, outbox: str) -> None:
    """Be the site until the parent goes."""
    tracker = Tracker(
        Settings(
            project_id=10025986,
            customer_id=100123,
            secret_key="a secret of at least sixteen bytes",
            endpoint=f"http://127.0.0.1:{tracking_port}/track/",
            outbox=f"sqlite:///{outbox}",
        )
    )

    async def page(request: Request) -> Response:
        request.state.convert.experiment(1004411111, 1004422222)
        request.state.convert.goal(1004433333)
        return PlainTextResponse("hello")

    app: Any = ConvertMiddleware(Starlette(routes=[Route("/", page)]), tracker=tracker)
    config = uvicorn.Config(app, loop="uvloop", http="httptools", access_log=False, log_level="warning")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        serving = asyncio.ensure_future(server.serve(sockets=[listening]))
        say({"port": listening.getsockname()[1], "pid": os.getpid()})
        async for _ in questions():
            say(asdict(tracker.stats()))
        server.should_exit = True
        await serving


if __name__ == "__main__":
    logging.basicConfig(level=logging.CRITICAL)
    role, *rest = sys.argv[1:]
    roles = {"server": serve, "visitors": send_visitors}
    uvloop.run(roles[role]() if role in roles else be_site(int(rest[0]), rest[1]))
