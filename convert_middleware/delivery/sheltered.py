"""Hits in memory for a moment and then in a store that survives the process.

Requests hand over to memory, which never waits; the delivery thread brings what came to the store, many hits
at a time. As long as the store cannot work, memory takes its place; what waits there moves over afterwards.
"""

from __future__ import annotations

import time
from asyncio import CancelledError
from collections import Counter, deque
from typing import TYPE_CHECKING, Final, Protocol

from convert_middleware.delivery.outbox import MAX_BYTES, MAX_HITS, NOTHING_DUE, Counts, MemoryOutbox, Outbox
from convert_middleware.errors import ConvertError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from convert_middleware.delivery.entry import Entry

RENEWED: Final = 8.0  # seconds between two signs of life; a store believes in death after 30
REST: Final = 1.0  # seconds before a store that failed is tried again; doubled every time it fails again
LONGEST_REST: Final = 30.0  # seconds
_BREAKS_OFF: Final = (ConvertError, CancelledError)  # a store that fails, and a lane at the end
_PUT: Final = "put"  # a full store may take no more,
_TAKE: Final = "take"  # and still give out what it has


class Store(Outbox, Protocol):
    """An outbox that others may share."""

    batch: int  # hits to put at once
    lost: deque[object]

    def after_fork(self) -> None:
        """Begin with an account of one's own in a forked child."""

    def let_go(self, entry: Entry) -> bool:
        """Forget a hit in flight that waits elsewhere; return False if it may wait here nevertheless."""

    def unsure_of(self, entries: list[Entry]) -> list[Entry]:
        """Return those that may be kept although putting them failed."""

    async def commit(self) -> None:
        """Write what ended."""

    async def renew(self, now: float) -> None:
        """Give a sign of life."""

    async def close(self) -> None:
        """Write what ended and leave; what is still in flight may have left."""


class ShelteredOutbox(MemoryOutbox):
    """Memory in front of a store.

    Args:
        store: What survives the process.
        say: Told when the store fails and when it works again, None.
        max_hits: How many may wait in memory while the store cannot work.
        max_bytes: How many bytes of text may.
        timer: Returns seconds, to measure how long the store took to fail.
    """

    durable = True

    def __init__(
        self,
        store: Store,
        say: Callable[[ConvertError | None], None],
        max_hits: int = MAX_HITS,
        max_bytes: int = MAX_BYTES,
        *,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self._say = say
        self._timer = timer
        self._now = 0.0  # as it was handed in last
        self._rest = REST
        self._failing: dict[str, float] = {}  # what does not work, and when it is tried again
        self._signed = 0.0
        self._hurrying = False
        super().__init__(max_hits, max_bytes)

    def after_fork(self) -> None:
        """See :class:`MemoryOutbox`."""
        super().after_fork()
        self.store.after_fork()
        self.store.lost = self.lost
        self._stored: dict[int, Entry] = {}  # taken from the store, by identity
        self._owed: list[tuple[Entry, float]] = []  # retries that the store could not note yet
        self._unsure: deque[list[Entry]] = deque()  # put, and the answer got lost; they may leave from there

    async def keep(self, now: float) -> None:
        """Bring what came to the store, and give the store a sign of life."""
        await self._try(_PUT, self._bring, now)
        if now - self._signed > RENEWED:  # also where nothing is held: others may take what it left there
            self._signed = now
            await self._try(_TAKE, self.store.renew, now)

    async def next_keep(self) -> float | None:
        """See :class:`MemoryOutbox`; a store that failed is tried again in its own time."""
        due = 0.0 if self._owed or self._unsure else await super().next_due()
        return None if due is None else max(due, self._failing.get(_PUT, due))

    async def leave(self, now: float) -> None:
        """Bring what is left to the store and close it; what is in flight may have left."""
        await self._try(_PUT, self._bring, now, must=True)
        while self._owed:
            entry, due = self._owed.pop()
            if self.store.let_go(entry):
                with self._lock:
                    self._accepted += 1
                    self._in_flight += 1
                await super().retry(entry, due)
        await self._try(_TAKE, self._close, now, must=True)
        self._stored.clear()

    async def _close(self, _now: float) -> None:
        await self.store.close()

    async def _bring(self, now: float) -> None:
        while self._owed:
            owed = self._owed.pop()  # lanes bring at the same time, each another one
            try:
                await self.store.retry(*owed)
            except _BREAKS_OFF:
                self._owed.append(owed)
                raise
        while entries := await self._next_batch(now):
            try:
                await self.store.put(entries)
            except _BREAKS_OFF:
                if unsure := self.store.unsure_of(entries):
                    self._unsure.appendleft(unsure)
                in_doubt = {id(entry) for entry in unsure}
                for entry in entries:
                    if id(entry) not in in_doubt:
                        await super().retry(entry, now)
                raise
            with self._lock:  # from here on the store has them in its account
                self._accepted -= len(entries)
                self._in_flight -= len(entries)

    async def _next_batch(self, now: float) -> list[Entry]:
        return self._unsure.popleft() if self._unsure else await super().take(self.store.batch, now)

    async def put(self, entries: list[Entry]) -> None:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        await super().put(entries)
        await self._try(_PUT, self._bring, 0.0)

    async def take(self, number: int, now: float) -> list[Entry]:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        taken: list[Entry] = []

        async def fetch(now: float) -> None:
            # What a killed process holds is in doubt, so nothing is taken that is not begun at once.
            if self._hurrying and now != NOTHING_DUE:
                self._hurrying, now = False, float("inf")
            taken.extend(await self.store.take(number, now))
            self._stored.update({id(entry): entry for entry in taken})
            if not taken:
                await self.store.commit()

        await self._try(_PUT, self._bring, now)
        await self._try(_TAKE, fetch, now)
        if self._failing:
            taken += await super().take(number - len(taken), now)
        return taken

    async def settle(self, entry: Entry) -> None:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        await (self.store.settle(entry) if self._left_store(entry) else super().settle(entry))

    async def bury(self, entry: Entry, reason: str) -> None:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        await (self.store.bury(entry, reason) if self._left_store(entry) else super().bury(entry, reason))

    async def drop(self, entry: Entry, reason: str) -> None:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        await (self.store.drop(entry, reason) if self._left_store(entry) else super().drop(entry, reason))

    async def retry(self, entry: Entry, due: float) -> None:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        if not self._left_store(entry):
            await super().retry(entry, due)
            return
        if _PUT in self._failing:
            self._owed.append((entry, due))
            return
        began = self._timer()
        try:
            await self.store.retry(entry, due)
        except ConvertError as error:
            self._owed.append((entry, due))
            self._failed_between(_PUT, error, began)
        except CancelledError:
            self._owed.append((entry, due))
            raise

    async def purge(self, visitor: str) -> int:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`.

        Raises:
            ConvertError: The store cannot work at the moment.
        """
        owed = [each for each in self._owed if each[0].visitor == visitor]
        self._owed = [each for each in self._owed if each[0].visitor != visitor]
        try:
            while owed:  # a store that seemed to fail may have noted it, so that it can only be found there
                await self.store.retry(*owed[-1])
                owed.pop()
        finally:
            self._owed += owed
        return await super().purge(visitor) + await self.store.purge(visitor)

    async def next_due(self) -> float | None:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        moments = [await super().next_due()]
        if _TAKE not in self._failing:
            began = self._timer()
            try:
                moments.append(await self.store.next_due())
            except ConvertError as error:
                self._failed_between(_TAKE, error, began)
        moments += self._failing.values()
        return min((moment for moment in moments if moment is not None), default=None)

    def hurry(self) -> None:
        """See :class:`MemoryOutbox`."""
        super().hurry()
        self._hurrying = True

    def abandon(self, reason: str, *, waiting: bool, in_flight: bool = True) -> int:
        """See :class:`MemoryOutbox`."""
        if in_flight:
            self._unsure.clear()
        return super().abandon(reason, waiting=waiting, in_flight=in_flight)

    def in_memory(self) -> int:
        """See :class:`MemoryOutbox`."""
        mine = super().counts()
        return mine.waiting + mine.in_flight

    def counts(self) -> Counts:
        """Return the account of this process, of memory and store together."""
        mine, theirs = super().counts(), self.store.counts()
        return Counts(
            mine.accepted + theirs.accepted,
            mine.delivered + theirs.delivered,
            mine.waiting + theirs.waiting,
            mine.in_flight + theirs.in_flight,
            mine.dead + theirs.dead,
            dict(Counter(mine.dropped) + Counter(theirs.dropped)),
        )

    def _left_store(self, entry: Entry) -> bool:
        """Tell whether a hit in flight came from the store."""
        return self._stored.pop(id(entry), None) is not None

    async def _try(
        self, what: str, step: Callable[[float], Awaitable[None]], now: float, *, must: bool = False
    ) -> None:
        if now < self._failing.get(what, now) and not must:
            return
        self._now = now or self._now
        began = self._timer()
        try:
            await step(now)
        except ConvertError as error:
            self._failed(what, error, now, began)
        else:
            if self._failing.pop(what, None) is not None and not self._failing:
                self._rest = REST
                self._say(None)

    def _failed_between(self, what: str, error: ConvertError, began: float) -> None:
        """Take note of a failure outside a step; a store that at least answers is tried again at once."""
        self._failed(what, error, self._now if isinstance(error, UnreachableError) else 0.0, began)

    def _failed(self, what: str, error: ConvertError, now: float, began: float) -> None:
        if not self._failing:
            self._say(error)
        until = now + self._timer() - began + self._rest
        self._rest = min(LONGEST_REST, 2 * self._rest)
        for each in (_PUT, _TAKE) if isinstance(error, UnreachableError) else (what,):
            self._failing[each] = until
