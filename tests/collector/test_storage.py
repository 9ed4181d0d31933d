from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest

from convert_middleware.collector import Collector, create_collector
from convert_middleware.collector.sentence import Names
from convert_middleware.collector.store import Store
from convert_middleware.errors import SettingsError

from .conftest import AGENT, EXAMPLE

if TYPE_CHECKING:
    from pathlib import Path

HEADERS = [("user-agent", AGENT)]


def opened(path: Path | str, time: float = 1_700_000_000.123) -> Collector:
    return Collector(Store(str(path)), Names(), clock=lambda: time)


def test_everything_is_there_again_after_a_restart(tmp_path: Path) -> None:
    first = opened(tmp_path / "hits.db")
    for query in (EXAMPLE, EXAMPLE, "c=2"):
        first.take("/track/", query, HEADERS)
    first.take("/track/", "c=2&p=1", [])
    numbers, hits = first.summary(), first.hits()
    first.close()

    second = opened(tmp_path / "hits.db")
    again = second.summary()
    assert second.hits() == hits
    for part in ("totals", "goals", "experiments", "projects", "last_id"):
        assert again[part] == numbers[part]
    assert (
        again["totals"]["duplicate_transactions"]
        == again["totals"]["malformed"]
        == again["totals"]["bots"]
        == 1
    )
    assert second.epoch != first.epoch
    second.take("/track/", "c=2&p=1", HEADERS)
    assert second.hits()[-1].id == numbers["last_id"] + 1
    second.close()


def test_the_time_is_kept_to_the_millisecond() -> None:
    collector = opened(":memory:")
    collector.take("/track/", EXAMPLE, HEADERS)
    assert collector.hits()[0].received_at.isoformat() == "2023-11-14T22:13:20.123000+00:00"
    collector.close()


def test_rows_can_be_read_with_plain_sql(tmp_path: Path) -> None:
    collector = opened(tmp_path / "hits.db")
    collector.take("/track/", EXAMPLE, HEADERS)
    collector.flush()
    with sqlite3.connect(tmp_path / "hits.db") as connection:
        rows = connection.execute(
            "SELECT outcome, query, content ->> '$.transaction.value' FROM request"
        ).fetchall()
    connection.close()
    collector.close()
    assert rows == [("hit", EXAMPLE, "1599.99")]


def test_many_threads_may_take_and_ask_at_once(tmp_path: Path) -> None:
    collector = opened(tmp_path / "hits.db")

    def work(thread: int) -> None:
        for number in range(100):
            collector.take("/track/", f"c=2&p=1&e=1-10&ea=1&t=5|{thread}-{number}|0.01|1", HEADERS)
            if number % 25 == 0:
                collector.summary()
                collector.hits()

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = collector.hits()
    assert [record.id for record in records] == list(range(1, 801))
    assert collector.summary()["totals"]["revenue"] == "8.00"
    collector.close()


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be one" * 20, b"\0" * 4096])
def test_a_file_that_is_something_else_is_refused_and_untouched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="database"):
        create_collector(str(path))
    assert path.read_bytes() == content


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE request (x)")
    connection.close()
    with pytest.raises(SettingsError, match="belongs to another program"):
        create_collector(str(path))


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hits.db"
    opened(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SettingsError, match="format 99"):
        create_collector(str(path))


def test_a_stored_hit_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "hits.db"
    collector = opened(path)
    collector.take("/track/", EXAMPLE, HEADERS)
    collector.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE request SET query = 'c=2'")
    connection.close()
    with pytest.raises(SettingsError, match="row 1"):
        create_collector(str(path))


def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        create_collector(str(tmp_path / "nowhere" / "hits.db"))


def test_what_cannot_be_forgotten_is_all_there_still(tmp_path: Path) -> None:
    collector = opened(tmp_path / "hits.db")
    collector.take("/track/", EXAMPLE, HEADERS)
    collector.flush()
    other = sqlite3.connect(tmp_path / "hits.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    collector.take("/track/", "c=2&p=1", HEADERS)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        collector.clear()
    other.execute("ROLLBACK")
    other.close()
    assert len(collector.hits()) == collector.summary()["totals"]["requests"] == 2
    collector.clear()
    assert collector.hits() == []
    collector.close()


def test_requests_wait_while_the_database_is_locked(tmp_path: Path) -> None:
    collector = opened(tmp_path / "hits.db")
    other = sqlite3.connect(tmp_path / "hits.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    collector.take("/track/", EXAMPLE, HEADERS)
    collector.flush()
    assert collector.waiting == 1
    other.execute("ROLLBACK")
    other.close()
    assert len(collector.hits()) == 1
    assert collector.waiting == 0
    collector.close()
