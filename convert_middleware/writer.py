"""From what visitors did to the hits that tell of it.

The writer asks the ledger who was first, has the wire write the text and offers it to the outbox. Requests
leave their news here and go on; the delivery thread has them written, many at a time. It knows nothing of
requests and cookies, and time is handed in.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from convert_middleware.delivery import Entry, Worth
from convert_middleware.hooks import (
    Announcer,
    ExposureRecorded,
    GoalReached,
    HistoryLeftOut,
    HitFlushed,
    TransactionRecorded,
    visitor_hash,
)
from convert_middleware.visitor import News
from convert_middleware.wire import fit, queries, query

if TYPE_CHECKING:
    from collections.abc import Callable

    from convert_middleware.delivery import Ledger
    from convert_middleware.model import Hit

MOST: Final = 1_000  # pieces of news that wait to be written; a request that brings more helps out


class Writer:
    """Writes hits.

    Args:
        customer_id: The customer.
        project_id: The project.
        limit: Bytes that a query string may have.
        ledger: Who was first.
        offer: Takes a hit; never blocks.
        announcer: Whom to tell.
    """

    def __init__(
        self,
        customer_id: int,
        project_id: int,
        limit: int,
        ledger: Ledger,
        offer: Callable[[Entry], None],
        announcer: Announcer,
    ) -> None:
        self._customer_id = customer_id
        self._project_id = project_id
        self._limit = limit
        self._ledger = ledger
        self._offer = offer
        self._announcer = announcer
        self.after_fork()

    def after_fork(self) -> None:
        """Begin empty, with a lock nobody holds: in a forked child what waits here is the parent's."""
        self._lock = threading.RLock()
        self._waiting: deque[tuple[News, float]] = deque()
        self._writing = False

    def take(self, news: News, now: float) -> None:
        """Accept news; hooks hear of it at once, otherwise it is written later. Never blocks, never raises.

        Args:
            news: What a visitor did.
            now: When, in seconds since the epoch.
        """
        if self._announcer.active:
            self._write_one(news, now)
            return
        self._waiting.append((news, now))
        if len(self._waiting) > MOST and self._lock.acquire(blocking=False):
            try:
                self.write_waiting()
            finally:
                self._lock.release()

    def write_waiting(self) -> None:
        """Offer all that waits to the outbox; when it returns, all that was taken before is there."""
        if not self._waiting and not self._writing:
            return
        with self._lock:
            self._writing = True
            try:
                while self._waiting:
                    self._write_one(*self._waiting.popleft())
            finally:
                self._writing = False

    def _write_one(self, news: News, now: float) -> None:
        try:
            self._write(news, now)
        except Exception as error:  # noqa: BLE001 - the others must not suffer; the loss is said
            self._announcer.log(
                logging.ERROR,
                "news",
                "Tracking failed and a page's records are lost: %s.",
                type(error).__name__,
            )

    def _write(self, news: News, now: float) -> None:
        visitor, experiments, goals, transactions = news
        visitor_id, claim = visitor.visitor_id, self._ledger.claim
        if experiments:
            experiments = [key for key in experiments if claim((visitor_id, "exposure", key), now)]
        if goals:
            goals = [key for key in goals if claim((visitor_id, "goal", key), now)]
        if transactions:
            transactions = [
                each for each in transactions if claim((visitor_id, "transaction", each.transaction_id), now)
            ]
        if not (experiments or goals or transactions):
            return
        news = News(visitor, experiments, goals, transactions)
        active = self._announcer.active
        if active:
            self._announce(news)
        worth = _worth(len(goals), bool(transactions))
        for number, text in enumerate(queries(news, self._customer_id, self._project_id)):
            if len(text) > self._limit:
                self._write_in_parts(news.hits(self._customer_id, self._project_id)[number], visitor_id, now)
                continue
            self._offer(Entry(text, worth, now))
            if active:
                new = (len(experiments), len(goals)) if number == 0 else (0, 0)
                self._flushed(visitor_id, *new, transaction=bool(transactions))

    def _write_in_parts(self, hit: Hit, visitor_id: str, now: float) -> None:
        """Write a hit that is too long for one request; see :func:`~convert_middleware.wire.fit`."""
        parts, left_out = fit(hit, self._limit)
        for part in parts:
            paid = part.transaction is not None
            self._offer(Entry(query(part), _worth(part.new_goals, paid), now))
            self._flushed(visitor_id, part.new_exposures, part.new_goals, transaction=paid)
        if left_out:
            self._announcer.announce(HistoryLeftOut(visitor=visitor_hash(visitor_id), pieces=left_out))

    def _flushed(self, visitor_id: str, exposures: int, goals: int, *, transaction: bool) -> None:
        if self._announcer.active:
            self._announcer.announce(
                HitFlushed(
                    visitor=visitor_hash(visitor_id),
                    new_exposures=exposures,
                    new_goals=goals,
                    transaction=transaction,
                )
            )

    def _announce(self, news: News) -> None:
        announce = self._announcer.announce
        visitor = visitor_hash(news.visitor.visitor_id)
        for key in news.experiments:
            variation_id = news.visitor.variation(key) or 0
            announce(ExposureRecorded(visitor=visitor, experiment_id=key, variation_id=variation_id))
        for goal_id in news.goals:
            announce(GoalReached(visitor=visitor, goal_id=goal_id))
        for each in news.transactions:
            announce(
                TransactionRecorded(
                    visitor=visitor,
                    goal_ids=each.goals,
                    transaction_id=each.transaction_id,
                    value=each.value,
                    products=each.products,
                )
            )


def _worth(new_goals: int, paid: bool) -> Worth:
    return Worth.REVENUE if paid else Worth.GOAL if new_goals else Worth.EXPOSURE
