"""Who was first, and what was seen lately: bounded memories of one process.

Two parallel responses may both believe that a goal is new; the ledger, asked when a hit is built, says yes to
one of them. Time is handed in.
"""

from __future__ import annotations

import threading
from typing import Final, Generic, TypeVar

from convert_middleware.delivery.receipt import EXPOSURE, GOAL, TRANSACTION, Receipt

K = TypeVar("K")
V = TypeVar("V")

MAX_CLAIMS: Final = 100_000
MAX_CLAIM_AGE: Final = 86_400  # seconds; after that the visitor's cookie alone remembers
MAX_OWED: Final = 5_000  # visitors at least whose lost hits are made good


class Recent(Generic[K, V]):
    """A map that keeps the last ``size`` entries at least, and twice as many at most.

    It has two generations; when the young one is full it becomes the old one, and what was old is forgotten
    at once. So nothing is moved, searched or freed for a single entry, and no lock is needed.

    Args:
        size: How many entries are kept at least.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """Return what was put there last, None if that is too long ago."""
        found = self._young.get(key)
        return found if found is not None else self._old.get(key)

    def put(self, key: K, value: V) -> None:
        """Remember ``value``."""
        young = self._young
        young[key] = value
        if len(young) >= self._size:
            self._age()

    def first(self, key: K, value: V) -> V:
        """Remember ``value`` if nothing is there, and return what is there; atomic between threads."""
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
        if found is None:
            found = self._young.setdefault(key, value)
            if found is value:
                # Another thread may have made the young generation the old one between the two looks.
                found = self._old.get(key, value)
            if len(self._young) >= self._size:
                self._age()
        return found

    def forget(self, key: K) -> None:
        """Remove what is there."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def _age(self) -> None:
        young = self._young
        # Of several threads that find it full only one may make room, or a whole generation is lost.
        if len(young) >= self._size and young is self._young:
            self._old, self._young = young, {}


class Ledger:
    """The claims of one process.

    A claim is kept as text with its time as a float, and not as tuples: the garbage collector looks at every
    one of those again and again, and pages wait for it.

    Args:
        size: How many claims are remembered at least; the oldest are forgotten first.
        max_age: Seconds a claim is remembered.
    """

    def __init__(self, size: int = MAX_CLAIMS, max_age: float = MAX_CLAIM_AGE) -> None:
        self._claims: Recent[str, float] = Recent(size)  # when each was made
        self._max_age = max_age
        self.after_fork()

    def after_fork(self) -> None:
        """Owe nothing in a forked child: what was lost before is the parent's to make good."""
        self._owed: Recent[str, Receipt] = Recent(MAX_OWED)
        self.owes_anybody = False  # so that hardly anybody has to be looked for
        self._lock = threading.RLock()  # reentrant, for destructors that record while it is held

    def claim(self, visitor_id: str, kind: str, key: int | str, now: float) -> bool:
        """Return True to the first who asks. Never blocks; safe from any thread.

        Args:
            visitor_id: The visitor.
            kind: What is claimed: EXPOSURE, GOAL or TRANSACTION.
            key: Of which id.
            now: Seconds since the epoch.
        """
        claim = _text(visitor_id, kind, key)
        mine = now + 0.0  # a number of its own, told from an equal one by its identity
        found = self._claims.first(claim, mine)
        if found is mine:
            return True
        if now - found <= self._max_age:
            return False
        # Run out: of those who see that, the first to claim this very renewal.
        if self._claims.first(f"{found} {claim}", mine) is not mine:
            return False
        self._claims.put(claim, mine)
        return True

    def give_back(self, receipt: Receipt) -> None:
        """Take claims back: the hit they were made for is finally lost, and its visitor is owed another."""
        visitor_id = receipt.visitor_id
        with self._lock:
            self.release(receipt)
            before = self._owed.get(visitor_id)
            if before is not None:
                receipt = before.merge(receipt)
            self._owed.put(visitor_id, receipt)
            self.owes_anybody = True

    def release(self, receipt: Receipt) -> None:
        """Take claims back that others look after."""
        for kind, key in receipt.claims():
            self._claims.forget(_text(receipt.visitor_id, kind, key))

    def owes(self, visitor_id: str) -> bool:
        """Tell whether a hit of this visitor was lost and not made good yet."""
        return self.owes_anybody and self._owed.get(visitor_id) is not None

    def make_good(self, visitor_id: str, now: float) -> Receipt | None:
        """Return what is owed to a visitor, to the first who asks, and claim it again.

        Args:
            visitor_id: The visitor.
            now: Seconds since the epoch.
        """
        if not self.owes_anybody:
            return None
        with self._lock:
            owed = self._owed.get(visitor_id)
            self._owed.forget(visitor_id)
        if owed is None:
            return None
        return Receipt(
            visitor_id,
            tuple([key for key in owed.experiments if self.claim(visitor_id, EXPOSURE, key, now)]),
            tuple([key for key in owed.goals if self.claim(visitor_id, GOAL, key, now)]),
            tuple([paid for paid in owed.transactions if self.claim(visitor_id, TRANSACTION, paid[0], now)]),
        )

    def forget(self, visitor_id: str) -> None:
        """Owe a visitor nothing any more."""
        with self._lock:
            self._owed.forget(visitor_id)


def _text(visitor_id: str, kind: str, key: int | str) -> str:
    return f"{visitor_id}:{kind}{key}"
