"""What one visitor did, what of it is first now, and how two accounts of it merge.

A visitor's state is a value: every record returns a new one. Each part is a map from an id to the earliest
time it happened, so that merging is commutative, associative and idempotent and a lost update costs
nothing. This module knows the counting rules (DESIGN, section 5) and nothing of cookies, clocks or requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import NamedTuple

from convert_middleware.model import Exposure, Hit, Transaction


class Presented(NamedTuple):
    """That a visitor was presented an experiment.

    Attributes:
        at: When, in seconds since the epoch; see :meth:`Visitor.next_moment`.
        variation_id: Which variation.
        goals: Goals reached since; each is one of the visitor's goals, in their order.
    """

    at: int
    variation_id: int
    goals: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Visitor:
    """The state of one visitor. Every map is kept oldest first, ties by id.

    Attributes:
        visitor_id: 32 hexadecimal digits.
        issued_at: First visit, in seconds since the epoch.
        exposures: What was presented, by experiment id.
        goals: When each goal was first reached, by goal id.
        transactions: When each transaction was recorded, by :func:`short_hash` of its id.
    """

    visitor_id: str
    issued_at: int
    exposures: dict[int, Presented] = field(default_factory=dict)
    goals: dict[int, int] = field(default_factory=dict)
    transactions: dict[int, int] = field(default_factory=dict)

    def next_moment(self, now: int) -> int:
        """Return the time stamp of the next record: ``now``, but always later than everything recorded.

        So the order of records survives clocks that differ between servers or stand still within a second.
        """
        last = self.issued_at - 1
        if self.exposures:
            last = max(last, next(reversed(self.exposures.values())).at)
        if self.goals:
            last = max(last, next(reversed(self.goals.values())))
        if self.transactions:
            last = max(last, next(reversed(self.transactions.values())))
        return max(now, last + 1)

    def present(self, experiment_id: int, variation_id: int, now: int) -> Visitor:
        """Return the state after a first exposure; the visitor must not have that experiment yet."""
        presented = Presented(self.next_moment(now), variation_id)
        return self._with(exposures={**self.exposures, experiment_id: presented})

    def reach(self, goal_id: int, now: int, experiments: Sequence[int] | None = None) -> Visitor:
        """Return the state after the visitor reached a goal, or ``self`` if that changes nothing.

        Args:
            goal_id: The goal.
            now: Seconds since the epoch.
            experiments: The experiments the goal belongs to; None: all.
        """
        goals = self.goals
        if goal_id not in goals:
            goals = {**goals, goal_id: self.next_moment(now)}
        exposures: dict[int, Presented] = {
            key: presented
            if goal_id in presented.goals or (experiments is not None and key not in experiments)
            else Presented(presented.at, presented.variation_id, _joined(presented.goals, (goal_id,), goals))
            for key, presented in self.exposures.items()
        }
        if goals is self.goals and exposures == self.exposures:
            return self
        return self._with(exposures=exposures, goals=goals)

    def pay(self, transaction_id: str, now: int) -> Visitor:
        """Return the state after a transaction was recorded."""
        moment = self.next_moment(now)
        return self._with(transactions={**self.transactions, short_hash(transaction_id): moment})

    def has_paid(self, transaction_id: str) -> bool:
        """Tell whether the transaction was recorded before."""
        return short_hash(transaction_id) in self.transactions

    def without(self, experiments: Sequence[int]) -> Visitor:
        """Return the state as if these experiments had not been presented."""
        return self._with(
            exposures={key: value for key, value in self.exposures.items() if key not in experiments}
        )

    def merge(self, other: Visitor) -> Visitor:
        """Join two accounts of the same visitor: sets unite, the earliest time wins."""
        issued_at, visitor_id = min((self.issued_at, self.visitor_id), (other.issued_at, other.visitor_id))
        goals = _earliest(self.goals, other.goals)
        exposures = self.exposures
        if other.exposures != exposures or goals is not self.goals:
            merged = {
                # The earlier presentation wins. Goals reached after the later one were reached after both.
                key: Presented(*min(mine[:2], theirs[:2]), _joined(mine.goals, theirs.goals, goals))
                for key, mine, theirs in _paired(exposures, other.exposures)
            }
            exposures = dict(sorted(merged.items(), key=lambda item: (item[1].at, item[0])))
        return Visitor(
            visitor_id, issued_at, exposures, goals, _earliest(self.transactions, other.transactions)
        )

    def _with(
        self,
        exposures: dict[int, Presented] | None = None,
        goals: dict[int, int] | None = None,
        transactions: dict[int, int] | None = None,
    ) -> Visitor:
        return Visitor(
            self.visitor_id,
            self.issued_at,
            self.exposures if exposures is None else exposures,
            self.goals if goals is None else goals,
            self.transactions if transactions is None else transactions,
        )


def _joined(mine: tuple[int, ...], theirs: tuple[int, ...], order: dict[int, int]) -> tuple[int, ...]:
    """Return both tuples' goals without repeats, in the order of the visitor's goals."""
    both = {*mine, *theirs}
    return tuple(order) if len(both) == len(order) else tuple([goal for goal in order if goal in both])


def _paired(
    mine: dict[int, Presented], theirs: dict[int, Presented]
) -> Iterator[tuple[int, Presented, Presented]]:
    for key in {**mine, **theirs}:
        first = mine.get(key) or theirs[key]
        yield key, first, theirs.get(key, first)


def _earliest(mine: dict[int, int], theirs: dict[int, int]) -> dict[int, int]:
    if mine == theirs:
        return mine
    merged = {**theirs, **mine}
    for key, at in theirs.items():
        merged[key] = min(at, merged[key])
    return dict(sorted(merged.items(), key=lambda item: (item[1], item[0])))


def short_hash(text: str) -> int:
    """Return 40 bits that stand for a transaction id: two of 16 ids collide with a chance of 1 in 10^10."""
    return int.from_bytes(blake2b(text.encode(), digest_size=5).digest())


@dataclass(frozen=True, slots=True)
class News:
    """What a visitor did for the first time now.

    Attributes:
        visitor: The state, with the news in it.
        exposures: Experiments presented now, in order.
        goals: Goals reached now, in the order reached.
        transactions: What was paid now.
    """

    visitor: Visitor
    exposures: Sequence[int] = ()
    goals: Sequence[int] = ()
    transactions: Sequence[Transaction] = ()

    def __bool__(self) -> bool:
        return bool(self.exposures or self.goals or self.transactions)

    def hits(self, customer_id: int, project_id: int) -> list[Hit]:
        """Return what is to be told to Convert, in sending order (DESIGN, sections 5.5 and 5.6)."""
        if not self:
            return []
        state = self.visitor.exposures
        fresh = tuple([_triplet(key, state[key]) for key in self.exposures if key in state])
        if not (self.goals or self.transactions):
            return [
                Hit(
                    customer_id=customer_id,
                    project_id=project_id,
                    exposures=fresh,
                    new_exposures=len(fresh),
                )
            ]
        earlier = [_triplet(key, state[key]) for key in state if key not in self.exposures]
        history = [goal for goal in self.visitor.goals if goal not in self.goals]
        first = Hit(
            customer_id=customer_id,
            project_id=project_id,
            exposures=(*fresh, *earlier),
            new_exposures=len(fresh),
            goals=(*self.goals, *history),
            new_goals=len(self.goals),
            transaction=self.transactions[0] if self.transactions else None,
        )
        further = [
            replace(first, new_exposures=0, goals=(), new_goals=0, transaction=transaction)
            for transaction in self.transactions[1:]
        ]
        return [first, *further]


def _triplet(experiment_id: int, presented: Presented) -> Exposure:
    return Exposure(experiment_id, presented.variation_id, presented.goals)
