"""The ground under every test server: a loopback port, a thread, a loop, one task a connection.

It counts what happens on its sockets and knows nothing of what a server answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import anyio.to_thread

if TYPE_CHECKING:
    import ssl

_PATIENCE: Final = 10.0  # seconds a test waits before it calls something missing
_NOW_AND_THEN: Final = 0.02  # seconds
_HEAD_LIMIT: Final = 256 * 1024  # bytes of a request's head
_RST: Final = struct.pack("ii", 1, 0)  # linger for no time: closing sends a reset and no FIN


class PeerLeft(Exception):  # noqa: N818 - what happens, not what went wrong
    """The conversation is over: one side has closed the connection."""


class Malformed(Exception):  # noqa: N818 - the other side's fault
    """What arrived is no HTTP/1.1 request."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One complete request as it stood on the wire.

    ``connection`` numbers connections from 1 in the order accepted; ``at`` is ``time.monotonic()``.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int
    at: float

    def all(self, name: str) -> list[str]:
        """Return the values of every header of that name."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Peer:
    """One accepted connection, from the server's side."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader = reader
        self.writer = writer
        self.began = False  # part of a request that is not complete yet has arrived

    async def first_byte(self) -> bytes:
        """Wait for a request to begin."""
        byte = await self.reader.read(1)
        if not byte:
            raise PeerLeft
        self.began = True
        return byte

    async def request(self, beginning: bytes) -> Seen:
        """Read the rest of a request that began."""
        try:
            head = beginning + await self.reader.readuntil(b"\r\n\r\n")
            at = time.monotonic()
            first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
            method, target, _version = first.split(" ")
            pairs = [line.partition(":") for line in lines]
            headers = tuple((name, value.strip()) for name, _, value in pairs)
            length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
            body = await self.reader.readexactly(length)
        except asyncio.IncompleteReadError:
            raise PeerLeft from None
        except (ValueError, asyncio.LimitOverrunError) as error:
            raise Malformed from error
        self.began = False
        return Seen(method, target, headers, body, self.number, at)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def wait(self, seconds: float | None) -> None:
        """Wait, for ever if None; raises as soon as the other side leaves."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while await self.reader.read(65536):
                    pass  # nobody may send more before the answer; what comes anyway is dropped
                raise PeerLeft

    async def close(self) -> None:
        """Close after what was sent has left, or without it after a second."""
        self.writer.close()
        with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(1.0):
                await self.writer.wait_closed()
        self.writer.transport.abort()

    def reset(self) -> None:
        """Close with a reset, so that the other side gets an error in place of an end."""
        reset_socket(self.writer.get_extra_info("socket"))
        self.writer.transport.abort()


class Listener:
    """Accepts connections on 127.0.0.1; subclasses say how one is served.

    Leaving the ``with`` block closes every connection, joins the thread and raises what failed in it.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.port = port
        self.connections = 0  # accepted, whatever became of them
        self.open = 0
        self.failed_handshakes = 0
        self.partial = 0  # requests of which only part arrived before their connection ended
        self.malformed = 0
        self._tls = tls
        self._changed = threading.Condition()
        self._socket = socket.socket()
        self._failures: list[BaseException] = []

    async def serve(self, peer: Peer) -> None:
        raise NotImplementedError

    def resets_next(self) -> bool:
        """Tell whether the connection that was just accepted is to be reset at once."""
        return False

    def __enter__(self) -> Self:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", self.port))
        self._socket.listen(512)
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=type(self).__name__)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close every connection and the port; from then on connecting is refused."""
        if self._socket.fileno() < 0:
            return
        with contextlib.suppress(RuntimeError):  # the loop died of a failure that is reported below
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_PATIENCE)
        assert not self._thread.is_alive(), "the server does not stop"
        self._socket.close()
        if self._failures:
            raise BaseExceptionGroup("the test server failed", self._failures)

    def until(self, condition: Callable[[], object], seconds: float = _PATIENCE) -> None:
        """Block until ``condition`` holds; it is asked whenever something happened here, and now and then."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not condition():
                assert time.monotonic() < deadline, f"not within {seconds} s: {self!r}"
                self._changed.wait(_NOW_AND_THEN)

    async def becomes(self, condition: Callable[[], object], seconds: float = _PATIENCE) -> None:
        """Wait until ``condition`` holds, on asyncio or trio."""
        await anyio.to_thread.run_sync(self.until, condition, seconds)

    def __repr__(self) -> str:
        counts = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        return f"<{type(self).__name__} {counts}>"

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """Change what tests look at."""
        with self._changed:
            yield
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._accept())
        except BaseException as failure:  # noqa: BLE001 - raised in the thread of the test
            self._failures.append(failure)

    async def _accept(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._loop.add_reader(self._socket, self._take_connection, group)
            await self._stop.wait()
            self._loop.remove_reader(self._socket)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    def _take_connection(self, group: asyncio.TaskGroup) -> None:
        try:
            accepted, _ = self._socket.accept()
        except OSError:  # gone before its turn
            return
        accepted.setblocking(False)
        reset = self.resets_next()
        with self.change():
            self.connections += 1
            self.open += not reset
        if reset:
            reset_socket(accepted)
            accepted.close()
            return
        conversation = group.create_task(self._converse(accepted, self.connections))
        conversation.add_done_callback(lambda _: accepted.close())  # also if it was stopped before it began

    async def _converse(self, accepted: socket.socket, number: int) -> None:
        reader = asyncio.StreamReader(limit=_HEAD_LIMIT)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, accepted, ssl=self._tls)
        except OSError:  # ssl.SSLError is one
            with self.change():
                self.failed_handshakes += 1
                self.open -= 1
            return
        peer = Peer(number, reader, asyncio.StreamWriter(transport, protocol, reader, self._loop))
        malformed = False
        try:
            await self.serve(peer)
        except (PeerLeft, OSError):
            pass  # nobody is there any more
        except Malformed:
            peer.began, malformed = False, True
        except asyncio.CancelledError:
            transport.abort()
            raise
        except Exception as failure:  # noqa: BLE001 - a choice of the test's may raise anything
            self._failures.append(failure)
        finally:
            await peer.close()
            with self.change():
                self.open -= 1
                self.partial += peer.began
                self.malformed += malformed


def reset_socket(accepted: socket.socket) -> None:
    """Make closing this socket send a reset."""
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)


@contextlib.contextmanager
def refused_port() -> Iterator[int]:
    """Yield a port that refuses connections, until a :class:`Listener` of this test takes it."""
    with socket.socket() as unheard:  # bound, and never listening
        unheard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        unheard.bind(("127.0.0.1", 0))
        yield unheard.getsockname()[1]
