"""What everybody who looks after an outbox must do; each kind that joins the project joins ``KINDS``."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest

from convert_middleware.delivery import Counts, Entry, Outbox, Worth
from convert_middleware.delivery.redis_streams import RedisOutbox
from convert_middleware.delivery.sqlite import SqliteOutbox
from convert_middleware.delivery.sqlite_upkeep import SqliteUpkeep
from convert_middleware.delivery.upkeep import Letter, Status, Upkeep, open_upkeep
from convert_middleware.errors import OutboxError, SettingsError
from tests.redis_server import RedisServer

from .conftest import balanced

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")
NOW: Final = time.time()


@dataclass(frozen=True)
class Kind:
    """A kind of outbox.

    Attributes:
        name: What it is called.
        join: Returns another process's view of the outbox in a folder, made if need be.
        leave: What such a process does at its end.
        url: Names it.
    """

    name: str
    join: Callable[[Path], Any]
    leave: Callable[[Any], Awaitable[None]]
    url: Callable[[Path], str]

    def __str__(self) -> str:
        return self.name


KINDS: Final = [
    Kind(
        "sqlite",
        lambda folder: SqliteOutbox(folder / "outbox.db"),
        SqliteOutbox.close,
        lambda folder: f"sqlite:///{folder}/outbox.db",
    ),
    Kind(
        "redis",
        lambda folder: RedisOutbox(SERVERS[0].url, prefix=prefix(folder)),
        RedisOutbox.close,
        lambda folder: f"{SERVERS[0].url}?prefix={prefix(folder)}",
    ),
]
SERVERS: Final[list[RedisServer]] = []
every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)


@pytest.fixture(scope="module", autouse=True)
def _redis() -> Iterator[None]:
    with RedisServer() as server:
        SERVERS[:] = [server]
        yield


def prefix(folder: Path) -> str:
    """Return a prefix that no other test has."""
    return str(folder).replace("/", "-")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def hit(text: str = "hit", worth: Worth = Worth.GOAL, accepted_at: float = NOW) -> Entry:
    return Entry(text, worth, accepted_at)


async def take(outbox: Outbox, number: int = 100) -> list[Entry]:
    return await outbox.take(number, NOW + 1)


async def bury(outbox: Any, *texts: str) -> None:
    """Have hits refused for good."""
    await outbox.put([hit(text) for text in texts])
    for entry in await take(outbox):
        entry.attempts += 1
        await outbox.bury(entry, "status 404")
    await outbox.commit()


async def letters(upkeep: Upkeep) -> list[Letter]:
    return await upkeep.dead(1000)


@every_kind
def test_the_status_tells_what_all_processes_together_have(kind: Kind, tmp_path: Path) -> None:
    async def story() -> Status:
        one, other = kind.join(tmp_path), kind.join(tmp_path)
        await bury(one, "refused")
        await one.put([hit("a", accepted_at=NOW - 60), hit("bc", accepted_at=NOW - 50)])
        (entry,) = await take(other, 1)
        entry.attempts += 1
        await other.retry(entry, NOW + 900)
        await other.put([hit("flies", accepted_at=NOW - 99), hit("ünd")])
        (flying, *rest) = await other.take(2, NOW + 1)
        await other.settle(rest[0])
        await other.commit()
        upkeep = open_upkeep(kind.url(tmp_path))
        status = await upkeep.status()
        assert flying.text == "bc"
        for each in (upkeep, one, other):
            await each.close()
        return status

    status = run(story())
    assert status == Status(waiting=2, retrying=1, in_flight=1, dead=1, bytes=5, oldest=NOW - 60, processes=2)


@every_kind
def test_an_empty_outbox_has_an_empty_status(kind: Kind, tmp_path: Path) -> None:
    async def story() -> Status:
        await kind.leave(kind.join(tmp_path))
        upkeep = open_upkeep(kind.url(tmp_path))
        status = await upkeep.status()
        assert await letters(upkeep) == []
        assert (await upkeep.purge_dead(), await upkeep.purge_waiting(), await upkeep.replay([], NOW)) == (
            0,
            0,
            0,
        )
        await upkeep.close()
        return status

    assert run(story()) == Status(0, 0, 0, 0, 0, None, 0)


@every_kind
def test_dead_letters_come_oldest_first_page_by_page_and_hide_their_text(kind: Kind, tmp_path: Path) -> None:
    async def story() -> list[Letter]:
        outbox = kind.join(tmp_path)
        await bury(outbox, *[f"secret {number}" for number in range(5)])
        await outbox.close()
        upkeep = open_upkeep(kind.url(tmp_path))
        found: list[Letter] = []
        while page := await upkeep.dead(2, found[-1].key if found else ""):
            assert len(page) <= 2
            found += page
        await upkeep.close()
        return found

    found = run(story())
    assert [letter.text for letter in found] == [f"secret {number}" for number in range(5)]
    assert len({letter.key for letter in found}) == 5
    assert {(one.worth, one.accepted_at, one.attempts, one.reason) for one in found} == {
        (Worth.GOAL, NOW, 1, "status 404")
    }
    assert all(one.died_at >= NOW for one in found)
    assert "secret" not in repr(found)


@every_kind
def test_a_letter_that_is_replayed_waits_once_as_new_and_processes_that_run_find_it(
    kind: Kind, tmp_path: Path
) -> None:
    async def story() -> None:
        outbox = kind.join(tmp_path)
        await bury(outbox, "a", "b", "c")
        assert await take(outbox) == []  # it has looked behind the last hit
        upkeep = open_upkeep(kind.url(tmp_path))
        first, second, third = await letters(upkeep)

        later = NOW + 7200
        assert await upkeep.replay([first.key, third.key, first.key, "9" * 18, "x", "", "-1"], later) == 2

        assert await letters(upkeep) == [second]
        status = await upkeep.status()
        assert (status.waiting, status.retrying, status.bytes, status.oldest) == (2, 0, 2, later)
        entries = await outbox.take(9, later)
        assert [(e.text, e.worth, e.accepted_at, e.attempts, e.waited) for e in entries] == [
            ("a", Worth.GOAL, later, 0, 0.0),
            ("c", Worth.GOAL, later, 0, 0.0),
        ]
        for entry in entries:
            await outbox.settle(entry)
        await outbox.commit()
        assert balanced(outbox.counts())
        assert outbox.counts() == Counts(accepted=5, delivered=2, dead=3)
        assert (await upkeep.status()).waiting == 0
        await upkeep.close()
        await outbox.close()

    run(story())


@every_kind
def test_purging_dead_letters_leaves_what_waits(kind: Kind, tmp_path: Path) -> None:
    async def story() -> None:
        outbox = kind.join(tmp_path)
        await bury(outbox, "a", "b")
        await outbox.put([hit()])
        upkeep = open_upkeep(kind.url(tmp_path))

        assert await upkeep.purge_dead() == 2

        status = await upkeep.status()
        assert (status.dead, status.waiting) == (0, 1)
        assert [entry.text for entry in await take(outbox)] == ["hit"]
        await upkeep.close()
        await outbox.close()

    run(story())


@every_kind
def test_purging_what_waits_leaves_what_is_under_way_and_its_owners_know(kind: Kind, tmp_path: Path) -> None:
    async def story() -> None:
        one, other = kind.join(tmp_path), kind.join(tmp_path)
        await bury(one, "refused")
        await one.put([hit("under way"), hit("a"), hit("b")])
        await other.put([hit("c"), hit("tried")])
        (flying,) = await take(one, 1)
        upkeep = open_upkeep(kind.url(tmp_path))

        assert await upkeep.purge_waiting() == 4

        status = await upkeep.status()
        assert (status.waiting, status.bytes, status.in_flight, status.dead) == (0, 0, 1, 1)
        await one.settle(flying)
        for outbox in (one, other):
            assert await take(outbox) == []
            await outbox.put([hit("later")])
            (later,) = await take(outbox)
            await outbox.settle(later)
            await outbox.commit()
            assert balanced(outbox.counts())
            assert outbox.counts().waiting == 0
        assert one.counts() == Counts(accepted=3, delivered=2, dead=1)
        assert other.counts() == Counts(accepted=1, delivered=1)
        await upkeep.close()
        for outbox in (one, other):
            await outbox.close()

    run(story())


def test_the_room_of_an_outbox_is_right_after_replaying_and_purging(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "outbox.db"
        outbox = SqliteOutbox(path, max_hits=3)
        await bury(outbox, "a", "b")
        upkeep = SqliteUpkeep(path)
        await upkeep.replay([letter.key for letter in await letters(upkeep)], NOW)
        await outbox.put([hit("c"), hit("d")])
        assert outbox.counts().dropped == {"overflow": 1}
        assert (await upkeep.status()).waiting == 3
        assert await upkeep.purge_waiting() == 3
        await outbox.put([hit(text) for text in "efg"])
        assert outbox.counts().dropped == {"overflow": 1}
        assert [entry.text for entry in await take(outbox)] == ["e", "f", "g"]
        await upkeep.close()
        await outbox.close()

    run(story())


def test_a_file_that_is_not_there_is_named_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.db', and there is no such file"):
        SqliteUpkeep(tmp_path / "missing.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no database at all, but rather long" * 200])
def test_a_file_that_is_no_outbox_is_named_and_left_as_it_is(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="is no outbox"):
        SqliteUpkeep(path)
    assert [each.name for each in tmp_path.iterdir()] == ["other.db"]
    assert path.read_bytes() == content


def test_a_database_of_another_program_or_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    run(SqliteOutbox(path).close())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(OutboxError, match="version 99"):
        SqliteUpkeep(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE dead")
    with pytest.raises(SettingsError, match="is no outbox"):
        SqliteUpkeep(path)


def test_a_file_that_is_busy_too_long_is_an_error_and_nothing_happened(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "outbox.db"
        outbox = SqliteOutbox(path)
        await outbox.put([hit()])
        upkeep = SqliteUpkeep(path, busy=0.05)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(OutboxError, match="delete what waits: SQLITE_BUSY"):
                await upkeep.purge_waiting()
            assert (await upkeep.status()).waiting == 1
        assert await upkeep.purge_waiting() == 1
        await upkeep.close()
        await outbox.close()

    run(story())


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("memory://", "only its own process can see it"),
        ("sqlite://outbox.db", "four slashes if absolute"),
        ("sqlite:///", "four slashes if absolute"),
        ("sqlite:////tmp/outbox.db?colour=red", "max_hits and max_bytes"),
        ("", "must be 'sqlite:///path/to/file'"),
        ("nonsense", "must be 'sqlite:///path/to/file'"),
        ("mongo://me:secret@host", "not one that begins with 'mongo'"),
    ],
)
def test_a_url_that_names_no_shared_outbox_is_refused_without_its_password(url: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint) as caught:
        open_upkeep(url)
    assert "secret" not in str(caught.value)
