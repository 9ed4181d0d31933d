"""What one process remembers of its visitors, for records that reached no cookie and cookies that crossed.

Bounded and expiring. It holds states only and merges them; signatures and requests are others' affair, and
time is handed in.
"""

from __future__ import annotations

import threading
from typing import Final

from convert_middleware.cookie import state_of, text_of
from convert_middleware.delivery import Recent
from convert_middleware.visitor import Visitor

REMEMBERED: Final = 5_000  # visitors at least
REMEMBERED_FOR: Final = 1800.0  # seconds


class Memory:
    """The latest states of visitors.

    A state is kept as the text of its cookie: one object, where a state read has fifty.
    """

    def __init__(self) -> None:
        self._states: Recent[str, tuple[float, bytes]] = Recent(REMEMBERED)
        # Reentrant: a garbage collection in the midst of it may run a destructor that records something.
        self._lock = threading.RLock()

    def after_fork(self) -> None:
        """Begin in a forked child with a lock nobody holds; another thread may have held it in the parent."""
        self._lock = threading.RLock()

    def complete(self, visitor: Visitor, text: bytes | None, now: float) -> tuple[Visitor, bytes | None]:
        """Return a state with what is remembered of the visitor, and a text that holds just that.

        Args:
            visitor: The state.
            text: A cookie that holds just this state; None: there is none.
            now: Seconds since the epoch.
        """
        known = self._states.get(visitor.visitor_id)
        if known is None or known[1] == text or known[0] < now - REMEMBERED_FOR:
            return visitor, text
        remembered = state_of(known[1])
        if remembered == visitor:
            return visitor, known[1]
        merged = visitor.merge(remembered)
        return merged, known[1] if merged == remembered else None

    def remember(
        self,
        visitor: Visitor,
        loaded: Visitor | None,
        seen: bytes | None,
        text: bytes | None,
        now: float,
    ) -> Visitor:
        """Keep a state, and return it with what parallel requests added meanwhile.

        Args:
            visitor: The state after a request's records.
            loaded: The state the request began with, as :meth:`complete` returned it, if any was.
            seen: A text that holds just that; None: there is none.
            text: A cookie that holds just this state; None: there is none.
            now: Seconds since the epoch.
        """
        with self._lock:
            known = self._states.get(visitor.visitor_id)
            if known is not None and known[1] != seen and known[0] >= now - REMEMBERED_FOR:
                remembered = state_of(known[1])
                visitor, text = _counted_first(remembered, visitor, loaded).merge(visitor), None
            self._states.put(visitor.visitor_id, (now, text or text_of(visitor)))
        return visitor

    def forget(self, visitor: Visitor) -> None:
        """Drop what is remembered of a visitor."""
        self._states.forget(visitor.visitor_id)


def _counted_first(known: Visitor, visitor: Visitor, loaded: Visitor | None) -> Visitor:
    """Return what is known, so that its variations win every merge with what the request presented meanwhile.

    What is remembered first is what counts, whatever the times of the two. A variation that a cookie told may
    have been counted by another process; for that the earliest wins as ever, and so all processes agree.
    """
    counted = dict(
        zip(known.experiments, zip(known.presented_at, known.variations, strict=True), strict=True)
    )
    told = loaded.experiments if loaded is not None else ()
    earlier: list[tuple[int, int, int]] = []
    for key, variation, at in zip(visitor.experiments, visitor.variations, visitor.presented_at, strict=True):
        moment, kept = counted.get(key, (at, variation))
        if kept != variation and key not in told:
            earlier.append((key, kept, min(moment, at) - 1))
    if not earlier:
        return known
    return known.merge(Visitor(known.visitor_id, known.issued_at, *zip(*earlier, strict=True)))
