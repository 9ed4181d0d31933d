"""Hits that were dropped, told of once each, wherever that happened.

An outbox drops where nobody may wait or speak, so what was lost is read from its account afterwards.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from convert_middleware.hooks import HitDropped

if TYPE_CHECKING:
    from convert_middleware.delivery.outbox import Outbox
    from convert_middleware.hooks import Announcer

# No line tells of what visitors asked for, and the worker itself tells what an attempt came to.
_UNSAID: Final = frozenset({"withdrawn", "ambiguous", "expired"})
_SAID: Final = {
    "overflow": "The outbox is full; hits dropped to make room",
    "shutdown": "The end came before everything was delivered; hits dropped",
    "interrupted": "Whoever was sending ended unexpectedly; hits dropped that may have arrived",
    "lease lost": "This process gave no sign of life; hits that others took over, dropped here",
    "file lost": "The file of the outbox is gone or broken; hits dropped that waited in it",
    "store lost": "Redis has lost its data; hits dropped that waited there",
}


class Losses:
    """Tells of what was dropped.

    Args:
        outbox: Whose account is read.
        announcer: Whom to tell.
    """

    def __init__(self, outbox: Outbox, announcer: Announcer) -> None:
        self._outbox = outbox
        self._announcer = announcer
        self._told: dict[str, int] = {}
        self._lock = threading.RLock()  # who drains tells, and so does a thread that takes too long

    def tell(self) -> None:
        """Announce and log what was dropped since the last time."""
        with self._lock:
            told, self._told = self._told, self._outbox.counts().dropped
            new = [(reason, number - told.get(reason, 0)) for reason, number in self._told.items()]
        for reason, number in new:
            if number > 0:
                if reason not in _UNSAID:
                    said = _SAID.get(reason, f"Hits dropped as {reason!r}")
                    self._announcer.log(logging.WARNING, f"dropped {reason}", "%s: %d.", said, number)
                self._announcer.announce(HitDropped(reason=reason, number=number))
