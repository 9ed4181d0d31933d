"""What one visitor did, what of it is first now, and how two accounts of it merge.

A visitor's state is a value in columns; every record appends and returns a new one. Everything has the
earliest time it happened, so that merging is commutative, associative and idempotent and a lost update costs
nothing. This module knows the counting rules (DESIGN, section 5) and nothing of cookies, clocks or requests.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import compress
from typing import Final, NamedTuple, TypeVar

from convert_middleware.model import Exposure, Hit, Transaction

T = TypeVar("T")
Column = tuple[int, ...]
unchecked: Final = tuple.__new__  # makes a named tuple of values that are right already


class Visitor(NamedTuple):
    """The state of one visitor. Experiments, goals and transactions each stand oldest first, ties by id.

    Attributes:
        visitor_id: 32 hexadecimal digits.
        issued_at: First visit, in seconds since the epoch.
        experiments: What was presented.
        variations: Which variation of each experiment.
        presented_at: When each experiment was presented, in seconds since the epoch.
        goals: What was reached.
        reached_at: When each goal was first reached.
        credited: For each goal a number whose bit ``i`` says that it was reached after ``experiments[i]`` was
            presented and belongs to it.
        transactions: What was paid, as :func:`short_hash` of the transaction ids.
        paid_at: When each transaction was recorded.
    """

    visitor_id: str
    issued_at: int
    experiments: Column = ()
    variations: Column = ()
    presented_at: Column = ()
    goals: Column = ()
    reached_at: Column = ()
    credited: Column = ()
    transactions: Column = ()
    paid_at: Column = ()

    def next_moment(self, now: int) -> int:
        """Return the time stamp of the next record: ``now``, but always later than everything recorded.

        So the order of records survives clocks that differ between servers or stand still within a second.
        """
        last = self.issued_at - 1
        if self.presented_at and self.presented_at[-1] > last:
            last = self.presented_at[-1]
        if self.reached_at and self.reached_at[-1] > last:
            last = self.reached_at[-1]
        if self.paid_at and self.paid_at[-1] > last:
            last = self.paid_at[-1]
        return now if now > last else last + 1

    @property
    def is_new(self) -> bool:
        """Whether nothing is known of the visitor."""
        return not (self.experiments or self.goals or self.transactions)

    def variation(self, experiment_id: int) -> int | None:
        """Return the variation this visitor was presented, if any."""
        if experiment_id in self.experiments:
            return self.variations[self.experiments.index(experiment_id)]
        return None

    def present(self, experiment_id: int, variation_id: int, now: int) -> Visitor:
        """Return the state after a first exposure; the visitor must not have that experiment yet."""
        return self._replace(
            experiments=(*self.experiments, experiment_id),
            variations=(*self.variations, variation_id),
            presented_at=(*self.presented_at, self.next_moment(now)),
        )

    def reach(self, goal_id: int, now: int, experiments: Sequence[int] | None = None) -> Visitor:
        """Return the state after the visitor reached a goal, or ``self`` if that changes nothing.

        Args:
            goal_id: The goal.
            now: Seconds since the epoch.
            experiments: The experiments the goal belongs to; None: all.
        """
        if experiments is None:
            credit = (1 << len(self.experiments)) - 1
        else:
            credit = sum([1 << i for i, key in enumerate(self.experiments) if key in experiments])
        if goal_id not in self.goals:
            columns = (
                self.visitor_id,
                self.issued_at,
                self.experiments,
                self.variations,
                self.presented_at,
                (*self.goals, goal_id),
                (*self.reached_at, self.next_moment(now)),
                (*self.credited, credit),
                self.transactions,
                self.paid_at,
            )
            return unchecked(Visitor, columns)
        number = self.goals.index(goal_id)
        before = self.credited[number]
        if before | credit == before:
            return self
        credited = (*self.credited[:number], before | credit, *self.credited[number + 1 :])
        return self._replace(credited=credited)

    def pay(self, transaction_id: str, now: int) -> Visitor:
        """Return the state after a transaction was recorded."""
        return self._replace(
            transactions=(*self.transactions, short_hash(transaction_id)),
            paid_at=(*self.paid_at, self.next_moment(now)),
        )

    def has_paid(self, transaction_id: str) -> bool:
        """Tell whether the transaction was recorded before."""
        return short_hash(transaction_id) in self.transactions

    def without_last(self, number: int) -> Visitor:
        """Return the state as if the last ``number`` experiments had not been presented."""
        kept = len(self.experiments) - number
        mask = (1 << kept) - 1
        return self._replace(
            experiments=self.experiments[:kept],
            variations=self.variations[:kept],
            presented_at=self.presented_at[:kept],
            credited=tuple([credit & mask for credit in self.credited]),
        )

    def without_oldest(self, *, experiments: int = 0, goals: int = 0, transactions: int = 0) -> Visitor:
        """Return the state without the oldest of each kind."""
        return Visitor(
            self.visitor_id,
            self.issued_at,
            self.experiments[experiments:],
            self.variations[experiments:],
            self.presented_at[experiments:],
            self.goals[goals:],
            self.reached_at[goals:],
            tuple([credit >> experiments for credit in self.credited[goals:]]),
            self.transactions[transactions:],
            self.paid_at[transactions:],
        )

    def triplets(self) -> list[Exposure]:
        """Return what was presented, each with the goals it is credited with."""
        fired = fired_for(self.goals, self.credited, len(self.experiments))
        # Every id was checked when it was recorded, so these are made without checking them again.
        return [
            unchecked(Exposure, triplet)
            for triplet in zip(self.experiments, self.variations, fired, strict=True)
        ]

    def with_browser(self, exposures: Iterable[Exposure], goals: Sequence[int]) -> Visitor:
        """Return the state with what the browser counted by itself, which is not first any more.

        What both know keeps our time and our variation; the rest counts as old as the first visit, so that it
        is among the first that are let go should the cookie become too long.

        Args:
            exposures: What the browser presented, each with the goals it fired for it.
            goals: Every goal the browser fired.
        """
        start = self.issued_at
        shown = dict(zip(self.experiments, zip(self.presented_at, self.variations, strict=True), strict=True))
        reached = dict(zip(self.goals, self.reached_at, strict=True))
        told: dict[int, int] = {}
        holders: dict[int, set[int]] = {goal: set() for goal in goals}
        variations: dict[int, int] = {}
        for key, variation, fired in exposures:
            at, kept = shown.get(key, (start, variation))
            if kept == variation:
                told[key], variations[key] = at, variation
                for goal in fired:
                    holders[goal].add(key)
        experiments, presented_at = _in_order(told)
        places = {key: 1 << i for i, key in enumerate(experiments)}
        fired_goals, reached_at = _in_order({goal: reached.get(goal, start) for goal in goals})
        seen = Visitor(
            self.visitor_id,
            start,
            experiments,
            tuple([variations[key] for key in experiments]),
            presented_at,
            fired_goals,
            reached_at,
            tuple([sum([places[key] for key in holders[goal]]) for goal in fired_goals]),
        )
        merged = self.merge(seen)
        return self if merged == self else merged

    def merge(self, other: Visitor) -> Visitor:
        """Join two accounts of the same visitor: sets unite, the earliest time wins."""
        if other == self:
            return self
        issued_at, visitor_id = min((self.issued_at, self.visitor_id), (other.issued_at, other.visitor_id))
        exposures: dict[int, tuple[int, int]] = {}
        for state in (self, other):
            for key, variation, at in zip(
                state.experiments, state.variations, state.presented_at, strict=True
            ):
                exposures[key] = min((at, variation), exposures.get(key, (at, variation)))
        experiments, moments = _in_order({key: at for key, (at, _) in exposures.items()})
        goals, reached_at = _in_order(_earliest(self.goals, self.reached_at, other.goals, other.reached_at))
        transactions, paid_at = _in_order(
            _earliest(self.transactions, self.paid_at, other.transactions, other.paid_at)
        )
        places = {key: 1 << i for i, key in enumerate(experiments)}
        # Goals reached after the later of two presentations were reached after both.
        mine, theirs = self._credits(places), other._credits(places)
        return Visitor(
            visitor_id,
            issued_at,
            experiments,
            tuple([exposures[key][1] for key in experiments]),
            moments,
            goals,
            reached_at,
            tuple([mine.get(goal, 0) | theirs.get(goal, 0) for goal in goals]),
            transactions,
            paid_at,
        )

    def _credits(self, places: Mapping[int, int]) -> dict[int, int]:
        """Return what each goal is credited with, with experiments at other places.

        Args:
            places: The bit of each experiment.
        """
        bits = [places[key] for key in self.experiments]
        moved = {
            credit: sum([bit for i, bit in enumerate(bits) if credit >> i & 1])
            for credit in set(self.credited)
        }
        return {goal: moved[credit] for goal, credit in zip(self.goals, self.credited, strict=True)}


def _earliest(mine: Column, my_moments: Column, theirs: Column, their_moments: Column) -> dict[int, int]:
    merged = dict(zip(mine, my_moments, strict=True))
    for key, at in zip(theirs, their_moments, strict=True):
        merged[key] = min(at, merged.get(key, at))
    return merged


def _in_order(moments: Mapping[int, int]) -> tuple[Column, Column]:
    keys = tuple(sorted(moments, key=lambda key: (moments[key], key)))
    return keys, tuple([moments[key] for key in keys])


def fired_for(goals: Sequence[T], credited: Column, number: int) -> list[Sequence[T]]:
    """Return the goals that are credited to each of so many exposures.

    Args:
        goals: All goals, in whatever form.
        credited: See :class:`Visitor`.
        number: How many exposures there are.
    """
    firsts = _firsts(credited, number) if len(credited) <= _SHORT else None
    if firsts is None:
        return [tuple(compress(goals, map((1 << i).__and__, credited))) for i in range(number)]
    return [goals[first:] for first in firsts]


_SHORT: Final = 64  # goals of a visitor whose way may be remembered; forged ones are as long as they like
_PREFIXES: Final = frozenset([(1 << number) - 1 for number in range(64)])


@lru_cache(maxsize=1024)  # visitors take few ways through a site
def _firsts(credited: Column, number: int) -> list[int] | None:
    """Return the first goal of each exposure if it is credited with every later one, too.

    So it is where goals are not restricted to some experiments: each is credited to all exposures before it.
    """
    if not _PREFIXES.issuperset(credited) or list(credited) != sorted(credited):
        return None
    return [bisect_right(credited, (1 << i) - 1) for i in range(number)]


def short_hash(text: str) -> int:
    """Return 40 bits that stand for a transaction id; two of 16 ids collide with a chance of 1 in 10^10."""
    return int.from_bytes(blake2b(text.encode(), digest_size=5).digest())


class News(NamedTuple):
    """What a visitor did for the first time now.

    Attributes:
        visitor: The state, with the news in it.
        experiments: Experiments presented now, in order.
        goals: Goals reached now, in the order reached.
        transactions: What was paid now.
    """

    visitor: Visitor
    experiments: Sequence[int] = ()
    goals: Sequence[int] = ()
    transactions: Sequence[Transaction] = ()

    def hits(self, customer_id: int, project_id: int) -> list[Hit]:
        """Return what is to be told to Convert, in sending order (DESIGN, sections 5.5 and 5.6)."""
        reached = tuple(self.goals)
        triplets = self.visitor.triplets()
        if self.experiments:
            now = [triplet for triplet in triplets if triplet[0] in self.experiments]
            before = [triplet for triplet in triplets if triplet[0] not in self.experiments]
        else:
            now, before = [], triplets
        if not (reached or self.transactions):
            if not now:
                return []
            return [unchecked(Hit, (customer_id, project_id, tuple(now), len(now), (), 0, None))]
        exposures = (*now, *before)
        goals = (*reached, *[goal for goal in self.visitor.goals if goal not in reached])
        paid = self.transactions[0] if self.transactions else None
        first = unchecked(Hit, (customer_id, project_id, exposures, len(now), goals, len(reached), paid))
        further = [
            unchecked(Hit, (customer_id, project_id, exposures, 0, (), 0, paid))
            for paid in self.transactions[1:]
        ]
        return [first, *further]
