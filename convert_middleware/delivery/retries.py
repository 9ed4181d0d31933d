"""Hits of an outbox in memory that wait for another attempt; time is handed in."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convert_middleware.delivery.entry import Entry


class Retries:
    """Hits of one worth that wait for another attempt: found by when that is due, or by age.

    Each stands in two heaps; when one of them gives it up it stays in the other as a number without a hit.
    """

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._by_due: list[tuple[float, int]] = []
        self._by_age: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def push(self, due: float, ticket: int, entry: Entry) -> None:
        """Take one in.

        Args:
            due: When it is due, in seconds since the epoch.
            ticket: A number of its own; of two that are due at once the lower goes first.
            entry: The hit.
        """
        self._entries[ticket] = entry
        heappush(self._by_due, (due, ticket))
        heappush(self._by_age, (entry.accepted_at, ticket))
        for heap in (self._by_due, self._by_age):
            if len(heap) > 2 * len(self._entries) + 16:  # more numbers without a hit than with one
                heap[:] = [each for each in heap if each[1] in self._entries]
                heapify(heap)

    def next_due(self) -> tuple[float, int] | None:
        """Return when the next one is due, and its ticket."""
        return self._first(self._by_due)

    def oldest(self) -> tuple[float, int] | None:
        """Return when the oldest one was accepted, and its ticket."""
        return self._first(self._by_age)

    def pop(self, ticket: int) -> Entry:
        """Give one up."""
        return self._entries.pop(ticket)

    def hurry(self) -> None:
        """Make all due at once."""
        self._by_due = sorted((0.0, ticket) for ticket in self._entries)

    def clear(self) -> list[Entry]:
        """Forget all, and return them."""
        entries = list(self._entries.values())
        for part in (self._entries, self._by_due, self._by_age):
            part.clear()
        return entries

    def of(self, visitor: str) -> list[int]:
        """Return the tickets of a visitor's hits."""
        return [ticket for ticket, entry in self._entries.items() if entry.visitor == visitor]

    def _first(self, heap: list[tuple[float, int]]) -> tuple[float, int] | None:
        while heap and heap[0][1] not in self._entries:
            heappop(heap)
        return heap[0] if heap else None
