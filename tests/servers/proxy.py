"""A forward proxy of few words: plain requests and CONNECT, all to one place on loopback."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from tests.servers.behaviour import message
from tests.servers.listener import Listener, Peer, PeerLeft, Seen


class ForwardProxy(Listener):
    """Forwards whatever host a request names to one port of this machine, so that nothing leaves it.

    Args:
        upstream: Port on 127.0.0.1 that everything goes to.
        refuse: Answer every request with this status, such as 403 or 407, in place of forwarding it.
        hang_up: Close the connection when a request has been read.
    """

    def __init__(self, upstream: int, *, refuse: int | None = None, hang_up: bool = False) -> None:
        super().__init__()
        self.upstream = upstream
        self.refuse = refuse
        self.hang_up = hang_up
        self.upstream_connections = 0
        self._seen: list[Seen] = []

    @property
    def requests(self) -> list[Seen]:
        """Every request made of the proxy; of a tunnel, only its CONNECT."""
        with self._changed:
            return list(self._seen)

    @property
    def url(self) -> str:
        """What to put into HTTP_PROXY or HTTPS_PROXY."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, peer: Peer) -> None:
        seen = await self._next(peer)
        while self.refuse is not None:
            await peer.send(message(self.refuse, {"Proxy-Authenticate": "Basic"}))
            seen = await self._next(peer)
        if self.hang_up:
            return
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        except OSError:
            await peer.send(message(502))
            return
        with self.change():
            self.upstream_connections += 1
        try:
            async with asyncio.TaskGroup() as group:
                back = group.create_task(_pour(reader, peer.writer))
                if seen.method == "CONNECT":
                    await peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    there = group.create_task(_pour(peer.reader, writer))
                else:
                    there = group.create_task(self._forward(peer, seen, writer))
                await asyncio.wait((back, there), return_when=asyncio.FIRST_COMPLETED)
                back.cancel()
                there.cancel()
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    async def _next(self, peer: Peer) -> Seen:
        seen = await peer.request(await peer.first_byte())
        with self.change():
            self._seen.append(seen)
        return seen

    async def _forward(self, peer: Peer, seen: Seen, writer: asyncio.StreamWriter) -> None:
        with suppress(PeerLeft, OSError):
            while True:
                path = (
                    "/" + seen.target.partition("://")[2].partition("/")[2]
                )  # a server is asked for its path only
                headers = [
                    f"{name}: {value}" for name, value in seen.headers if name.lower() != "proxy-connection"
                ]
                head = "\r\n".join([f"{seen.method} {path} HTTP/1.1", *headers, "", ""])
                writer.write(head.encode("latin-1") + seen.body)
                await writer.drain()
                seen = await self._next(peer)


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until either end closes."""
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
