"""What becomes of hits that another process holds."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Coroutine
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest

from convert_middleware.delivery import Counts, Entry, Worth
from convert_middleware.delivery.sqlite import SqliteOutbox

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")
NOW: Final = 1_800_000_000.0


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


class Machine:
    """A file, a clock, and the processes that share them."""

    def __init__(self, path: Path) -> None:
        self.path = path / "outbox.db"
        self.now = NOW

    def outbox(self, **options: Any) -> SqliteOutbox:
        return SqliteOutbox(self.path, lease=30.0, clock=lambda: self.now, **options)

    def take(self, outbox: SqliteOutbox, number: int = 100) -> list[Entry]:
        return run(outbox.take(number, self.now))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(query).fetchall()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def hits(*texts: str) -> list[Entry]:
    return [Entry(text, Worth.GOAL, NOW) for text in texts]


def test_what_a_dead_process_held_may_have_left_and_is_not_sent_again(machine: Machine) -> None:
    dead, alive = machine.outbox(), machine.outbox()
    run(dead.put(hits("flying", "waiting")))
    machine.take(dead, 1)

    assert [entry.text for entry in machine.take(alive)] == ["waiting"]
    assert run(alive.next_due()) == NOW + 30
    machine.now += 31
    assert run(alive.next_due()) == NOW + 30
    assert machine.take(alive) == []
    assert alive.counts() == Counts(2, 0, 0, 1, 0, {"interrupted": 1})


def test_what_a_dead_process_held_is_sent_again_if_that_is_wanted(machine: Machine) -> None:
    dead, alive = machine.outbox(), machine.outbox(repeat_expired=True)
    run(dead.put(hits("flying")))
    machine.take(dead)
    machine.now += 31

    assert [entry.text for entry in machine.take(alive)] == ["flying"]
    assert alive.counts() == Counts(1, 0, 0, 1)


def test_a_slow_process_that_renews_its_leases_loses_nothing(machine: Machine) -> None:
    slow, other = machine.outbox(), machine.outbox()
    run(slow.put(hits("slow")))
    (entry,) = machine.take(slow)
    for _ in range(5):
        machine.now += 29
        run(slow.renew(machine.now))
        assert machine.take(other) == []
    run(slow.settle(entry))
    run(slow.commit())

    assert slow.counts() == Counts(1, 1)
    assert other.counts() == Counts()
    assert machine.rows("SELECT * FROM hits") == []


def test_a_process_that_slept_too_long_does_not_send_again_what_others_took_from_it(machine: Machine) -> None:
    sleeper, other = machine.outbox(), machine.outbox(repeat_expired=True)
    run(sleeper.put(hits("first", "second")))
    first, second = machine.take(sleeper)
    machine.now += 31
    taken = machine.take(other)
    run(sleeper.settle(first))
    run(sleeper.retry(second, machine.now))

    assert machine.take(sleeper) == []
    assert sleeper.counts() == Counts(2, 1, 0, 0, 0, {"lease lost": 1})
    for entry in taken:
        run(other.settle(entry))
    run(other.commit())
    assert other.counts() == Counts(2, 2)


def test_hits_that_were_not_sent_are_given_back_and_go_first(machine: Machine) -> None:
    leaving, staying = machine.outbox(), machine.outbox()
    run(leaving.put(hits("1", "2", "3")))
    machine.take(leaving, 2)
    run(leaving.release())
    run(leaving.close())

    assert [entry.text for entry in machine.take(staying)] == ["1", "2", "3"]
    assert leaving.counts() == Counts(3, 0, 3)


def test_a_process_that_closes_leaves_nothing_that_may_be_sent_twice(machine: Machine) -> None:
    leaving, staying = machine.outbox(), machine.outbox()
    run(leaving.put(hits("delivered", "flying", "waiting")))
    delivered, _flying = machine.take(leaving, 2)
    run(leaving.settle(delivered))
    run(leaving.close())

    assert leaving.counts() == Counts(3, 1, 1, 0, 0, {"interrupted": 1})
    assert [entry.text for entry in machine.take(staying)] == ["waiting"]


def test_what_others_took_does_not_seem_to_wait(machine: Machine) -> None:
    giver, taker = machine.outbox(), machine.outbox()
    run(giver.put(hits("1", "2", "3")))
    machine.take(taker, 2)
    run(giver.next_due())

    assert giver.counts() == Counts(1, 0, 1)
    assert taker.counts() == Counts(2, 0, 0, 2)


def test_room_is_shared_by_all_processes(machine: Machine) -> None:
    first, second = machine.outbox(max_hits=3), machine.outbox(max_hits=3)
    run(first.put(hits("1", "2")))
    run(second.put(hits("3", "4")))

    assert [entry.text for entry in machine.take(second)] == ["2", "3", "4"]
    run(first.next_due())
    assert first.counts() == Counts()
    assert second.counts() == Counts(4, 0, 0, 3, 0, {"overflow": 1})


def test_bounds_hold_for_what_an_earlier_process_left(machine: Machine) -> None:
    run(machine.outbox().put(hits(*"123456789")))
    outbox = machine.outbox(max_hits=4)
    run(outbox.put(hits("new")))

    assert outbox.counts() == Counts(7, 0, 1, 0, 0, {"overflow": 6})
    assert [entry.text for entry in machine.take(outbox)] == ["7", "8", "9", "new"]


def test_dead_letters_are_kept_with_their_reason_and_the_oldest_go(machine: Machine) -> None:
    outbox = machine.outbox(max_dead=2)
    run(outbox.put(hits("1", "2", "3")))
    for entry in machine.take(outbox):
        run(outbox.bury(entry, f"status 40{entry.text}"))
    run(outbox.commit())

    letters = machine.rows("SELECT text, reason, died_at FROM dead ORDER BY id")
    assert letters == [("2", "status 402", NOW), ("3", "status 403", NOW)]
    assert machine.rows("SELECT * FROM hits") == []


def test_who_left_leaves_no_account_and_who_died_is_forgotten_after_a_day(machine: Machine) -> None:
    count = "SELECT count(*) FROM accounts"
    staying = machine.outbox()
    run(staying.put(hits("a", "b", "c")))
    for _ in range(3):
        leaving = machine.outbox()
        for entry in machine.take(leaving, 1):
            run(leaving.settle(entry))
        run(leaving.close())
    assert machine.rows(count) == [(1,)]

    dead = machine.outbox()
    run(dead.put(hits("d")))
    for entry in machine.take(staying):
        run(staying.settle(entry))
    machine.now += 90_000.0  # a day and more
    run(staying.put(hits("e")))
    machine.take(staying)
    assert machine.rows(count) == [(1,)]
    run(staying.close())
    assert machine.rows(count) == [(0,)]


def test_who_left_and_comes_back_hears_what_others_took_meanwhile(machine: Machine) -> None:
    coming_back, other = machine.outbox(), machine.outbox()
    run(coming_back.put(hits("a", "b")))
    run(coming_back.close())
    for entry in machine.take(other):
        run(other.settle(entry))
    run(other.close())
    machine.take(machine.outbox())  # whoever comes next forgets nothing that is to be told

    run(coming_back.put(hits("c")))
    assert coming_back.counts() == Counts(1, waiting=1)


def test_a_process_that_was_forgotten_hears_what_others_took_meanwhile(machine: Machine) -> None:
    silent, other = machine.outbox(), machine.outbox()
    run(silent.put(hits("a", "b")))
    for entry in machine.take(other):
        run(other.settle(entry))
    machine.now += 90_000.0  # a day and more, asleep
    run(other.put(hits("c")))
    machine.take(other)
    assert machine.rows("SELECT count(*) FROM accounts") == [(1,)]

    run(silent.put(hits("d")))
    assert silent.counts() == Counts(1, waiting=1)
