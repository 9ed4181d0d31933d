"""Looking after an outbox in Redis."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from convert_middleware.delivery.receipt import Receipt
from convert_middleware.delivery.redis_ledger import RedisLedger
from convert_middleware.delivery.redis_link import RedisLink
from convert_middleware.delivery.redis_streams import KEYS, PREFIX
from convert_middleware.delivery.upkeep import Letter, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

_TOGETHER: Final = 500  # hits in one step; Redis serves nobody else meanwhile
_KEY: Final = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")


class RedisUpkeep:
    """Looks after the outbox of all processes that name the same Redis and prefix.

    Args:
        url: As redis-py takes it.
        prefix: Begins every key.

    Raises:
        SettingsError: It is no such URL, or the ``redis`` package is missing.
    """

    def __init__(self, url: str, *, prefix: str = PREFIX) -> None:
        self._link = RedisLink(url, prefix)
        self._script = self._link.script("redis_streams.lua", KEYS)
        self._ledger = RedisLedger(self._link)

    async def status(self) -> Status:
        """Return what the outbox holds; of many retries only some are asked for their age."""
        found = await self._ask("status")
        if not found["epoch"]:  # nobody ever used it
            return Status(0, 0, 0, 0, 0, None, 0)
        oldest = found.get("oldest")
        return Status(
            found["waiting"],
            found["retrying"],
            found["in_flight"],
            found["dead"],
            found["bytes"],
            None if oldest is None else float(oldest),
            found["processes"],
        )

    async def dead(self, number: int, after: str = "") -> list[Letter]:
        """See :class:`~convert_middleware.delivery.upkeep.Upkeep`."""
        first = f"({after}" if _KEY.fullmatch(after) else "-"
        found = await self._ask("letters", number=number, after=first)
        return [
            Letter(key, int(worth), float(accepted_at), float(died_at), int(attempts), reason, text)
            for key, worth, accepted_at, died_at, attempts, reason, text in found.get("letters") or ()
        ]

    async def replay(self, keys: Sequence[str], now: float) -> int:
        """See :class:`~convert_middleware.delivery.upkeep.Upkeep`."""
        letters = [key for key in keys if _KEY.fullmatch(key)]
        risen = 0
        for first in range(0, len(letters), _TOGETHER):
            found = await self._ask("replay", letters=letters[first : first + _TOGETHER], now=repr(now))
            risen += found.get("entered", 0)
        return risen

    async def purge_dead(self) -> int:
        """See :class:`~convert_middleware.delivery.upkeep.Upkeep`; their visitors are owed other hits."""
        return await self._purge("purge_dead")

    async def purge_waiting(self) -> int:
        """See :class:`~convert_middleware.delivery.upkeep.Upkeep`; their visitors are owed other hits."""
        return await self._purge("purge_waiting")

    async def close(self) -> None:
        """See :class:`~convert_middleware.delivery.upkeep.Upkeep`."""
        await self._link.close()

    async def _purge(self, what: str) -> int:
        gone = 0
        while number := (found := await self._ask(what, number=_TOGETHER)).get("dropped", 0):
            gone += number
            await self._ledger.give_back([Receipt.from_text(text) for text in found["sacrificed"] if text])
        return gone

    async def _ask(self, what: str, **asked: object) -> dict[str, Any]:
        found: dict[str, Any] = await self._link.run(self._script, what, {**asked, "me": ""})
        return found
