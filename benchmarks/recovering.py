"""Row 8: how long a backlog takes to leave once the server is back, against the sender alone."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from benchmarks.children import child, cores
from benchmarks.figures import Line, compare
from benchmarks.visitors import queries
from convert_middleware.delivery import Entry, MemoryOutbox, Policy, ShelteredOutbox, Worth
from convert_middleware.delivery.redis_streams import RedisOutbox
from convert_middleware.delivery.senders.choose import make_sender
from convert_middleware.delivery.sqlite import SqliteOutbox
from convert_middleware.delivery.worker import LANES, Worker
from convert_middleware.hooks import Announcer
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from convert_middleware.delivery import Sender
    from convert_middleware.errors import ConvertError

_PATIENCE: Final = 300.0  # seconds


def recovering(*, quick: bool) -> list[Line]:
    """Row 8: seconds in which a backlog of 100 000 hits is sent."""
    hits, rounds = (300, 1) if quick else (100_000, 1)
    _, world = cores() or (None, None)
    times: dict[str, list[float]] = {}
    with ExitStack() as running:
        port = running.enter_context(child("world", "server", core=world)).ask()["port"]
        redis = running.enter_context(RedisServer(appendonly="no"))
        folder = running.enter_context(TemporaryDirectory())
        sender = make_sender("auto", f"http://127.0.0.1:{port}/track/")
        outboxes: dict[str, Callable[[], MemoryOutbox]] = {
            "memory": MemoryOutbox,
            "SQLite": lambda: ShelteredOutbox(SqliteOutbox(f"{folder}/outbox.db"), _must_not),
            "Redis": lambda: ShelteredOutbox(RedisOutbox(redis.url), _must_not),
        }
        for _ in range(rounds):
            times.setdefault("sender", []).append(asyncio.run(_alone(sender(), hits)))
            for name, make in outboxes.items():
                times.setdefault(name, []).append(asyncio.run(_drain(make(), sender(), hits)))
    return [
        compare("8", f"{name}: {hits} waiting hits sent, vs the sender alone", "s", took, times["sender"])
        for name, took in times.items()
        if name != "sender"
    ]


async def _drain(outbox: MemoryOutbox, sender: Sender, hits: int) -> float:
    """Return how long a worker takes for so many hits that wait."""
    texts = list(queries(1000, seed=1))
    now = time.time()
    for first in range(0, hits, 1000):
        some = range(first, min(first + 1000, hits))
        await outbox.put([Entry(texts[at % 1000], Worth.GOAL, now) for at in some])
    worker = Worker(outbox, lambda: sender, Policy(), Announcer((), time.monotonic), time.time)
    start = time.perf_counter()
    worker.stop(time.monotonic() + _PATIENCE)
    await worker.run()
    took = time.perf_counter() - start
    if outbox.counts().delivered != hits:
        raise RuntimeError(f"not everything was delivered: {outbox.counts()}")
    return took


async def _alone(sender: Sender, hits: int) -> float:
    """Return how long the sender takes for so many texts over as many lanes as a worker has."""
    texts = list(queries(1000, seed=1))
    await sender.open()

    async def lane(numbers: Iterator[int]) -> None:
        for number in numbers:
            await sender.send(texts[number % 1000])

    numbers = iter(range(hits))
    start = time.perf_counter()
    await asyncio.gather(*[lane(numbers) for _ in range(LANES)])
    took = time.perf_counter() - start
    await sender.close()
    return took


def _must_not(error: ConvertError | None) -> None:
    if error is not None:
        raise RuntimeError("the store failed") from error
