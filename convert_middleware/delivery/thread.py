"""One delivery thread per process, with a private event loop, so that no loop of the site matters to it.

Handing a hit over never blocks, never awaits and never raises. After a fork the child starts clean.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

from convert_middleware.delivery.entry import Entry
from convert_middleware.delivery.forks import HERE, around_every_fork, begin_anew, in_every_child, notice_fork
from convert_middleware.delivery.loop import LONGEST, ForkGate, PrivateLoop
from convert_middleware.delivery.losses import Losses
from convert_middleware.delivery.worker import Source, Worker
from convert_middleware.errors import ConvertError

if TYPE_CHECKING:
    from convert_middleware.delivery.outbox import Counts, MemoryOutbox
    from convert_middleware.delivery.policy import Policy
    from convert_middleware.delivery.senders import Sender
    from convert_middleware.hooks import Announcer

_RESTART: Final = 1.0  # seconds between two tries to start the thread, and after its first crash
_MAX_RESTART: Final = 60.0  # seconds; the pause doubles with every crash in a row
_TO_SAFETY: Final = 5.0  # seconds more it gets where there is a place for what is in memory
_PARTING: Final = 0.5  # seconds the thread gets to close its connections after the deadline


class _NoSource:
    """Stands in where every hit goes straight to the outbox."""

    def pending(self) -> int:
        return 0

    def gather(self) -> None:
        """Do nothing."""

    async def bring(self) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""

    def withdrew(self, visitor: str, accepted_at: float) -> bool:
        """Know of nobody."""
        del visitor, accepted_at
        return False


class Delivery:
    """Delivers what is handed over, in a thread of its own that starts with the first hit.

    Args:
        outbox: Where hits wait.
        make_sender: Returns a new sender; called in the thread.
        policy: What to do after an attempt.
        announcer: Whom to tell.
        clock: Returns seconds since the epoch.
        source: Where hits come from that are left to the thread.
        deliver: Whether to send; otherwise hits are brought to safety, for another process to send.
    """

    def __init__(
        self,
        outbox: MemoryOutbox,
        make_sender: Callable[[], Sender],
        policy: Policy,
        announcer: Announcer,
        clock: Callable[[], float] = time.time,
        source: Source | None = None,
        deliver: bool = True,
    ) -> None:
        self._outbox = outbox
        self._source = source or _NoSource()
        self._deliver = deliver
        self._make_sender = make_sender
        self._policy = policy
        self._announcer = announcer
        self._clock = clock
        self.closed = False
        self._begin()
        _alive.add(self)

    def _begin(self) -> None:
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker: Worker | None = None
        self._next_start = 0.0  # of the monotonic clock
        self._deadline: float | None = None  # of the monotonic clock
        self._waiters: list[threading.Event] = []
        self._done = 0  # hits that had been accepted when last nothing was left to do
        self._again: SimpleQueue[None] = SimpleQueue()  # unlike an event it may be told from anywhere
        self._lost = 0  # hits that the last drain gave up
        self._losses = Losses(self._outbox, self._announcer)
        self._clean = True  # whether the last drain lost nothing
        self._gate = ForkGate()

    def before_fork(self, timeout: float) -> Callable[[], None] | None:
        """Keep the thread from working, at most ``timeout`` seconds from now; return what lets it go on."""
        gate = self._gate
        return gate.end if self._thread is not None and gate.begin(timeout) else None

    def after_fork(self) -> None:
        """Start clean in a forked child: the hits that wait are the parent's, and so are the sockets."""
        _inherited.append((self._loop, self._worker, self._thread))  # never closed here: they are shared
        self._outbox.after_fork()
        self._begin()

    def hand_over(self, text: str, worth: int) -> bool:
        """Accept a hit; return False if delivery was closed.

        Args:
            text: The query string.
            worth: See :class:`~convert_middleware.delivery.outbox.Worth`.
        """
        if not HERE[0]:
            begin_anew()
        if self.closed:
            return False
        self._outbox.offer(Entry(text, worth, self._clock()))
        self.wake()
        return True

    def wake(self) -> None:
        """Have the thread look for hits soon, and start it if need be. Never blocks."""
        worker = self._worker
        if worker is None:
            self.start()
        elif worker.sleeping:
            worker.sleeping = False
            self._tell(worker.wake)

    def start(self) -> None:
        """Start the thread unless it runs or is over. If none can be started the hits are kept."""
        notice_fork()
        if not self.closed:
            self._start()

    def _start(self) -> None:
        if not self._starting.acquire(blocking=False):
            return
        try:
            now = time.monotonic()
            if self._running() or now < self._next_start:
                return
            self._next_start = now + _RESTART
            self._deadline = None
            thread = threading.Thread(target=self._run, name="convert_middleware", daemon=True)
            self._thread = thread  # before it starts, because a hook in it may ask whose it is
            thread.start()
        except RuntimeError as error:
            if "shutdown" not in str(error):  # exit handlers start none; ours delivers without one
                text = "No thread could be started; hits are kept and sent when one can."
                self._announcer.log(logging.ERROR, "thread", text)
        finally:
            self._starting.release()

    def flush(self, timeout: float) -> bool:
        """Wait until nothing that is here by now waits or is in flight; return whether that was reached.

        Args:
            timeout: Seconds to wait at most. Waits between attempts are cut to a second meanwhile.
        """
        notice_fork()
        if self._empty():
            return True
        accepted = None if self._source.pending() else self._outbox.counts().accepted
        if threading.current_thread() is self._thread:
            return False  # a hook asks from the delivery thread, which cannot wait for itself
        emptied = threading.Event()
        self._waiters.append(emptied)
        deadline = time.monotonic() + timeout
        self.start()
        with _held(self._starting, _PARTING):
            done = False  # a start that is under way elsewhere has ended
        if self._again.empty():
            self._again.put(None)
        while not done and (left := deadline - time.monotonic()) > 0 and self._running():
            self._outbox.hurry()
            if (worker := self._worker) is not None:
                self._tell(worker.probe)
            emptied.wait(min(left, _RESTART))
            emptied.clear()
            done = self._empty() or (accepted is not None and self._done >= accepted)
        with suppress(ValueError):
            self._waiters.remove(emptied)
        return done or self._empty()

    def close(self, timeout: float) -> bool:
        """Accept nothing more and :meth:`drain`; may be called again, from anywhere."""
        if self.closed and not self._running() and not self._outbox.in_memory():
            return self._clean
        self.closed = True
        return self.drain(timeout)

    def drain(self, timeout: float) -> bool:
        """Deliver what is there and end the thread; return whether nothing was lost.

        Args:
            timeout: Seconds to try; what is left then is counted as dropped.
        """
        notice_fork()
        deadline = time.monotonic() + max(0.0, timeout)
        interrupted = self._interrupted()
        if not self._running():
            if self._empty():
                return True
            self._next_start = 0.0
            self._start()
        with _held(self._starting, _PARTING):  # a start that is under way elsewhere ends first
            thread = self._thread
        self._lost = 0
        self.signal_stop(deadline)
        if thread is not None and thread.is_alive():
            if thread is threading.current_thread():
                return False  # a hook asks: the thread drains when the hook has returned
            thread.join(deadline - time.monotonic() + _PARTING)
            if self._outbox.durable and self._outbox.in_memory():  # it may not even have started yet
                thread.join(_TO_SAFETY)
        elif not _in_a_loop():
            self._run()  # no thread can be started any more, as at interpreter shutdown: do it here
        self._source.finish()
        # What a thread that takes too long has in flight is its own to account for.
        self._lost += self._outbox.abandon("shutdown", waiting=True, in_flight=not self._running())
        self._losses.tell()
        lost = self._lost + self._interrupted() - interrupted
        if not self.closed:
            self._deadline = None  # hits that come from now on are not for a thread that ends late to drop
        self._clean = lost == 0 and self._outbox.in_memory() == 0
        return self._clean

    def signal_stop(self, deadline: float) -> None:
        """Have the thread end when all is delivered, at the latest at ``deadline``; does not wait."""
        self._deadline = deadline
        self._again.put(None)
        worker = self._worker
        if worker is not None:
            self._tell(lambda: self._stop(worker, deadline))

    def counts(self) -> Counts:
        """Return a consistent account of all hits."""
        notice_fork()
        self._source.gather()
        return self._outbox.counts()

    def _interrupted(self) -> int:
        return self._outbox.counts().dropped.get("interrupted", 0)

    def _running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _empty(self) -> bool:
        counts = self.counts()
        left = counts.waiting + counts.in_flight if self._deliver else self._outbox.in_memory()
        return not (left or self._source.pending())

    def _tell(self, what: Callable[[], None]) -> None:
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(what)

    # --- in the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = _RESTART
        began = time.monotonic()
        while not self._ended() and self._waits_after(pause):
            long = time.monotonic() - began > 2 * _MAX_RESTART
            pause, began = _RESTART if long else min(_MAX_RESTART, 2 * pause), time.monotonic()

    def _waits_after(self, pause: float) -> bool:
        """Rest after a crash, unless somebody is in a hurry, and tell whether hits wait then."""
        while not self._again.empty():
            self._again.get_nowait()
        if self._deadline is None:
            with suppress(Empty):
                self._again.get(timeout=pause)
        return not self._empty()

    def _ended(self) -> bool:
        """Deliver until the end is asked for, or a crash; tell whether it was the former."""
        gate = self._gate
        gate.begin()
        loop = PrivateLoop(gate)
        try:
            loop.run_until_complete(self._work())
        except BaseException as error:  # noqa: BLE001 - whatever it was, it ends here and is said
            said = error if isinstance(error, ConvertError) else type(error).__name__
            self._announcer.log(logging.ERROR, "worker", "The delivery thread ended: %s", said)
        finally:
            self._loop = self._worker = None
            ending = self._deadline is not None
            if ending:
                self._next_start = 0.0  # it ended as asked, so the next hit may start it at once
            if ending:
                self._source.finish()
            else:
                self._source.gather()
            self._lost += self._outbox.abandon("shutdown" if ending else "interrupted", waiting=ending)
            self._losses.tell()
            self._told_empty(self._done)
            loop.close()
            gate.end()
        return ending

    async def _work(self) -> None:
        worker = Worker(
            self._outbox,
            self._make_sender,
            self._policy,
            self._announcer,
            self._clock,
            source=self._source,
            deliver=self._deliver,
            losses=self._losses,
        )
        worker.on_empty = self._told_empty
        self._loop = asyncio.get_running_loop()
        self._worker = worker
        if self._deadline is not None:
            self._stop(worker, self._deadline)
        await worker.run()

    def _stop(self, worker: Worker, deadline: float) -> None:
        # Here and not where the end is decided: that may be a garbage collection within the outbox itself.
        self._outbox.hurry()
        worker.stop(deadline)

    def _told_empty(self, accepted: int) -> None:
        self._done = accepted
        for emptied in list(self._waiters):
            emptied.set()


@contextmanager
def _held(lock: threading.Lock, timeout: float) -> Iterator[None]:
    """Hold the lock, or go on without it after so many seconds."""
    held = lock.acquire(timeout=timeout)
    try:
        yield
    finally:
        if held:
            lock.release()


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


_alive: weakref.WeakSet[Delivery] = weakref.WeakSet()
_inherited: list[object] = []


def _hold() -> Iterator[Callable[[], None]]:
    deadline = time.monotonic() + LONGEST
    for delivery in list(_alive):
        let_go = delivery.before_fork(max(0.0, deadline - time.monotonic()))
        if let_go is not None:
            yield let_go


def _begin_anew() -> None:
    for delivery in list(_alive):
        delivery.after_fork()


around_every_fork(_hold)
in_every_child(_begin_anew)
