"""From what is news to hits in the outbox: what stands in which hit, what each is worth, who hears of it.

It asks nobody who was first; the writer has done that. Time is handed in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from convert_middleware.length import fit
from convert_middleware.model import Transaction
from convert_middleware.visitor import News, unchecked
from convert_middleware.wire import queries, query

if TYPE_CHECKING:
    from convert_middleware.delivery import MemoryOutbox
    from convert_middleware.model import Hit
    from convert_middleware.visitor import Visitor


class Composer:
    """Composes hits.

    Args:
        customer_id: The customer.
        project_id: The project.
        limit: Bytes that a query string may have.
        outbox: Where hits wait.
        announcer: Whom to tell.
    """

    def __init__(
        self, customer_id: int, project_id: int, limit: int, outbox: MemoryOutbox, announcer: Announcer
    ) -> None:
        self._customer_id = customer_id
        self._project_id = project_id
        self._limit = limit
        self._outbox = outbox
        self._announcer = announcer

    def compose(self, news: News, owed: Receipt | None, now: float) -> None:
        """Offer the hits that tell of news to the outbox, and announce them.

        Args:
            news: What a visitor did, and nobody told yet.
            owed: What an earlier hit of the visitor should have told.
            now: When, in seconds since the epoch.
        """
        if self._announcer.active:
            self._announce(news)
        if owed is not None:
            news = _with_owed(news, owed)
        visitor, experiments, goals, transactions = news
        presented, reached = tuple(experiments), tuple(goals)
        for number, text in enumerate(queries(news, self._customer_id, self._project_id)):
            if len(text) > self._limit:
                self._write_in_parts(news.hits(self._customer_id, self._project_id)[number], visitor, now)
            else:
                paid = transactions[number] if transactions else None
                self._offer(text, _receipt(visitor, presented, reached, paid), now)
            presented, reached = (), ()  # further hits tell of orders only

    def _write_in_parts(self, hit: Hit, visitor: Visitor, now: float) -> None:
        """Write a hit that is too long for one request; see :func:`~convert_middleware.length.fit`."""
        parts, left_out = fit(hit, self._limit)
        for part in parts:
            presented = tuple([exposure.experiment_id for exposure in part.exposures[: part.new_exposures]])
            receipt = _receipt(visitor, presented, part.goals[: part.new_goals], part.transaction)
            self._offer(query(part), receipt, now)
        if left_out:
            self._announcer.announce(
                HistoryLeftOut(visitor=visitor_hash(visitor.visitor_id), pieces=left_out)
            )

    def _offer(self, text: str, receipt: Receipt, now: float) -> None:
        visitor_id, experiments, goals, transactions = receipt
        worth = Worth.REVENUE if transactions else Worth.GOAL if goals else Worth.EXPOSURE
        self._outbox.offer(Entry(text, worth, now, visitor=visitor_id, receipt=receipt))
        if self._announcer.active:
            self._announcer.announce(
                HitFlushed(
                    visitor=visitor_hash(visitor_id),
                    new_exposures=len(experiments),
                    new_goals=len(goals),
                    transaction=bool(transactions),
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


def _receipt(
    visitor: Visitor, experiments: tuple[int, ...], goals: tuple[int, ...], paid: Transaction | None
) -> Receipt:
    transactions = ((paid.transaction_id, paid),) if paid else ()
    return unchecked(Receipt, (visitor.visitor_id, experiments, goals, transactions))


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
