"""The event loop of the delivery thread: no fork happens while it works, and it resolves names to the end.

A child inherits every module that another thread was importing as a ruin, and every lock it held. So whoever
forks waits, within limits, until the loop waits for its sockets. Nothing here knows of hits.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

LONGEST: Final = 2.0  # seconds that a fork waits at most; what a sender loads when it opens takes longest


class ForkGate:
    """Lets either the loop work or somebody fork; the loop makes way."""

    def __init__(self) -> None:
        self._turn = threading.RLock()  # held by whoever is next, so that a busy loop cannot overtake a fork
        self._work = threading.RLock()  # re-entrant, because a hook may fork within the loop's work

    def begin(self, timeout: float = -1) -> bool:
        """Begin to work, or to fork; return whether that was possible within ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        if not self._turn.acquire(timeout=timeout):
            return False
        try:
            left = timeout if timeout < 0 else max(0.0, deadline - time.monotonic())
            return self._work.acquire(timeout=left)
        finally:
            self._turn.release()

    def end(self) -> None:
        """End what was begun, in the same thread."""
        self._work.release()


class _Selector(selectors.DefaultSelector):
    """Opens the gate while the loop waits."""

    def __init__(self, gate: ForkGate) -> None:
        super().__init__()
        self._gate = gate

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._gate.end()
        try:
            return super().select(timeout)
        finally:
            self._gate.begin()


class PrivateLoop(asyncio.SelectorEventLoop):
    """A loop that resolves names in threads which hold up no exit, and in its own where none may be started.

    Args:
        gate: Whoever runs the loop must have begun there.
    """

    def __init__(self, gate: ForkGate) -> None:
        super().__init__(_Selector(gate))
        self._looks_up: dict[tuple[Any, ...], asyncio.Future[Any]] = {}

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """Resolve a name; whoever asks while another one waits for the same name waits with it."""
        key = (host, port, *sorted(options.items()))
        found = self._looks_up.get(key)
        if found is None:
            found = self._looks_up[key] = self.create_future()
            found.add_done_callback(lambda _: self._looks_up.pop(key))
            look_up = partial(self._look_up, found, host, port, options)
            try:
                threading.Thread(target=look_up, name="convert_middleware name", daemon=True).start()
            except RuntimeError:  # as at interpreter shutdown
                look_up()
        return await asyncio.shield(found)

    def _look_up(self, found: asyncio.Future[Any], host: Any, port: Any, options: dict[str, Any]) -> None:
        tell: Callable[[Any], None] = found.set_result
        try:
            answer: Any = socket.getaddrinfo(host, port, **options)
        except Exception as error:  # noqa: BLE001 - whoever asked gets it
            tell, answer = found.set_exception, error
        with suppress(RuntimeError):  # nobody waits any more
            self.call_soon_threadsafe(lambda: None if found.done() else tell(answer))
