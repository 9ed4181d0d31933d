"""A file that cannot be written for a while, under a tracker that goes on; and log lines that record."""

from __future__ import annotations

import logging
import resource
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from convert_middleware.delivery import Counts, Entry, Worth, open_outbox
from convert_middleware.hooks import Announcer
from tests.delivery.conftest import until
from tests.servers import after, answer
from tests.tracker.test_durable import durable, goals_of, reach
from tests.tracker.visits import Visit

if TYPE_CHECKING:
    from pathlib import Path

    from tests.asgi.conftest import Convert

SAID = "Hits wait in memory meanwhile."
OVER = "The outbox works again."


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """Let the disk be full for whoever writes beyond so many bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_with_a_full_disk_memory_takes_over_and_the_file_is_used_again_later(
    convert: Convert, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = durable(convert, tmp_path)
    reach(tracker, 1)
    assert tracker.flush(10.0)
    full = max(path.stat().st_size for path in tmp_path.iterdir())
    with no_file_longer_than(full):
        for goal in range(2, 302):
            reach(tracker, goal)
        assert tracker.flush(20.0)
    assert goals_of(convert) == list(range(1, 302))
    assert caplog.text.count(SAID) == 1

    convert.clock.now += 60
    reach(tracker, 302)
    assert tracker.flush(10.0)
    assert goals_of(convert) == list(range(1, 303))
    assert caplog.text.count(OVER) == 1


def test_while_another_program_locks_the_file_no_page_waits_and_nothing_is_lost(
    convert: Convert, tmp_path: Path
) -> None:
    tracker = durable(convert, tmp_path)
    reach(tracker, 1)
    assert tracker.flush(10.0)
    with closing(sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for goal in range(2, 102):
            reach(tracker, goal)
        # A page that waited for the file would never be over.
        other.execute("ROLLBACK")
    convert.clock.now += 60
    assert tracker.flush(20.0)
    assert goals_of(convert) == list(range(1, 102))


def test_while_the_file_stays_locked_answers_are_read_and_memory_takes_over(
    convert: Convert, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = durable(convert, tmp_path)
    reach(tracker, 1)
    assert tracker.flush(10.0)
    convert.server.default = after(0.2, answer(200))
    with closing(sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for goal in range(2, 52):
            reach(tracker, goal)
        until(lambda: tracker.stats().delivered == 51, 4.0)
        other.execute("ROLLBACK")
    assert goals_of(convert) == list(range(1, 52))
    assert caplog.text.count(SAID) == 1
    convert.clock.now += 60


@pytest.mark.parametrize(
    ("limit", "left"), [("max_hits=5", 5), ("max_bytes=40", 4), ("max_hits=100&max_bytes=1000", 9)]
)
@pytest.mark.parametrize("place", ["sqlite:///{folder}/outbox.db", "redis://127.0.0.1:9/0"])
def test_memory_that_takes_over_has_the_room_that_the_outbox_was_given(
    place: str, limit: str, left: int, tmp_path: Path
) -> None:
    outbox = open_outbox(
        f"{place.format(folder=tmp_path)}?{limit}", Announcer((), time.monotonic), time.time, repeat=False
    )
    for number in range(9):
        outbox.offer(Entry(f"ten bytes{number}", Worth.GOAL, 1_800_000_000.0))
    overflow = {"overflow": 9 - left} if left < 9 else {}
    assert outbox.counts() == Counts(accepted=9, waiting=left, dropped=overflow)


def test_a_log_handler_that_records_what_we_say_makes_no_endless_loop(convert: Convert) -> None:
    """Every line of ours becomes a hit, which is rejected, which is a line of ours."""
    convert.server.default = answer(404)
    tracker = convert.tracker(hooks=[])
    said: list[str] = []

    class Recording(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())
            visit = Visit(tracker)
            visit.convert.goal(1000 + len(said))
            visit.respond()

    handler, logger = Recording(), logging.getLogger("convert_middleware")
    logger.addHandler(handler)
    try:
        for goal in range(1, 51):
            reach(tracker, goal)
        assert tracker.flush(10.0)
        until(lambda: tracker.stats().dead == tracker.stats().accepted)
    finally:
        logger.removeHandler(handler)

    assert 1 <= len(said) <= 3
    assert tracker.stats().accepted == 50 + len(said)
    assert len(convert.server.targets) == 50 + len(said)
