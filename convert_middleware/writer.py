"""From what visitors did to the hits that tell of it.

The writer asks the ledger who was first, has the wire write the text and offers it to the outbox. Requests
leave their news here and go on; the delivery thread has them written, many at a time. It knows nothing of
requests and cookies, and time is handed in.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from convert_middleware.delivery import Entry, Receipt, Worth
from convert_middleware.hooks import (
    Announcer,
    ExposureRecorded,
    GoalReached,
    HistoryLeftOut,
    HitFlushed,
    TransactionRecorded,
    visitor_hash,
)
from convert_middleware.model import Transaction
from convert_middleware.visitor import News
from convert_middleware.wire import fit, queries, query

if TYPE_CHECKING:
    from convert_middleware.delivery import Ledger, MemoryOutbox
    from convert_middleware.model import Hit

MOST: Final = 1_000  # pieces of news that wait to be written; a request that brings more helps out


class Writer:
    """Writes hits.

    Args:
        customer_id: The customer.
        project_id: The project.
        limit: Bytes that a query string may have.
        ledger: Who was first.
        outbox: Where hits wait; what it lost finally is made good with the visitor's next news.
        announcer: Whom to tell.
    """

    def __init__(
        self,
        customer_id: int,
        project_id: int,
        limit: int,
        ledger: Ledger,
        outbox: MemoryOutbox,
        announcer: Announcer,
    ) -> None:
        self._customer_id = customer_id
        self._project_id = project_id
        self._limit = limit
        self._ledger = ledger
        self._outbox = outbox
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
            self._give_back_what_was_lost()
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
        if not (self._waiting or self._writing or self._outbox.lost):
            return
        with self._lock:
            self._give_back_what_was_lost()
            self._writing = True
            try:
                while self._waiting:
                    self._write_one(*self._waiting.popleft())
            finally:
                self._writing = False

    def _give_back_what_was_lost(self) -> None:
        lost = self._outbox.lost
        while lost:
            with suppress(IndexError):  # a request with hooks does the same without the lock
                receipt = lost.popleft()
                if isinstance(receipt, Receipt):
                    self._ledger.give_back(receipt)

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
        news = News(visitor, experiments, goals, transactions)
        if self._announcer.active:
            self._announce(news)
        owed = self._ledger.make_good(visitor_id, now)
        if owed is not None:
            news = _with_owed(news, owed)
        for number, text in enumerate(queries(news, self._customer_id, self._project_id)):
            if len(text) > self._limit:
                self._write_in_parts(news.hits(self._customer_id, self._project_id)[number], visitor_id, now)
                continue
            first = number == 0
            self._offer(
                text,
                visitor_id,
                tuple(news.experiments) if first else (),
                tuple(news.goals) if first else (),
                news.transactions[number] if news.transactions else None,
                now,
            )

    def _write_in_parts(self, hit: Hit, visitor_id: str, now: float) -> None:
        """Write a hit that is too long for one request; see :func:`~convert_middleware.wire.fit`."""
        parts, left_out = fit(hit, self._limit)
        for part in parts:
            new = part.exposures[: part.new_exposures]
            self._offer(
                query(part),
                visitor_id,
                tuple([exposure.experiment_id for exposure in new]),
                part.goals[: part.new_goals],
                part.transaction,
                now,
            )
        if left_out:
            self._announcer.announce(HistoryLeftOut(visitor=visitor_hash(visitor_id), pieces=left_out))

    def _offer(
        self,
        text: str,
        visitor_id: str,
        experiments: tuple[int, ...],
        goals: tuple[int, ...],
        paid: Transaction | None,
        now: float,
    ) -> None:
        worth = Worth.REVENUE if paid else Worth.GOAL if goals else Worth.EXPOSURE
        transactions = ((paid.transaction_id, paid),) if paid else ()
        receipt = Receipt(visitor_id, experiments, goals, transactions)
        self._outbox.offer(Entry(text, worth, now, receipt=receipt))
        if self._announcer.active:
            self._announcer.announce(
                HitFlushed(
                    visitor=visitor_hash(visitor_id),
                    new_exposures=len(experiments),
                    new_goals=len(goals),
                    transaction=paid is not None,
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


def _with_owed(news: News, owed: Receipt) -> News:
    """Return the news with what an earlier hit could not tell, as far as the visitor's state still has it."""
    visitor, experiments, goals, transactions = news
    paid = [each for _, each in owed.transactions if isinstance(each, Transaction)]
    return News(
        visitor,
        [*[key for key in owed.experiments if key in visitor.experiments], *experiments],
        [*[key for key in owed.goals if key in visitor.goals], *goals],
        [*paid, *transactions],
    )
