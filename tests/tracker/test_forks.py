"""A tracker in a forked child: no lock that somebody held, nothing of the parent's, an account of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from convert_middleware.delivery import Counts, Entry, Receipt, Worth
from convert_middleware.delivery.sqlite import SqliteOutbox
from tests.delivery.conftest import until
from tests.redis_server import RedisServer
from tests.servers import answer
from tests.tracker.test_durable import goals_of, reach
from tests.tracker.visits import Visit

if TYPE_CHECKING:
    from pathlib import Path

    from convert_middleware import Tracker
    from tests.asgi.conftest import Convert

OPPOSED: Final = [(b"sec-gpc", b"1"), (b"cookie", b"convert_visitor=forged")]
LONGEST: Final = 10  # seconds until a child that hangs is ended
LOCKS: Final[dict[str, Callable[[Any], Any]]] = {
    "tracker": lambda tracker: tracker._lock,
    "memory": lambda tracker: tracker._memory._lock,
    "ledger": lambda tracker: tracker._ledger._lock,
    "writer": lambda tracker: tracker._writer._lock,
    "admission": lambda tracker: tracker._admission._lock,
    "credentials": lambda tracker: tracker._credentials._lock,
    "reception": lambda tracker: tracker._reception._lock,
    "outbox": lambda tracker: tracker._delivery._outbox._lock,
}


def in_a_child(do: Callable[[], object]) -> None:
    """Do something in a forked child, where it has to end well."""
    child = os.fork()
    if child == 0:
        signal.alarm(LONGEST)
        try:
            do()
        except BaseException as error:  # noqa: BLE001 - nothing of a child may come back into the test
            os.write(2, f"in the child: {error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@contextmanager
def held(lock: Any) -> Iterator[None]:
    """Have another thread hold a lock."""
    holds, enough = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            holds.set()
            enough.wait(10.0)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holds.wait(10.0)
    try:
        yield
    finally:
        enough.set()
        thread.join()


@pytest.mark.parametrize("whose", LOCKS)
def test_a_lock_that_another_thread_held_is_free_in_the_child(convert: Convert, whose: str) -> None:
    tracker = convert.tracker(hooks=[])

    def go_on() -> None:
        loaded = tracker.meet(b"convert_visitor", "GET", "/", b"", OPPOSED)
        reach(tracker, 331)
        tracker.forget(loaded.visitor)
        stats = tracker.stats()
        assert (stats.accepted, stats.excluded) == (1, {"gpc": 1})
        assert sum(stats.rejected_cookies.values()) == 1

    with held(LOCKS[whose](tracker)):
        in_a_child(go_on)


def test_what_was_lost_before_a_fork_is_made_good_by_the_parent_alone(convert: Convert) -> None:
    tracker = convert.tracker(hooks=[])
    convert.server.default = answer(404)
    visit = Visit(tracker)
    visit.convert.goal(331)
    cookie = visit.respond()
    assert tracker.flush(10.0)
    assert tracker.stats().dead == 1
    convert.server.default = answer(200)

    def owe_nothing() -> None:
        tracker._ledger.give_back(Receipt("f" * 32, (), (1,)))  # what a child loses it owes itself
        assert not tracker.owes(visit.page.visitor)
        read = Visit(tracker, cookie)
        assert read.convert.goals == (331,)
        read.respond()
        assert tracker.stats().accepted == 0

    in_a_child(owe_nothing)
    assert tracker.owes(visit.page.visitor)


def test_a_file_that_a_child_inherits_has_an_account_of_its_own_there(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "outbox.db")
    entries = [Entry(f"{number}", Worth.GOAL, 1_800_000_000.0) for number in range(3)]
    asyncio.run(outbox.put(entries))

    def go_on() -> None:
        assert outbox.counts() == Counts()
        asyncio.run(outbox.put(entries[:1]))
        assert outbox.counts() == Counts(1, waiting=1)
        asyncio.run(outbox.close())

    in_a_child(go_on)
    assert len(asyncio.run(outbox.take(9, 1_800_000_000.0))) == 4
    assert outbox.counts() == Counts(4, in_flight=4)
    asyncio.run(outbox.close())


@contextmanager
def shared_places(folder: Path) -> Iterator[dict[str, str]]:
    with RedisServer() as server:
        yield {"sqlite": f"sqlite:///{folder}/outbox.db", "redis": server.url}


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_a_child_shares_the_store_of_its_parent_under_an_account_of_its_own(
    convert: Convert, tmp_path: Path, store: str
) -> None:
    with shared_places(tmp_path) as places:
        parent = convert.tracker(outbox=places[store], hooks=[], deliver=False)

        def fill(tracker: Tracker, *goals: int) -> None:
            before = tracker.stats()
            for goal in goals:
                reach(tracker, goal)
            assert tracker.flush(10.0)
            after = tracker.stats()
            assert after.accepted - before.accepted == after.waiting - before.waiting == len(goals)

        def go_on() -> None:
            assert (parent.stats().accepted, parent.stats().waiting) == (0, 0)
            fill(parent, 4, 5)
            assert parent.close(5.0)

        fill(parent, 1, 2, 3)
        in_a_child(go_on)
        fill(parent, 6)
        assert (parent.stats().accepted, parent.stats().waiting) == (4, 4)
        assert parent.close(5.0)
        convert.trackers.remove(parent)  # what it left is the other's now

        sending = convert.tracker(outbox=places[store], hooks=[])
        sending.start()
        until(lambda: sending.stats().delivered == 6)
        assert goals_of(convert) == [1, 2, 3, 4, 5, 6]
        sending.close()
