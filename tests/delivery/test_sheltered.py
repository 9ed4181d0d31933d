"""Memory in front of a real file, when they part."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from convert_middleware.delivery import Counts, Entry, ShelteredOutbox, Worth
from convert_middleware.delivery.redis_streams import RedisOutbox
from convert_middleware.delivery.sheltered import LONGEST_REST, REST
from convert_middleware.delivery.sqlite import SqliteOutbox
from tests.servers import refused_port

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


class Seconds:
    """A timer that goes on when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow(RedisOutbox):
    """Takes its time to find out that nobody answers."""

    patience = 4.0

    def __init__(self, url: str, seconds: Seconds) -> None:
        super().__init__(url)
        self._seconds = seconds

    async def put(self, entries: list[Entry]) -> None:
        self._seconds.now += self.patience
        await super().put(entries)


def test_a_store_that_fails_slowly_is_tried_less_and_less_and_memory_delivers_meanwhile() -> None:
    async def story(port: int) -> list[float]:
        seconds = Seconds()
        outbox = ShelteredOutbox(Slow(f"redis://127.0.0.1:{port}/0", seconds), _say, timer=seconds)
        tried = []
        for _ in range(150):
            began = seconds.now
            outbox.offer(Entry("new", Worth.GOAL, NOW))
            await outbox.keep(NOW + began)
            if seconds.now > began:
                tried.append(began)
            (entry,) = await outbox.take(9, NOW + seconds.now)
            await outbox.settle(entry)
            seconds.now += 1.0
        return [later - earlier for earlier, later in pairwise(tried)]

    with refused_port() as port:
        pauses = asyncio.run(story(port))

    assert pauses[:4] == [Slow.patience + REST * factor for factor in (1, 2, 4, 8)]
    assert max(pauses) == pauses[-1] == Slow.patience + LONGEST_REST


def test_a_process_that_holds_nothing_gives_a_sign_of_life_because_others_take_what_it_left(
    tmp_path: Path,
) -> None:
    path = tmp_path / "outbox.db"

    async def story() -> list[float]:
        now = [NOW]
        outbox = ShelteredOutbox(SqliteOutbox(path, clock=lambda: now[0]), _say)
        await outbox.put([Entry("waits", Worth.GOAL, NOW)])
        alive_until = []
        for _ in range(3):
            now[0] += 10.0
            await outbox.keep(now[0])
            with closing(sqlite3.connect(path)) as file:
                alive_until += [until for (until,) in file.execute("SELECT alive_until FROM accounts")]
        await outbox.leave(now[0])
        return alive_until

    assert asyncio.run(story()) == [NOW + 40.0, NOW + 50.0, NOW + 60.0]
