"""``convert-middleware worker``: sends for sites that only fill the outbox.

Several may run on one outbox. A worker that is told to end takes nothing more, ends well what is under way,
and leaves the rest to the others.
"""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from convert_middleware.cli.report import Report
from convert_middleware.cli.returns import Returns
from convert_middleware.delivery import Policy, open_outbox, shared_ledger_of
from convert_middleware.delivery.senders.choose import make_sender
from convert_middleware.delivery.upkeep import must_be_shared
from convert_middleware.delivery.worker import Worker
from convert_middleware.errors import SettingsError
from convert_middleware.hooks import Announcer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from convert_middleware.delivery import Counts, Entry, MemoryOutbox
    from convert_middleware.settings import Settings

LOOK: Final = 0.2  # seconds between two looks at what other processes left


class Exit:
    """The way out of an outbox: once it is open nothing more is taken, and what waits is left to others."""

    def __init__(self, outbox: MemoryOutbox) -> None:
        self._outbox = outbox
        self.open = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._outbox, name)

    async def take(self, number: int, now: float) -> list[Entry]:
        """Take hits as long as the worker is not about to end."""
        return [] if self.open else await self._outbox.take(number, now)

    async def next_due(self) -> float | None:
        """Return when there is something to take."""
        return None if self.open else await self._outbox.next_due()

    def counts(self) -> Counts:
        """Return the account as the worker is to see it: what it will not take does not wait for it."""
        counts = self._outbox.counts()
        return replace(counts, waiting=0) if self.open else counts


class Ending:
    """What signals ask for: first an orderly end, then one at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()
        self.code = 0
        self._loop = asyncio.get_running_loop()

    @contextmanager
    def by_signals(self) -> Iterator[None]:
        """Obey SIGINT and SIGTERM."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        self._loop.call_soon_threadsafe(self._tell, number)

    def _tell(self, number: int) -> None:
        if self.asked.is_set():
            self.code = 128 + number  # as shells say that a signal ended a process
            self.at_once.set()
        self.asked.set()


async def work(settings: Settings, *, every: float, as_json: bool) -> int:
    """Send until a signal asks for the end; return the exit code.

    Args:
        settings: Outbox, endpoint, sender, what to do with ambiguous hits, and time to end.
        every: Seconds between two reports.
        as_json: Whether to report in JSON.

    Raises:
        SettingsError: The outbox or the sender cannot be used.
    """
    url = settings.outbox
    if not isinstance(url, str):
        raise SettingsError("outbox", "must be a URL")
    must_be_shared(url)
    ending = Ending()
    with ending.by_signals():
        report = Report(url, as_json=as_json)
        announcer = Announcer([report.note], time.monotonic)
        repeat = settings.on_ambiguous == "retry"
        outbox = open_outbox(url, announcer, time.time, repeat=repeat)
        way_out = Exit(outbox)
        worker = Worker(
            cast("MemoryOutbox", way_out),
            make_sender(settings.sender, settings.endpoint),
            Policy(on_ambiguous=settings.on_ambiguous),
            announcer,
            time.time,
            look_every=LOOK,
            source=Returns(outbox, shared_ledger_of(outbox)),
        )

        async def end(sending: asyncio.Task[None]) -> None:
            await ending.asked.wait()
            report.end(outbox.counts())
            way_out.open = True
            worker.stop(time.monotonic() + settings.drain_timeout)
            await ending.at_once.wait()
            sending.cancel()

        await worker.open()  # what can never send ends here
        report.start(settings.endpoint, settings.sender)
        sending = asyncio.create_task(worker.run())
        helpers = [
            asyncio.create_task(report.tell_every(every, outbox.counts)),
            asyncio.create_task(end(sending)),
        ]
        try:
            with suppress(asyncio.CancelledError):
                await sending
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
        announcer.shutdown()
        await report.tell(outbox.counts(), "stopped")
        return ending.code
