"""Server-sent events: what arrives, as it arrives, for any number of browsers.

Each stream looks for news ten times a second by itself, so that streams share nothing, need no background
task, and end by themselves when the server closes. A stream that falls behind skips to the newest requests;
the totals in ``summary`` are complete all the same.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from convert_middleware.errors import ArgumentError
from convert_middleware.model import count

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from convert_middleware.collector.collector import Collector

TICK: Final = 0.1  # seconds between two looks
SUMMARY_EVERY: Final = 0.25  # seconds at least between two summaries
HEARTBEAT: Final = 10.0  # seconds of silence after which a comment is sent
MOST_AT_ONCE: Final = 500  # requests in one look
_RETRY: Final = 1000  # ms until a browser connects anew


@dataclass(frozen=True, slots=True)
class Position:
    """Where a stream begins.

    Attributes:
        epoch: The collector's ``epoch`` the number belongs to; empty: any.
        after: Number of the last request the reader knows; ``None``: it knows none.
        recent: How many of the newest requests it wants to begin with if it knows none.
    """

    epoch: str = ""
    after: int | None = None
    recent: int = 0

    @classmethod
    def read(cls, last_event_id: str | None, recent: str | None) -> Position:
        """Return the position in a ``Last-Event-ID`` (``epoch-number`` or a number) and a ``recent``.

        Raises:
            ArgumentError: One of them is no such thing.
        """
        epoch, after = "", None
        if last_event_id:
            epoch, _, digits = last_event_id.rpartition("-")
            after = whole("Last-Event-ID", digits, 0, 2**63 - 1)
        return cls(epoch, after, whole("recent", recent, 0, MOST_AT_ONCE) if recent is not None else 0)


def whole(name: str, text: str, least: int, most: int) -> int:
    """Return the whole number that a text from a request holds."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise ArgumentError(name, text, f"is no whole number from {least} to {most}")
    return count(name, int(text), least, most)


async def stream(collector: Collector, position: Position) -> AsyncIterator[str]:
    """Yield server-sent events until the collector closes.

    Events: ``reset`` (forget everything; its ``epoch`` is the name of what follows), ``hit``, ``malformed``,
    ``bot`` and ``summary``. The id of each request's event is where a reader may begin again.
    """
    reader = _Reader(collector, position)
    yield f"retry: {_RETRY}\n\n" + "".join(reader.begin())
    spoke = monotonic()
    while not collector.closing:
        await asyncio.sleep(TICK)
        news = "".join(reader.news(monotonic()))
        if news:
            spoke = monotonic()
            yield news
        elif monotonic() - spoke >= HEARTBEAT:
            spoke = monotonic()
            yield ": still here\n\n"


class _Reader:
    """What one browser has seen."""

    def __init__(self, collector: Collector, position: Position) -> None:
        self._collector = collector
        self._epoch = collector.epoch
        known = position.after is not None and position.epoch in ("", self._epoch)
        self._fresh = not known
        last = collector.last_id
        self._after = min(position.after or 0, last) if known else last
        self._recent = 0 if known else position.recent
        self._version: object = None
        self._summary_at = 0.0

    def begin(self) -> list[str]:
        events = []
        if self._fresh:
            events.append(_event("reset", {"epoch": self._epoch}))
            if self._recent:
                events += self._requests(self._recent, 0)
        return events + self.news(monotonic())

    def news(self, now: float) -> list[str]:
        events = []
        collector = self._collector
        if collector.epoch != self._epoch:
            self._epoch, self._after, self._version, self._summary_at = collector.epoch, 0, None, 0.0
            events.append(_event("reset", {"epoch": self._epoch}))
        if collector.last_id > self._after:
            events += self._requests(MOST_AT_ONCE, self._after)
        version = collector.version
        if version != self._version and now - self._summary_at >= SUMMARY_EVERY:
            self._version, self._summary_at = version, now
            events.append(_event("summary", collector.summary()))
        return events

    def _requests(self, limit: int, after: int) -> list[str]:
        records = self._collector.newest(limit, after)
        if records:
            self._after = max(self._after, records[-1].id)
        return [
            _event(record.outcome, self._collector.as_json(record), f"{self._epoch}-{record.id}")
            for record in records
        ]


def _event(name: str, data: dict[str, Any], number: str | None = None) -> str:
    text = json.dumps(data, separators=(",", ":"))  # escapes every line break
    return f"event: {name}\n{f'id: {number}' + chr(10) if number else ''}data: {text}\n\n"
