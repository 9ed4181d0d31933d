"""Who was first: claims on what may count once per visitor.

Two parallel responses may both believe that a goal is new; the ledger, asked when a hit is built, says yes to
one of them. It is bounded and forgets; time is handed in.
"""

from __future__ import annotations

from typing import Final

MAX_CLAIMS: Final = 200_000
MAX_CLAIM_AGE: Final = 86_400  # seconds; after that the visitor's cookie alone remembers

Claim = tuple[str, str, int | str]  # visitor id, kind, id


class Ledger:
    """The ledger of one process.

    Args:
        size: How many claims are remembered; the oldest are forgotten first.
        max_age: Seconds a claim is remembered.
    """

    def __init__(self, size: int = MAX_CLAIMS, max_age: float = MAX_CLAIM_AGE) -> None:
        self._claims: dict[Claim, tuple[float]] = {}
        self._size = size
        self._max_age = max_age

    def claim(self, claim: Claim, now: float) -> bool:
        """Return True to the first who asks. Never blocks; safe from any thread."""
        mine = (now,)
        # setdefault is atomic: exactly one of several threads finds its own tuple there.
        found = self._claims.setdefault(claim, mine)
        if found is not mine:
            if now - found[0] <= self._max_age:
                return False
            self._claims.pop(claim, None)
            return self.claim(claim, now)
        if len(self._claims) > self._size:
            self._forget_oldest()
        return True

    def _forget_oldest(self) -> None:
        try:
            self._claims.pop(next(iter(self._claims)), None)
        except (StopIteration, RuntimeError):  # another thread emptied or changed it meanwhile
            return
