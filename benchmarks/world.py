"""A child that plays the world outside: a tracking server, and visitors who ask for pages.

    python -m benchmarks.world server
    python -m benchmarks.world visitors

The server answers ``{}`` with how many tracking requests came and when the last one did. The visitors take
``{"port": …, "seconds": …, "connections": …}`` and answer with what they saw. With a ``"rate"`` they do not
wait for each other's pages but come so many a second (an open loop): a page that had to wait for a connection
waited for the site. Times are of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from functools import partial
from typing import Any, Final

import httptools
import uvloop

from benchmarks.children import say

_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nOK"
_PAGE: Final = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: visitor\r\nAccept: text/html\r\n\r\n"


class Server(asyncio.Protocol):
    """Answers every request and counts them."""

    requests = 0
    last = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read requests."""
        self._transport: Any = transport
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Count and answer a request."""
        Server.requests += 1
        Server.last = time.monotonic()
        self._transport.write(_OK)


class Visitor(asyncio.Protocol):
    """Asks for one page after the other over one connection."""

    def __init__(self, latencies: list[float], until: float) -> None:
        self._latencies = latencies
        self._until = until
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first page."""
        self._transport: Any = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Take note of an answer and ask again."""
        now = time.monotonic()
        if self._parser.get_status_code() != 200:
            self._end(RuntimeError(f"the site answered {self._parser.get_status_code()}"))
            return
        self._latencies.append(now - self._asked)
        if now >= self._until:
            self._end(None)
        else:
            # The parser is still inside its callback, so the next request begins after it.
            asyncio.get_running_loop().call_soon(self._ask)

    def connection_lost(self, error: Exception | None) -> None:
        """Complain if it was not this side that closed the connection."""
        self._end(error or ConnectionError("the site closed a connection"))

    def leave(self) -> None:
        """Go, with every page answered."""
        self._end(None)

    def _ask(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._asked = time.monotonic()
        self._transport.write(_PAGE)

    def _end(self, error: Exception | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
        self._transport.close()


class Passer(Visitor):
    """Asks for a page when somebody comes and a connection is free."""

    def __init__(self, latencies: list[float], free: deque[Passer], queue: deque[float]) -> None:
        super().__init__(latencies, 0.0)
        self._free = free
        self._queue = queue

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for somebody to come."""
        self._transport: Any = transport
        self._free.append(self)

    def come(self, at: float) -> None:
        """Ask for somebody's page."""
        self._ask()
        self._asked = at

    def on_message_complete(self) -> None:
        """Take note of an answer and let the next one come."""
        self._latencies.append(time.monotonic() - self._asked)
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        if self._queue:
            self.come(self._queue.popleft())
        else:
            self._free.append(self)


async def pass_by(port: int, seconds: float, connections: int, rate: float) -> dict[str, float]:
    """Ask for so many pages a second, whether or not earlier ones were answered, and tell what came of it."""
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    free: deque[Passer] = deque()
    queue: deque[float] = deque()
    passers = [
        (await loop.create_connection(partial(Passer, latencies, free, queue), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    start = time.monotonic()
    wanted = max(1, int(rate * seconds))
    for number in range(wanted):
        at = start + number / rate
        if (early := at - time.monotonic()) > 0:
            await asyncio.sleep(early)
        if free:
            free.popleft().come(at)
        else:
            queue.append(at)
    while len(latencies) < wanted:  # noqa: ASYNC110 - an event would cost time where latency is measured
        await asyncio.sleep(0.002)
    end = time.monotonic()
    for passer in passers:
        passer.leave()
    return summary(latencies, start, end)


async def visit(port: int, seconds: float, connections: int, rate: float | None = None) -> dict[str, float]:
    """Ask for pages, each visitor again as soon as it is answered, and tell what came of it."""
    if rate is not None:
        return await pass_by(port, seconds, connections, rate)
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    start = time.monotonic()
    visitors = [
        (await loop.create_connection(partial(Visitor, latencies, start + seconds), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*[visitor.done for visitor in visitors])
    return summary(latencies, start, time.monotonic())


def summary(latencies: list[float], start: float, end: float) -> dict[str, float]:
    """Return what the visitors saw."""
    latencies.sort()
    return {
        "pages": len(latencies),
        "start": start,
        "end": end,
        "p50": latencies[len(latencies) // 2],
        "p99": latencies[len(latencies) * 99 // 100],
    }


async def serve() -> None:
    """Serve until the parent goes."""
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    async with server:
        say({"port": server.sockets[0].getsockname()[1]})
        async for _ in questions():
            say({"requests": Server.requests, "last": Server.last})


async def send_visitors() -> None:
    """Visit what the parent names, until it goes."""
    say({})
    async for question in questions():
        say(await visit(**question))


async def questions() -> Any:
    """Yield what the parent says, until it goes."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        yield json.loads(line)


if __name__ == "__main__":
    uvloop.run({"server": serve, "visitors": send_visitors}[sys.argv[1]]())
