"""Row 6: CPU time of a hit through the outboxes that outlive a process, against bare statements.

Bare is, in batches of the same size, for SQLite one INSERT and one DELETE a hit with the same pragmas, one
transaction a batch; for Redis one XADD and one XACK a hit, a pipeline a batch, and one XREADGROUP a batch.
What the server does is not in the figures. Run alone: ``python -m benchmarks.outboxes``.
"""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import sys
from collections.abc import Callable, Coroutine
from contextlib import closing, contextmanager
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import thread_time_ns
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import Redis

from benchmarks.figures import Line, compare, load, machine, table
from benchmarks.visitors import queries
from convert_middleware.delivery import Entry, Worth
from convert_middleware.delivery.redis_streams import RedisOutbox
from convert_middleware.delivery.sqlite import SqliteOutbox
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

BAR: Final = 4.0
_NOW: Final = 1_800_000_000.0
_BATCHES: Final = (16, 100, 500)  # lanes of the worker; what gathers on a busy site

Pass = Callable[[list[str]], object]


def outboxes(*, quick: bool) -> list[Line]:
    """Row 6: from put to settled, for each hit."""
    rounds, hits = (2, 500) if quick else (20, 4000)
    lines = []
    with TemporaryDirectory() as folder:
        for batch in _BATCHES:
            with (
                _bare(Path(folder) / f"bare-{batch}.db") as bare,
                _ours(Path(folder) / f"{batch}.db") as ours,
            ):
                times = _times({"ours": ours, "bare": bare}, batch, hits, rounds)
            what = f"SQLite: a hit put, taken and settled, batches of {batch}, vs INSERT + DELETE"
            lines.append(compare("6", what, "µs", times["ours"], times["bare"], bar=BAR))
    with RedisServer() as server, asyncio.Runner() as loop:
        for batch in _BATCHES:
            with _bare_redis(server.url, loop) as bare, _our_redis(server.url, loop) as ours:
                times = _times({"ours": ours, "bare": bare}, batch, hits, rounds)
            what = f"Redis: a hit put, taken and settled, batches of {batch}, vs XADD + XREADGROUP + XACK"
            lines.append(compare("6", what, "µs", times["ours"], times["bare"], bar=BAR))
    return lines


def _times(passes: dict[str, Pass], batch: int, hits: int, rounds: int) -> dict[str, list[float]]:
    """Return microseconds of CPU time a hit, one figure a round, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in passes}
    names = list(passes)
    texts = cycle(list(queries(1000, seed=1)))
    for number in range(rounds + 1):
        for name in names if number % 2 else reversed(names):
            batches = [list(islice(texts, batch)) for _ in range(-(-hits // batch))]
            gc.collect()
            start = thread_time_ns()
            for one in batches:
                passes[name](one)
            took = thread_time_ns() - start
            if number:
                times[name].append(took / len(batches) / batch / 1000)
    return times


@contextmanager
def _ours(path: Path) -> Iterator[Pass]:
    outbox = SqliteOutbox(path)

    async def through(texts: list[str]) -> None:
        await outbox.put([Entry(text, Worth.GOAL, _NOW) for text in texts])
        for entry in await outbox.take(len(texts), _NOW):
            await outbox.settle(entry)

    try:
        yield lambda texts: _run(through(texts))
    finally:
        _run(outbox.commit())
        counts = outbox.counts()
        outbox.disconnect()
        if counts.accepted != counts.delivered:
            raise RuntimeError(f"not all hits came through: {counts}")


@contextmanager
def _bare(path: Path) -> Iterator[Pass]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("CREATE TABLE hits (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")

        def through(texts: list[str]) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO hits (text) VALUES (?)", [(text,) for text in texts])
            connection.execute("COMMIT")
            connection.execute("BEGIN IMMEDIATE")
            numbers = [(number,) for number in range(1, len(texts) + 1)]
            if connection.executemany("DELETE FROM hits WHERE id = ?", numbers).rowcount != len(texts):
                raise RuntimeError("not all rows were deleted")
            connection.execute("COMMIT")

        yield through


@contextmanager
def _our_redis(url: str, loop: asyncio.Runner) -> Iterator[Pass]:
    outbox = RedisOutbox(url)

    async def through(texts: list[str]) -> None:
        for first in range(0, len(texts), outbox.batch):
            some = texts[first : first + outbox.batch]
            await outbox.put([Entry(text, Worth.GOAL, _NOW) for text in some])
            for entry in await outbox.take(len(some), _NOW):
                await outbox.settle(entry)

    try:
        yield lambda texts: loop.run(through(texts))
    finally:
        loop.run(outbox.close())
        counts = outbox.counts()
        if counts.accepted != counts.delivered:
            raise RuntimeError(f"not all hits came through: {counts}")


@contextmanager
def _bare_redis(url: str, loop: asyncio.Runner) -> Iterator[Pass]:
    client: Any = Redis.from_url(url)  # its methods are typed as if they might not be asynchronous

    async def begin() -> None:
        await client.delete("bare")
        await client.xgroup_create("bare", "group", id="0", mkstream=True)

    async def through(texts: list[str]) -> None:
        async with client.pipeline(transaction=False) as line:
            for text in texts:
                line.xadd("bare", {"t": text})
            await line.execute()
        found = await client.xreadgroup("group", "me", {"bare": ">"}, count=len(texts))
        async with client.pipeline(transaction=False) as line:
            for number, _ in found[0][1]:
                line.xack("bare", "group", number)
            if await line.execute() != [1] * len(texts):
                raise RuntimeError("not all hits were acknowledged")

    try:
        loop.run(begin())
        yield lambda texts: loop.run(through(texts))
    finally:
        loop.run(client.aclose())


def _run(coroutine: Coroutine[Any, Any, object]) -> None:
    """Run what waits for nothing, without a loop."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise RuntimeError("the outbox waits for something, so it cannot be measured like this")


if __name__ == "__main__":
    print(table(outboxes(quick="--quick" in sys.argv)))
    print(f"\n{machine()}, {load()}")
