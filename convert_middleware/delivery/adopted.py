"""A site's own outbox, made to look like a store that memory stands in front of.

It must keep and give out hits; what else a store does is done if it can. Nothing it raises ends the delivery
thread. Nothing here knows where it keeps its hits.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from convert_middleware.delivery.outbox import NOT_OWED
from convert_middleware.errors import ConvertError, SettingsError, UnreachableError

if TYPE_CHECKING:
    from convert_middleware.delivery.entry import Entry
    from convert_middleware.delivery.outbox import Counts, Outbox

MUST: Final = ("put", "take", "settle", "retry", "bury", "drop", "purge", "next_due", "counts")
BATCH: Final = 200  # hits put at once


class AdoptedOutbox:
    """Fills the store port around an outbox that fills the outbox port.

    Args:
        outbox: What fills :class:`~convert_middleware.delivery.outbox.Outbox`; it may also have ``batch``,
            ``after_fork()``, ``commit()``, ``renew(now)``, ``close()`` and, if it gives back receipts itself,
            ``lost``, as in :class:`~convert_middleware.delivery.sheltered.Store`.

    Raises:
        SettingsError: It does not.
    """

    def __init__(self, outbox: Outbox) -> None:
        kind = type(outbox).__name__
        missing = [name for name in MUST if not callable(getattr(outbox, name, None))]
        if missing or isinstance(outbox, type):
            lacks = f"and {kind} lacks {', '.join(missing)}" if missing else "not a class"
            raise SettingsError("outbox", f"must be a URL such as 'memory://' or an outbox, {lacks}")
        self._outbox: Any = outbox
        self._kind = kind
        self.batch = int(getattr(outbox, "batch", BATCH))
        self._ends: deque[tuple[str, Entry, tuple[str, ...]]] = deque()  # which it has to be told of
        self.lost = deque()

    @property
    def lost(self) -> deque[object]:
        """Receipts of hits that were not counted and never will be."""
        return self._lost

    @lost.setter
    def lost(self, lost: deque[object]) -> None:
        self._lost = lost
        self._tells = hasattr(self._outbox, "lost")
        if self._tells:
            self._outbox.lost = lost

    def after_fork(self) -> None:
        """See :class:`~convert_middleware.delivery.sheltered.Store`."""
        self._ends.clear()
        if hasattr(self._outbox, "after_fork"):
            with suppress(Exception):  # the others of this process must begin, too
                self._outbox.after_fork()

    async def put(self, entries: list[Entry]) -> None:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        await self._tell_ends()
        await self._do("put", entries)

    async def take(self, number: int, now: float) -> list[Entry]:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        await self._tell_ends()
        taken: list[Entry] = await self._do("take", number, now)
        return taken

    async def settle(self, entry: Entry) -> None:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        await self._end("settle", entry)

    async def retry(self, entry: Entry, due: float) -> None:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        await self._do("retry", entry, due)

    async def bury(self, entry: Entry, reason: str) -> None:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        await self._end("bury", entry, reason)
        self._give_back(entry)

    async def drop(self, entry: Entry, reason: str) -> None:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        await self._end("drop", entry, reason)
        if reason not in NOT_OWED:
            self._give_back(entry)

    async def purge(self, visitor: str) -> int:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        gone: int = await self._do("purge", visitor)
        return gone

    async def next_due(self) -> float | None:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        due: float | None = await self._do("next_due")
        return due

    def let_go(self, entry: Entry) -> bool:
        """Return False: what the outbox gave out remains its own, also where it cannot take it back."""
        del entry
        return False

    def unsure_of(self, entries: list[Entry]) -> list[Entry]:
        """Return none: an outbox keeps all it is given or none."""
        del entries
        return []

    async def commit(self) -> None:
        """See :class:`~convert_middleware.delivery.sheltered.Store`."""
        await self._tell_ends()
        await self._do("commit")

    async def renew(self, now: float) -> None:
        """See :class:`~convert_middleware.delivery.sheltered.Store`."""
        await self._tell_ends()
        await self._do("renew", now)

    async def close(self) -> None:
        """See :class:`~convert_middleware.delivery.sheltered.Store`."""
        try:
            await self._tell_ends()
        finally:
            await self._do("close")

    def counts(self) -> Counts:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        counts: Counts = self._outbox.counts()
        return counts

    def _give_back(self, entry: Entry) -> None:
        if entry.receipt is not None and not self._tells:
            self._lost.append(entry.receipt)

    async def _end(self, what: str, entry: Entry, *reason: str) -> None:
        """Tell the outbox how a hit ended; if it fails, it is told again before anything else happens."""
        self._ends.append((what, entry, reason))
        with suppress(ConvertError):  # said when it is told again
            await self._tell_ends()

    async def _tell_ends(self) -> None:
        while self._ends:
            what, entry, reason = end = self._ends.popleft()
            try:
                await self._do(what, entry, *reason)
            except BaseException:
                self._ends.appendleft(end)
                raise

    async def _do(self, what: str, *asked: object) -> Any:
        """Have the outbox do something, if it can."""
        step = getattr(self._outbox, what, None)
        if step is None:
            return None
        try:
            return await step(*asked)
        except ConvertError:
            raise
        except Exception as error:
            raise UnreachableError(self._kind, what, type(error).__name__) from error
