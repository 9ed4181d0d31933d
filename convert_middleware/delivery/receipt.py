"""What a hit claimed, kept beside it until it is delivered or lost."""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from convert_middleware.model import Transaction

# What a visitor can claim, as ledgers write it before an id.
EXPOSURE: Final = "e"
GOAL: Final = "g"
TRANSACTION: Final = "t"


class Receipt(NamedTuple):
    """What a hit claimed; it goes back to the ledger if the hit is finally lost.

    Attributes:
        visitor_id: Whose hit it was.
        experiments: Exposures it told of.
        goals: Goals it told of.
        transactions: Orders it told of, by id, with what is needed to tell of them again.
    """

    visitor_id: str
    experiments: tuple[int, ...] = ()
    goals: tuple[int, ...] = ()
    transactions: tuple[tuple[str, object], ...] = ()

    def claims(self) -> list[tuple[str, int | str]]:
        """Return kind and id of each claim."""
        claims: list[tuple[str, int | str]] = [(EXPOSURE, key) for key in self.experiments]
        claims += [(GOAL, key) for key in self.goals]
        claims += [(TRANSACTION, key) for key, _ in self.transactions]
        return claims

    def merge(self, other: Receipt) -> Receipt:
        """Return both, with nothing twice."""
        return Receipt(
            self.visitor_id,
            tuple(dict.fromkeys(self.experiments + other.experiments)),
            tuple(dict.fromkeys(self.goals + other.goals)),
            tuple(dict(self.transactions + other.transactions).items()),
        )

    def to_text(self) -> str:
        """Return it as text, for a store that other processes share."""
        paid = [
            [key, each.goals, str(each.value), each.products]
            for key, each in self.transactions
            if isinstance(each, Transaction)
        ]
        return json.dumps([self.visitor_id, self.experiments, self.goals, paid], separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Receipt:
        """Return what :meth:`to_text` wrote.

        Raises:
            ValueError: It is something else.
        """
        try:
            visitor_id, experiments, goals, paid = json.loads(text)
            orders = [
                (key, Transaction(goals=tuple(booked), transaction_id=key, value=value, products=products))
                for key, booked, value, products in paid
            ]
            return cls(str(visitor_id), tuple(experiments), tuple(goals), tuple(orders))
        except (TypeError, RecursionError) as error:
            raise ValueError("no receipt") from error
