"""What a store that does not work at the moment still owes to who withdraws."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from convert_middleware.delivery import Counts, Entry, Receipt, ShelteredOutbox, Worth
from convert_middleware.delivery.sqlite import SqliteOutbox
from convert_middleware.errors import OutboxError

if TYPE_CHECKING:
    from pathlib import Path

NOW: Final = 1_800_000_000.0
ANNA: Final = "a" * 32
BERT: Final = "b" * 32


class Stubborn(SqliteOutbox):
    """A store that takes nothing back while it does not work."""

    works = True

    async def retry(self, entry: Entry, due: float) -> None:
        if not self.works:
            raise OutboxError("outbox.db", "note a retry", "SQLITE_FULL")
        await super().retry(entry, due)


def test_a_retry_that_the_store_could_not_note_goes_with_its_visitor(tmp_path: Path) -> None:
    async def story() -> None:
        store = Stubborn(str(tmp_path / "outbox.db"))
        outbox = ShelteredOutbox(store, lambda _: None)
        await outbox.put(
            [Entry(who[0], Worth.GOAL, NOW, visitor=who, receipt=Receipt(who)) for who in (ANNA, BERT)]
        )
        taken = await outbox.take(2, NOW)
        store.works = False
        for entry in taken:
            await outbox.retry(entry, NOW + 1)
        store.works = True

        assert await outbox.purge(ANNA) == 1
        assert outbox.counts().dropped == {"withdrawn": 1}
        (left,) = await outbox.take(2, NOW + 100)
        assert left.text == "b"
        await outbox.settle(left)
        assert outbox.counts() == Counts(2, 1, 0, 0, 0, {"withdrawn": 1})
        await outbox.leave(NOW)

    asyncio.run(story())
