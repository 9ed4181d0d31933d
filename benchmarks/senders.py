"""A child that sends tracking requests in one way or another and tells what CPU time that took.

    python -m benchmarks.senders NAME TRACKING_PORT

Takes ``{"requests": n}`` and answers with the seconds of CPU time, user and system, that they took.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import socket
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from benchmarks.children import say
from benchmarks.visitors import queries
from convert_middleware.delivery import Delivery, MemoryOutbox, Policy, Worth
from convert_middleware.delivery.senders.choose import make_sender
from convert_middleware.hooks import Announcer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Send = Callable[[Sequence[str]], None]

_CONNECTIONS: Final = 16
_AGENT: Final = "ConvertAgent/1.0 benchmark"


def ours(sender: str, port: int) -> Send:
    """Hand over to delivery, which takes from its outbox, sends, decides and settles."""
    delivery = Delivery(
        MemoryOutbox(),
        make_sender(sender, _endpoint(port)),
        Policy(),
        Announcer((), time.monotonic),
    )

    def send(texts: Sequence[str]) -> None:
        before = delivery.counts().delivered
        for text in texts:
            delivery.hand_over(text, Worth.GOAL)
        if not delivery.flush(60) or delivery.counts().delivered - before != len(texts):
            raise RuntimeError(f"not everything was delivered: {delivery.counts()}")

    return send


def client(library: str, port: int) -> Send:
    """Call ``AsyncClient.get``, as many times at once as there are connections."""
    module: Any = importlib.import_module(library)
    loop = asyncio.new_event_loop()
    limits = module.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
    one = module.AsyncClient(limits=limits, headers={"User-Agent": _AGENT})

    async def lane(texts: Iterator[str]) -> None:
        for text in texts:
            (await one.get(f"{_endpoint(port)}?{text}")).raise_for_status()

    async def lanes(texts: Iterator[str]) -> None:
        await asyncio.gather(*[lane(texts) for _ in range(_CONNECTIONS)])

    def send(texts: Sequence[str]) -> None:
        loop.run_until_complete(lanes(iter(texts)))

    return send


def plain_socket(port: int) -> Send:
    """Write to one keep-alive socket and read the answer, one request after the other."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(texts: Sequence[str]) -> None:
        for text in texts:
            connection.sendall(
                f"GET /track/?{text} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: {_AGENT}\r\n\r\n".encode()
            )
            if not connection.recv(4096).startswith(b"HTTP/1.1 200 "):
                raise RuntimeError("the tracking server did not answer 200")

    return send


SENDERS: Final[dict[str, Callable[[int], Send]]] = {
    "our httptools": partial(ours, "httptools"),
    "our pyreqwest": partial(ours, "pyreqwest"),
    "our httpx": partial(ours, "httpx"),
    "our httpx2": partial(ours, "httpx2"),
    "httpx.AsyncClient": partial(client, "httpx"),
    "httpx2.AsyncClient": partial(client, "httpx2"),
    "a raw socket": plain_socket,
}


def main(name: str, port: int) -> None:
    """Do what the parent asks, until it goes."""
    send = SENDERS[name](port)
    say({})
    for line in sys.stdin:
        texts = list(queries(json.loads(line)["requests"], seed=4))
        start = time.process_time()
        send(texts)
        say({"cpu": time.process_time() - start})


def _endpoint(port: int) -> str:
    return f"http://127.0.0.1:{port}/track/"


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
