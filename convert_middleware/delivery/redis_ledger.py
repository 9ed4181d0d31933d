"""Who was first, for all processes that share one Redis, and what visitors are owed whose hits were lost.

It is asked in the delivery thread, for many visitors at once, and never on the way of a request.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

from convert_middleware.delivery.ledger import MAX_CLAIM_AGE, MAX_OWED
from convert_middleware.delivery.receipt import EXPOSURE, GOAL, TRANSACTION, Receipt
from convert_middleware.errors import OutboxError, UnansweredError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convert_middleware.delivery.redis_link import RedisLink

_KEYS: Final = ("owed", "owed changes")


class RedisLedger:
    """The claims of all processes that name the same Redis and prefix.

    Args:
        link: The connection.
        max_age: Seconds that claims, and what is owed, are remembered.
        max_owed: Visitors whose lost hits are made good.
    """

    def __init__(self, link: RedisLink, max_age: int = MAX_CLAIM_AGE, max_owed: int = MAX_OWED) -> None:
        self._link = link
        self._script = link.script("redis_ledger.lua", _KEYS)
        self._max_age = max_age
        self._max_owed = max_owed
        self.after_fork()

    def after_fork(self) -> None:
        """Forget in a forked child what the parent knew."""
        self._changes = 0
        self._owed: frozenset[str] = frozenset()
        self.lost: list[Receipt] = []  # was owed, and could not be made good

    def owes(self, visitor_id: str) -> bool:
        """Tell whether a hit of this visitor was lost and not made good, as far as this process heard."""
        return visitor_id in self._owed

    async def claim(self, wanted: Sequence[Receipt]) -> list[tuple[Receipt, Receipt | None]]:
        """Return of each what was granted, and what its visitor is owed besides.

        Args:
            wanted: What hits are about to tell.

        Raises:
            OutboxError: Redis cannot be asked.
        """
        granted, owed = await self._claim(wanted)
        if owed:
            # It was handed to us alone; whether somebody told of it meanwhile is another question.
            try:
                again, _ = await self._claim(list(owed.values()))
            except OutboxError:  # not now, then: it is given back and told with a later hit
                self.lost.extend(owed.values())
                owed = {}
            else:
                owed = dict(zip(owed, again, strict=True))
        return [(receipt, owed.get(place)) for place, receipt in enumerate(granted)]

    async def give_back(self, receipts: Sequence[Receipt]) -> None:
        """Take claims back: their hits are finally lost, and the visitors are owed others.

        Raises:
            OutboxError: Redis cannot be asked.
        """
        if receipts:
            texts = [receipt.to_text() for receipt in receipts]
            await self._ask("back", receipts, texts=texts, most=2 * self._max_owed)

    async def look(self) -> None:
        """Hear of what other processes owe.

        Raises:
            OutboxError: Redis cannot be asked.
        """
        await self._ask("look", ())

    async def _claim(self, wanted: Sequence[Receipt]) -> tuple[list[Receipt], dict[int, Receipt]]:
        answer = await self._ask("claim", wanted, token=secrets.token_hex(8))
        granted = [
            _part(receipt, set(fields)) for receipt, fields in zip(wanted, answer["granted"], strict=True)
        ]
        owed: dict[int, Receipt] = {}
        for place, texts in answer["owed"] or ():
            for text in texts.split("\n"):
                receipt = Receipt.from_text(text)
                owed[place - 1] = owed[place - 1].merge(receipt) if place - 1 in owed else receipt
        return granted, owed

    async def _ask(self, what: str, about: Sequence[Receipt], **asked: object) -> dict[str, Any]:
        asked |= {
            "age": self._max_age,
            "visitors": [receipt.visitor_id for receipt in about],
            "fields": [[f"{kind}{key}" for kind, key in receipt.claims()] for receipt in about],
        }
        keys = [self._link.key(f"claims:{receipt.visitor_id}") for receipt in about]
        try:
            answer = await self._link.run(self._script, what, asked, keys=keys)
        except UnansweredError:
            # Asked again with the same token, it answers the same.
            answer = await self._link.run(self._script, what, {**asked, "again": True}, keys=keys)
        if answer["changes"] != self._changes:
            visitors = await self._link.run(self._script, "owed", asked)
            self._owed = frozenset(visitors["visitors"] or ())
            self._changes = visitors["changes"]
        result: dict[str, Any] = answer
        return result


def _part(receipt: Receipt, granted: set[str]) -> Receipt:
    return Receipt(
        receipt.visitor_id,
        tuple([key for key in receipt.experiments if f"{EXPOSURE}{key}" in granted]),
        tuple([key for key in receipt.goals if f"{GOAL}{key}" in granted]),
        tuple([paid for paid in receipt.transactions if f"{TRANSACTION}{paid[0]}" in granted]),
    )
