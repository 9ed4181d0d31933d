"""Serves a collector with uvicorn, so that streams end at shutdown and faults can break connections.

The only module that knows uvicorn (the extra ``collector``).
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from convert_middleware.collector.tracking import CONNECTION

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from starlette.applications import Starlette

_NO_LINGER: Final = struct.pack("ii", 1, 0)  # closing sends a reset instead of what waits
_GARBAGE: Final = b"\x16\x03\x01 this is not HTTP\r\n\r\n"
_START: Final = 10.0  # seconds for the server to come up
_DRAIN: Final = 3  # seconds that open requests get at shutdown


class _Connection:
    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def reset(self) -> None:
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._transport.abort()

    def garbage(self) -> None:
        self._transport.write(_GARBAGE)
        self._transport.close()


class _Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # which one depends on what is installed
    """uvicorn's own, handing each request its connection through the lifespan state."""

    app_state: dict[str, Any]

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.app_state = self.app_state | {CONNECTION: _Connection(transport)}


class Server(uvicorn.Server):
    """A uvicorn server for one collector.

    Args:
        app: What :func:`~convert_middleware.collector.create_collector` returned.
        host: Address to listen on.
        port: Port, 0 for any free one.

    Raises:
        OSError: The address cannot be listened on.
    """

    def __init__(self, app: Starlette, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_Protocol,
                ws="none",
                lifespan="on",
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=_DRAIN,
            )
        )
        self._collector = app.state.collector
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=2048)
        shown = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{self._socket.getsockname()[1]}"

    def listen(self) -> None:
        """Serve until told to exit."""
        try:
            self.run(sockets=[self._socket])
        finally:
            self._socket.close()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the streams end first; uvicorn would wait for them."""
        self._collector.closing = True
        await super().shutdown(sockets)


@contextmanager
def running(app: Starlette, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve a collector in a thread; the value is its address, such as ``http://127.0.0.1:8070``."""
    server = Server(app, host, port)
    thread = threading.Thread(target=server.listen, name="collector", daemon=True)
    thread.start()
    try:
        deadline = monotonic() + _START
        while not server.started:
            if not thread.is_alive() or monotonic() > deadline:
                raise RuntimeError(f"The collector did not start at {server.address}.")
            sleep(0.01)
        yield server.address
    finally:
        server.should_exit = True
        thread.join()
