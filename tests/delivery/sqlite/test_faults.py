"""Files that are no database, of somebody else, full, read-only or gone."""

from __future__ import annotations

import asyncio
import pickle
import shutil
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

import pytest

from convert_middleware.delivery import Counts, Entry, Worth
from convert_middleware.delivery.sqlite import SqliteOutbox
from convert_middleware.errors import OutboxError, SettingsError
from tests.delivery.sqlite.children import child

T = TypeVar("T")
NOW: Final = 1_800_000_000.0


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def hits(number: int) -> list[Entry]:
    return [Entry(f"{n} " + "x" * 400, Worth.GOAL, NOW) for n in range(number)]


def fill(path: Path, number: int = 200) -> None:
    outbox = SqliteOutbox(path)
    run(outbox.put(hits(number)))
    run(outbox.close())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:8192] + b"garbage!" * (size // 8))


BREAK: Final[dict[str, Callable[[Path], Any]]] = {
    "garbage": lambda path: path.write_bytes(b"no database at all " * 1000),
    "a few bytes of garbage": lambda path: path.write_bytes(b"oops"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "truncated": truncate,
    "truncated within the first page": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "garbage behind a sound start": garble,
}


@pytest.mark.parametrize("broken", BREAK)
def test_a_broken_file_is_set_aside_and_counted_and_a_new_one_begun(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "outbox.db"
    for number in (1, 2):
        fill(path)
        BREAK[broken](path)
        spoiled = path.read_bytes()
        outbox = SqliteOutbox(path)

        assert outbox.set_aside == 1
        assert Path(f"{path}.corrupt-{number}").read_bytes() == spoiled
        run(outbox.put(hits(3)))
        assert len(run(outbox.take(9, NOW))) == 3
        run(outbox.close())
        assert SqliteOutbox(path).set_aside == 0


def test_an_empty_file_becomes_an_outbox(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    path.touch()
    fill(path, 1)

    assert len(run(SqliteOutbox(path).take(9, NOW))) == 1


def test_of_many_processes_that_start_on_a_broken_file_one_sets_it_aside(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    path.write_bytes(b"no database " * 1000)
    script = """
        sys.stdin.readline()
        outbox = SqliteOutbox(PATH)
        run(outbox.put(hits(0, 5)))
        say(outbox.set_aside)
        run(outbox.close())
    """
    with child(path, script) as first, child(path, script) as second, child(path, script) as third:
        for one in (first, second, third):
            one.tell()
        told = [one.rest() for one in (first, second, third)]

    assert sorted(told) == [["0"], ["0"], ["1"]]
    assert [found.name for found in tmp_path.glob("*corrupt*")] == ["outbox.db.corrupt-1"]
    assert len(run(SqliteOutbox(path).take(99, NOW))) == 15


def test_a_missing_directory_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"outbox is .*there is no directory .*gone.*; create it first"
    ) as caught:
        SqliteOutbox(tmp_path / "gone" / "outbox.db")
    assert caught.value.option == "outbox"


def test_a_directory_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="which is a directory; name a file in it"):
        SqliteOutbox(tmp_path)


def test_a_file_of_another_version_is_left_alone_and_named(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    fill(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 7")
    before = path.read_bytes()

    outbox = SqliteOutbox(path)
    with pytest.raises(OutboxError, match="written in version 7 and this package writes 2; empty it"):
        run(outbox.put(hits(1)))
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_left_alone_and_named(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    before = path.read_bytes()

    with pytest.raises(SettingsError, match="a database of another program; name another file"):
        SqliteOutbox(path)
    assert path.read_bytes() == before


def test_a_file_that_vanished_is_one_error_and_then_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    outbox = SqliteOutbox(path)
    run(outbox.put(hits(5)))
    delivered, again = run(outbox.take(2, NOW))
    path.unlink()
    with pytest.raises(OutboxError, match="failed to find its file: it is gone"):
        run(outbox.put(hits(1)))
    run(outbox.settle(delivered))
    run(outbox.retry(again, NOW))

    assert outbox.counts() == Counts(5, 1, 1, 0, 0, {"file lost": 3})
    assert [entry.text for entry in run(outbox.take(9, NOW))] == [again.text]


def test_while_the_directory_is_gone_everything_is_an_error_that_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "data" / "outbox.db"
    path.parent.mkdir()
    outbox = SqliteOutbox(path)
    run(outbox.put(hits(2)))
    (flying,) = run(outbox.take(1, NOW))
    shutil.rmtree(path.parent)
    for _ in range(3):
        for asked in (outbox.put(hits(1)), outbox.take(1, NOW), outbox.retry(flying, NOW), outbox.next_due()):
            with pytest.raises(OutboxError):
                run(asked)
    assert outbox.counts() == Counts(2, 0, 0, 1, 0, {"file lost": 1})
    path.parent.mkdir()
    run(outbox.retry(flying, NOW))

    assert outbox.counts() == Counts(2, 0, 1, 0, 0, {"file lost": 1})


def test_a_file_broken_while_running_is_one_error_and_then_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    fill(path)
    outbox = SqliteOutbox(path)
    garble(path)
    with pytest.raises(OutboxError, match="SQLITE_CORRUPT"):
        run(outbox.take(200, NOW))
    run(outbox.put(hits(2)))

    assert outbox.set_aside == 1
    assert len(run(outbox.take(9, NOW))) == 2


def test_a_full_disk_is_an_error_that_changes_nothing_and_ends_by_itself(tmp_path: Path) -> None:
    script = """
        outbox = SqliteOutbox(PATH)
        run(outbox.put(hits(0, 10)))
        (entry,) = run(outbox.take(1, time.time()))
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        before = outbox.counts()
        try:
            run(outbox.put(hits(10, 5000)))
        except OutboxError as error:
            say(error.doing)
        assert outbox.counts() == before, outbox.counts()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        run(outbox.settle(entry))
        run(outbox.put(hits(10, 5000)))
        assert len(run(outbox.take(9999, time.time()))) == 5009
        counts = outbox.counts()
        assert (counts.accepted, counts.delivered, counts.in_flight) == (5010, 1, 5009), counts
    """
    with child(tmp_path / "outbox.db", script) as one:
        assert one.rest() == ["store hits"]


def test_a_file_locked_for_too_long_is_an_error_that_changes_nothing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "outbox.db"
    outbox = SqliteOutbox(path, busy=0.05)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OutboxError, match="failed to store hits: SQLITE_BUSY") as caught:
            run(outbox.put(hits(1)))
    assert (caught.value.path, caught.value.reason) == (str(path), "SQLITE_BUSY")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    run(outbox.put(hits(1)))

    assert outbox.counts() == Counts(1, 0, 1)


def test_while_a_file_is_locked_the_loop_goes_on_and_what_waits_for_the_file_is_stored_afterwards(
    tmp_path: Path,
) -> None:
    outbox = SqliteOutbox(tmp_path / "outbox.db", busy=5.0)

    async def story() -> None:
        with closing(sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            steps = [asyncio.ensure_future(step) for step in (outbox.put(hits(3)), outbox.renew(NOW))]
            for _ in range(200):  # rounds of the loop, between which it stood still at most for a moment
                await asyncio.sleep(0)
            assert not any(step.done() for step in steps)
            other.execute("ROLLBACK")
        await asyncio.gather(*steps)

    run(story())
    assert outbox.counts() == Counts(3, 0, 3)


def test_what_cannot_be_stored_as_text_takes_nothing_else_with_it(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "outbox.db")
    with pytest.raises(UnicodeEncodeError):
        run(outbox.put([*hits(1), Entry("\ud800", Worth.GOAL, NOW)]))
    run(outbox.put([Entry("ä\0b", Worth.GOAL, NOW)]))

    assert [entry.text for entry in run(outbox.take(9, NOW))] == ["ä\0b"]
    assert outbox.counts() == Counts(1, 0, 0, 1)


def test_a_place_where_nothing_may_be_written_is_an_error_that_says_so() -> None:
    script = """
        if os.getuid() == 0:
            os.setuid(65534)  # the superuser may write anywhere
        try:
            run(SqliteOutbox(PATH).put(hits(1, 1)))
        except OutboxError as error:
            say(error)
    """
    with TemporaryDirectory() as folder:  # not below tmp_path, where only its owner may look
        path = Path(folder) / "outbox.db"
        fill(path, 1)
        for place in (*Path(folder).iterdir(), Path(folder)):
            place.chmod(0o555)
        with child(path, script) as one:
            assert one.rest() == [f"The outbox {str(path)!r} failed to open: Permission denied."]
        Path(folder).chmod(0o755)
