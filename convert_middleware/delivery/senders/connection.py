"""One HTTP/1.1 connection: a GET leaves, and what comes back of it becomes an outcome.

The one module that knows httptools. What became of a request is read from the bytes: whether one of it has
left, and whether a final status has arrived. It knows nothing of servers, certificates and proxies.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, cast

from convert_middleware.delivery.policy import Outcome, Result
from convert_middleware.delivery.senders import BODY_READ, BODY_TIMEOUT, outcome_of_answer
from convert_middleware.errors import SettingsError

try:
    from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
except ModuleNotFoundError as error:
    raise SettingsError(
        "sender", "needs httptools, which is not installed; run: pip install convert-middleware[fast]"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable

KEEP_ALIVE: Final = 30.0  # seconds an idle connection is kept
HEAD_READ: Final = 64 * 1024  # bytes of an answer that may precede the end of its headers
_SWITCHING: Final = 101  # the one informational status that nothing follows


class Connection(asyncio.Protocol):
    """Carries one request at a time.

    Args:
        loop: The loop it lives in.
        address: Host and port of the server.
        opened: Holds the connection from when it is open until it is closed.
        deserted: Called when the server closes it without having said so before.

    Attributes:
        usable: Whether it may be asked.
        answers: How many left it to the next request.
        gone: Done when it is closed.
    """

    _transport: asyncio.Transport
    _alarm: asyncio.TimerHandle

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: tuple[str, int],
        opened: set[Connection],
        deserted: Callable[[Connection], None],
    ) -> None:
        self.address = address
        self.usable = False
        self.answers = 0
        self.gone: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._opened = opened
        self._deserted = deserted
        self._parser = HttpResponseParser(self)
        self._answer: asyncio.Future[Outcome] | None = None  # of the request under way
        self._length = 0  # bytes of the request
        self._held = False  # whether the transport still holds all of them
        self._head = 0  # bytes that came before the end of the headers
        self._status = 0  # the final one, when the headers that follow it have ended
        self._retry: str | None = None
        self._body = bytearray()
        self._ended = False  # whether the answer is complete
        self._kept = False  # whether it leaves the connection to the next request
        self._deadline = 0.0  # of the loop's clock

    def ask(self, request: bytes, deadline: float) -> asyncio.Future[Outcome] | None:
        """Send a request, and return its outcome to come; None if the connection was closed before.

        Args:
            request: All of its bytes.
            deadline: Of the loop's clock; what has not been answered by then will not be waited for.
        """
        if not self.usable:
            return None
        self._length = len(request)
        self._held = self._ended = self._kept = False
        self._head = self._status = 0
        self._retry = None
        self._body.clear()
        self._transport.write(request)
        if self._transport.is_closing():  # writing failed at once: the socket took nothing
            self.abort()
            return None
        self._expect(deadline)
        self._answer = self._loop.create_future()
        return self._answer

    def leave(self) -> None:
        """Close in good order; to be called between two requests."""
        self._end(self._transport.close)

    def abort(self, reason: str = "aborted") -> None:
        """Close at once.

        Args:
            reason: What becomes of the request under way if it was not answered.
        """
        self._end(self._transport.abort)
        self._settle(reason)

    def _end(self, close: Callable[[], None]) -> None:
        self.usable = False
        self._loop.call_soon(close)  # asyncio's encrypted transport cannot be closed while it calls us

    def _settle(self, reason: str) -> None:
        """Say what became of the request under way.

        Args:
            reason: What happened if it was not answered.
        """
        answer, self._answer = self._answer, None
        if answer is None or answer.done():  # nobody waits, or no longer
            return
        if self._status:
            outcome = outcome_of_answer(self._status, self._retry, bytes(self._body), time.time())
        else:
            outcome = Outcome(Result.NOT_SENT if self._held else Result.AMBIGUOUS, reason)
        answer.set_result(outcome)

    # --- time -----------------------------------------------------------------------------------------

    def _expect(self, deadline: float) -> None:
        """Give up at that time; an alarm that is set already and comes earlier will look again."""
        self._deadline = deadline
        if deadline < self._alarm.when():
            self._alarm.cancel()
            self._alarm = self._loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        if self._loop.time() < self._deadline:
            self._alarm = self._loop.call_at(self._deadline, self._ring)
        elif self._answer is None:
            self.leave()
        else:
            self.abort("timeout")

    # --- called by the transport ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)
        # Whatever it cannot pass on at once it tells with pause_writing().
        self._transport.set_write_buffer_limits(high=1, low=0)
        self._deadline = self._loop.time() + KEEP_ALIVE
        self._alarm = self._loop.call_at(self._deadline, self._ring)
        self._opened.add(self)
        self.usable = True

    def pause_writing(self) -> None:
        """Note whether all of the request is held; if so ``resume_writing`` tells of its first byte."""
        size = self._transport.get_write_buffer_size()
        self._held = size >= self._length
        if self._held:
            self._transport.set_write_buffer_limits(high=size - 1, low=size - 1)

    def resume_writing(self) -> None:
        """Note that some of the request has left."""
        self._held = False
        self._transport.set_write_buffer_limits(high=1, low=0)

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        if self._answer is None:  # nothing was asked
            if self.usable:
                self.abort()
            return
        broken = ""
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            broken, self._kept = type(error).__name__, False
        if self._kept:
            self.answers += 1
            self._expect(self._loop.time() + KEEP_ALIVE)
            self._settle("")
        elif self._ended:
            self.leave()
            self._settle("")
        elif broken or len(self._body) >= BODY_READ:
            self.abort(broken)
        elif not self._status:
            self._head += len(data)
            if self._head > HEAD_READ:
                self.abort("headers too long")
        elif self._head >= 0:
            self._head = -1  # from here on it is the body that is waited for
            self._expect(min(self._deadline, self._loop.time() + BODY_TIMEOUT))

    def eof_received(self) -> None:
        """See :class:`asyncio.Protocol`; the transport closes itself now."""
        self._closed_by_server("connection closed")

    def connection_lost(self, error: Exception | None) -> None:
        """See :class:`asyncio.Protocol`."""
        self._closed_by_server("connection closed" if error is None else type(error).__name__)
        self._alarm.cancel()
        self._opened.discard(self)
        del self._parser  # which refers to this object
        self.gone.set_result(None)

    def _closed_by_server(self, reason: str) -> None:
        if self.usable:
            self.usable = False
            self._deserted(self)
        self._settle(reason)

    # --- called by the parser -------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Take what follows a complete answer for what it is: nothing that was asked for."""
        if self._ended:
            self._kept = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Look for the only header of interest."""
        if len(name) == 11 and not self._status and self._retry is None and name.lower() == b"retry-after":
            self._retry = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Note a final status; what was only informational is forgotten."""
        if self._ended:
            return
        status = self._parser.get_status_code()
        if status >= 200 or status == _SWITCHING:
            self._status = status
        else:
            self._retry = None

    def on_body(self, piece: bytes) -> None:
        """Keep the beginning."""
        if not self._ended:
            self._body += piece[: BODY_READ - len(self._body)]

    def on_message_complete(self) -> None:
        """Note the end of the answer, unless it was informational."""
        if self._status and not self._ended:
            self._ended = True
            self._kept = self._parser.should_keep_alive()
