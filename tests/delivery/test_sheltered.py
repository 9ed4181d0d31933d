"""Memory in front of a real file, when they part."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

from convert_middleware.delivery import Counts, Entry, ShelteredOutbox, Worth
from convert_middleware.delivery.sqlite import SqliteOutbox

if TYPE_CHECKING:
    from pathlib import Path

NOW: Final = 1_800_000_000.0


def _say(_: object) -> None:
    """Hear of a file that fails; the account is what these tests look at."""


def test_a_retry_that_the_file_could_not_note_by_the_end_waits_in_memory_and_troubles_no_later_start(
    tmp_path: Path,
) -> None:
    path = tmp_path / "outbox.db"

    async def story() -> None:
        outbox = ShelteredOutbox(SqliteOutbox(path, busy=0.05), _say)
        await outbox.put([Entry("tried", Worth.GOAL, NOW)])
        (tried,) = await outbox.take(1, NOW)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await outbox.retry(tried, NOW + 1)
            await outbox.leave(NOW)
        assert outbox.counts() == Counts(1, waiting=1)
        assert outbox.in_memory() == 1

        await outbox.put([Entry("new", Worth.GOAL, NOW)])
        taken = await outbox.take(9, NOW + 60)
        assert sorted(entry.text for entry in taken) == ["new", "tried"]
        for entry in taken:
            await outbox.settle(entry)
        await outbox.leave(NOW + 60)
        assert outbox.counts() == Counts(2, delivered=2)

    asyncio.run(story())
