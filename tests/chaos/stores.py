"""The outboxes that chaos is let loose on, and what killed processes leave in them."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import redis

from convert_middleware.delivery.redis_streams import KEYS, PREFIX, RedisOutbox
from convert_middleware.delivery.sqlite import LEASE, SqliteOutbox
from convert_middleware.delivery.upkeep import Status, open_upkeep
from tests.chaos.collector import number_of
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

_MANY: Final = 1_000


class Left(NamedTuple):
    """What killed processes left.

    Attributes:
        in_doubt: The hits they were sending, which may have arrived.
        interrupted: How many a survivor counts as such, once their leases are over.
    """

    in_doubt: list[int]
    interrupted: int


class Store(Protocol):
    """An outbox that several processes use."""

    url: str

    def held(self) -> set[int]:
        """Return the numbers of the hits that some process holds at the moment."""

    async def take_over(self, *, repeat: bool) -> tuple[list[str], int]:
        """Let all leases end; return what a survivor takes then, and how many it counts as interrupted."""


class File:
    """A file of SQLite."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "outbox.db"
        self._now = time.time()
        self.url = f"sqlite:///{self._path}"

    def held(self) -> set[int]:
        """See :class:`Store`."""
        with closing(sqlite3.connect(self._path)) as connection:
            rows = connection.execute("SELECT text FROM hits WHERE holder IS NOT NULL").fetchall()
        return {number_of(f"?{text}") for (text,) in rows}

    async def take_over(self, *, repeat: bool) -> tuple[list[str], int]:
        """See :class:`Store`."""
        self._now = max(self._now, time.time()) + 2 * LEASE
        outbox = SqliteOutbox(self._path, repeat_expired=repeat, clock=lambda: self._now)
        taken = [entry.text for entry in await outbox.take(_MANY, float("inf"))]
        outbox.disconnect()  # and hold what it took, like a process that was killed
        return taken, outbox.counts().dropped.get("interrupted", 0)


class Redis:
    """A server that speaks Redis."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.url = server.url

    def held(self) -> set[int]:
        """See :class:`Store`."""
        found = set()
        client: Any = redis.Redis.from_url(self.url, decode_responses=True)
        with closing(client):
            for stream in (f"{{{PREFIX}}}:{name}" for name in KEYS[:4]):
                for pending in client.xpending_range(stream, "senders", "-", "+", _MANY):
                    for _, fields in client.xrange(stream, pending["message_id"], pending["message_id"]):
                        found.add(number_of(f"?{fields['t']}"))
        return found

    async def take_over(self, *, repeat: bool) -> tuple[list[str], int]:
        """See :class:`Store`."""
        self._server.say("DEL", f"{{{PREFIX}}}:alive")
        outbox = RedisOutbox(self.url, repeat_expired=repeat)
        taken = [entry.text for entry in await outbox.take(_MANY, float("inf"))]
        await outbox.link.close()
        return taken, outbox.counts().dropped.get("interrupted", 0)


@contextmanager
def opened(kind: str) -> Iterator[Store]:
    """Make an outbox of a kind, "sqlite" or "redis", for the time of a run."""
    if kind == "redis":
        with RedisServer() as server:
            yield Redis(server)
    else:
        with TemporaryDirectory() as folder:
            yield File(Path(folder))


def status_of(store: Store) -> Status:
    """Return what an outbox holds."""

    async def ask() -> Status:
        upkeep = open_upkeep(store.url)
        try:
            return await upkeep.status()
        finally:
            await upkeep.close()

    return asyncio.run(ask())


def left_in(store: Store) -> Left:
    """Return what killed processes left; nothing else may use the outbox, nor later."""

    async def look() -> Left:
        texts, _ = await store.take_over(repeat=True)
        _, interrupted = await store.take_over(repeat=False)
        return Left([number_of(f"?{text}") for text in texts], interrupted)

    return asyncio.run(look())
