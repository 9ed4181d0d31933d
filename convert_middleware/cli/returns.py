"""Claims of hits that were finally lost, given back to the ledger that machines share.

The site wrote them beside its hits; whichever process serves the visitor next counts them again, once.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from convert_middleware.delivery import Receipt
from convert_middleware.errors import ConvertError

if TYPE_CHECKING:
    from convert_middleware.delivery import MemoryOutbox
    from convert_middleware.writer import SharedLedger

_TOGETHER: Final = 200  # claims given back in one step
_MOST: Final = 100_000  # that wait while the ledger cannot be reached; the oldest go


class Returns:
    """Gives claims back; to the worker it is a source of hits that has none.

    Args:
        outbox: Where hits get lost.
        ledger: Where their claims are kept; None if every process has its own.
    """

    def __init__(self, outbox: MemoryOutbox, ledger: SharedLedger | None) -> None:
        self._outbox = outbox
        self._ledger = ledger
        self._waiting: deque[Receipt] = deque(maxlen=_MOST)

    def pending(self) -> int:
        """Return 0: no hit comes from here."""
        return 0

    def gather(self) -> None:
        """Do nothing: no hit comes from here."""

    def finish(self) -> None:
        """Do nothing: no hit comes from here."""

    def withdrew(self, visitor: str, accepted_at: float) -> bool:
        """Return False: only the site hears of it, and takes what waits out of the outbox."""
        del visitor, accepted_at
        return False

    async def bring(self) -> None:
        """Give back what was lost; while the ledger cannot be reached it waits for the next time."""
        lost = self._outbox.lost
        while lost:
            receipt = lost.popleft()
            if isinstance(receipt, Receipt) and self._ledger is not None:
                self._waiting.append(receipt)
        with suppress(ConvertError):
            while self._waiting and self._ledger is not None:
                some = list(self._waiting)[:_TOGETHER]
                await self._ledger.give_back(some)
                for _ in some:
                    self._waiting.popleft()
