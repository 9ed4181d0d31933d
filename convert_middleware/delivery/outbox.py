"""Hits waiting to leave: the port every outbox fills, and the one in memory.

An outbox stores opaque text and knows nothing of hits. It keeps count of everything that ever entered it, so
that nothing can get lost unnoticed. It reads no clock and opens no connection; time is handed in.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Final, Protocol

from convert_middleware.delivery.entry import Entry, Worth
from convert_middleware.delivery.retries import Retries
from convert_middleware.errors import SettingsError, shown

MAX_HITS: Final = 100_000
# Reasons to drop a hit that is not made good later: it may have been counted, or its visitor forbids it.
NOT_OWED: Final = frozenset({"ambiguous", "interrupted", "withdrawn"})
NOTHING_DUE: Final = -1.0  # a moment at which no retry is due: what is taken then is fresh
_SOON: Final = 0.25  # seconds
MAX_BYTES: Final = 32 * 1024 * 1024  # of text


@dataclass(frozen=True, slots=True)
class Counts:
    """Where the hits are. ``accepted = delivered + waiting + in_flight + dead + dropped`` at any moment."""

    accepted: int = 0
    delivered: int = 0
    waiting: int = 0
    in_flight: int = 0
    dead: int = 0
    dropped: dict[str, int] = field(default_factory=dict)


class Outbox(Protocol):
    """What the delivery thread asks of an outbox."""

    async def put(self, entries: list[Entry]) -> None:
        """Keep these hits; when room runs out the least valuable, oldest ones are dropped and counted."""

    async def take(self, number: int, now: float) -> list[Entry]:
        """Return up to ``number`` hits that are due, retries first, then oldest first; they are in flight."""

    async def settle(self, entry: Entry) -> None:
        """Take note that a hit in flight was delivered."""

    async def retry(self, entry: Entry, due: float) -> None:
        """Take a hit in flight back until ``due``, in seconds since the epoch."""

    async def bury(self, entry: Entry, reason: str) -> None:
        """Count a hit in flight as dead: the server will never take it."""

    async def drop(self, entry: Entry, reason: str) -> None:
        """Count a hit in flight as dropped."""

    async def purge(self, visitor: str) -> int:
        """Drop what waits of a visitor as withdrawn; return how many hits those were."""

    async def next_due(self) -> float | None:
        """Return when the next hit is due, 0 for at once, None if none waits."""

    def counts(self) -> Counts:
        """Return a consistent account."""


def check_limits(**limits: object) -> None:
    """Raise unless each is a whole number above zero.

    Raises:
        SettingsError: One is something else; it is named.
    """
    for name, value in limits.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise SettingsError(name, f"must be a whole number from 1, not {shown(value)}")


def check_seconds(**times: object) -> None:
    """Raise unless each is a number of seconds above zero.

    Raises:
        SettingsError: One is something else; it is named.
    """
    for name, value in times.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < inf:
            raise SettingsError(name, f"must be seconds above 0, not {shown(value)}")


class MemoryOutbox:
    """The outbox of one process; lost with it.

    :meth:`offer` may be called from anywhere, even from a signal handler or ``__del__`` that interrupts the
    outbox itself: it appends to an inbox, and whoever holds the lock sorts the inbox in. So it never blocks.

    Args:
        max_hits: How many may wait.
        max_bytes: How many bytes of text may wait.

    Raises:
        SettingsError: A limit is no whole number above zero.
    """

    durable = False  # whether it wants to be called soon whenever a hit comes

    def __init__(self, max_hits: int = MAX_HITS, max_bytes: int = MAX_BYTES) -> None:
        check_limits(max_hits=max_hits, max_bytes=max_bytes)
        self._max_hits = max_hits
        self._max_bytes = max_bytes
        self.after_fork()

    def after_fork(self) -> None:
        """Begin empty, with a lock nobody holds: in a forked child what was here belongs to the parent."""
        self._lock = threading.Lock()
        self._inbox: deque[Entry] = deque()
        self._fresh: list[deque[Entry]] = [deque() for _ in Worth]
        self._retries = [Retries() for _ in Worth]
        self._ticket = count()  # breaks ties between retries that are due at once
        self._bytes = 0
        self._waiting = 0
        self._in_flight = 0
        self._accepted = 0
        self._delivered = 0
        self._dead = 0
        self._dropped: Counter[str] = Counter()
        self.lost: deque[object] = (
            deque()
        )  # receipts of hits that were certainly not counted and never will be

    def offer(self, entry: Entry) -> None:
        """Keep a hit. Never blocks, never raises, may be called from anywhere."""
        self._inbox.append(entry)
        # Who cannot get the lock leaves the entry to its holder, who looks again after letting go of it.
        while self._inbox and self._lock.acquire(blocking=False):
            try:
                self._sort_inbox()
            finally:
                self._lock.release()

    async def keep(self, now: float) -> None:
        """Bring what came to safety, where there is such a place."""

    async def next_keep(self) -> float | None:
        """Return when :meth:`keep` has something to bring, 0 for at once, None if nothing waits for that."""
        return None

    async def leave(self, now: float) -> None:
        """Leave what is not delivered where it is safe, where there is such a place."""

    async def put(self, entries: list[Entry]) -> None:
        """See :class:`Outbox`."""
        for entry in entries:
            self.offer(entry)

    async def take(self, number: int, now: float) -> list[Entry]:
        """See :class:`Outbox`."""
        with self._lock:
            self._sort_inbox()
            taken: list[Entry] = []
            while len(taken) < number:
                entry = self._pop_due(now) or self._pop_oldest()
                if entry is None:
                    break
                self._left(entry)
                self._in_flight += 1
                taken.append(entry)
        return taken

    async def settle(self, entry: Entry) -> None:
        """See :class:`Outbox`."""
        del entry
        with self._lock:
            self._in_flight -= 1
            self._delivered += 1

    async def retry(self, entry: Entry, due: float) -> None:
        """See :class:`Outbox`."""
        with self._lock:
            self._in_flight -= 1
            self._retries[entry.worth].push(due, next(self._ticket), entry)
            self._entered(entry)
            self._make_room()

    async def bury(self, entry: Entry, reason: str) -> None:
        """See :class:`Outbox`."""
        del reason
        with self._lock:
            self._in_flight -= 1
            self._dead += 1
            self._lose(entry)

    async def drop(self, entry: Entry, reason: str) -> None:
        """See :class:`Outbox`."""
        with self._lock:
            self._in_flight -= 1
            self._dropped[reason] += 1
            if reason not in NOT_OWED:
                self._lose(entry)

    async def purge(self, visitor: str) -> int:
        """See :class:`Outbox`."""
        gone = 0
        with self._lock:
            self._sort_inbox()
            for worth, (fresh, retries) in enumerate(zip(self._fresh, self._retries, strict=True)):
                mine = [entry for entry in fresh if entry.visitor == visitor]
                if mine:
                    self._fresh[worth] = deque(entry for entry in fresh if entry.visitor != visitor)
                mine += [retries.pop(ticket) for ticket in retries.of(visitor)]
                for entry in mine:
                    self._left(entry)
                gone += len(mine)
            if gone:
                self._dropped["withdrawn"] += gone
        return gone

    async def next_due(self) -> float | None:
        """See :class:`Outbox`."""
        with self._lock:
            self._sort_inbox()
            if any(self._fresh):
                return 0.0
            first = self._first_due()
            return first[0] if first else None

    def hurry(self) -> None:
        """Make every retry due at once, because the process is about to end."""
        with self._held_soon() as held:
            if held:
                for retries in self._retries:
                    retries.hurry()

    def abandon(self, reason: str, *, waiting: bool, in_flight: bool = True) -> int:
        """Drop what is in flight and what waits, as far as wanted; return how many hits that were."""
        with self._held_soon() as held:
            if not held:
                return 0
            self._sort_inbox()
            lost = self._in_flight if in_flight else 0
            self._in_flight -= lost
            if waiting:
                lost += self._waiting
                for fresh, retries in zip(self._fresh, self._retries, strict=True):
                    for entry in (*fresh, *retries.clear()):
                        self._lose(entry)
                    fresh.clear()
                self._waiting = self._bytes = 0
            if lost:
                self._dropped[reason] += lost
            return lost

    def in_memory(self) -> int:
        """Return how many hits would be lost with the process."""
        counts = self.counts()
        return counts.waiting + counts.in_flight

    def counts(self) -> Counts:
        """See :class:`Outbox`."""
        with self._held_soon() as held:
            if held:
                self._sort_inbox()
            return Counts(
                self._accepted,
                self._delivered,
                self._waiting,
                self._in_flight,
                self._dead,
                dict(self._dropped),
            )

    @contextmanager
    def _held_soon(self) -> Iterator[bool]:
        """Hold the lock if that is possible soon; tell whether it was.

        A signal handler may ask while it interrupts the lock's holder in its own thread.
        """
        held = self._lock.acquire(timeout=_SOON)
        try:
            yield held
        finally:
            if held:
                self._lock.release()

    # Below, the lock is held.

    def _sort_inbox(self) -> None:
        inbox, fresh = self._inbox, self._fresh
        while inbox:
            entry = inbox.popleft()
            fresh[entry.worth].append(entry)
            self._accepted += 1
            self._waiting += 1
            self._bytes += len(entry.text)
            if self._waiting > self._max_hits or self._bytes > self._max_bytes:
                self._make_room()

    def _entered(self, entry: Entry) -> None:
        self._waiting += 1
        self._bytes += len(entry.text)

    def _left(self, entry: Entry) -> None:
        self._waiting -= 1
        self._bytes -= len(entry.text)

    def _lose(self, entry: Entry) -> None:
        if entry.receipt is not None:
            self.lost.append(entry.receipt)

    def _make_room(self) -> None:
        while self._waiting > self._max_hits or self._bytes > self._max_bytes:
            for fresh, retries in zip(self._fresh, self._retries, strict=True):
                if fresh or retries:
                    tried = retries.oldest()
                    older = tried and not (fresh and fresh[0].accepted_at < tried[0])
                    entry = retries.pop(tried[1]) if tried and older else fresh.popleft()
                    self._left(entry)
                    self._dropped["overflow"] += 1
                    self._lose(entry)
                    break

    def _first_due(self) -> tuple[float, int, Retries] | None:
        first = [(*due, retries) for retries in self._retries if (due := retries.next_due())]
        return min(first, default=None)

    def _pop_due(self, now: float) -> Entry | None:
        first = self._first_due()
        return first[2].pop(first[1]) if first and first[0] <= now else None

    def _pop_oldest(self) -> Entry | None:
        waiting = [fresh for fresh in self._fresh if fresh]
        return min(waiting, key=lambda fresh: fresh[0].accepted_at).popleft() if waiting else None
