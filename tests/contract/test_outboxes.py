"""What every outbox must do; each one that joins the project joins ``OUTBOXES``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from itertools import count
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar
from weakref import WeakSet, finalize

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from convert_middleware.delivery import Counts, Entry, MemoryOutbox, Outbox, Receipt, ShelteredOutbox, Worth
from convert_middleware.delivery.adopted import AdoptedOutbox
from convert_middleware.delivery.outbox import NOTHING_DUE
from convert_middleware.delivery.redis_streams import RedisOutbox
from convert_middleware.delivery.sqlite import SqliteOutbox
from tests.redis_server import RedisServer

T = TypeVar("T")
NOW: Final = 1_800_000_000.0
ROOMY: Final = (1000, 1_000_000)


@dataclass(frozen=True)
class Kind:
    """A kind of outbox, and how to make one with room for so many hits and bytes."""

    name: str
    make: Callable[[int, int], Outbox]

    def __str__(self) -> str:
        return self.name


def sqlite(max_hits: int, max_bytes: int) -> SqliteOutbox:
    """Make an outbox in a file of its own, which goes when the outbox goes."""
    folder = TemporaryDirectory()
    outbox = SqliteOutbox(f"{folder.name}/outbox.db", max_hits=max_hits, max_bytes=max_bytes)
    finalize(outbox, folder.cleanup)
    FILES.add(outbox)
    return outbox


def sheltered(hits: int, size: int) -> Outbox:
    """Return memory in front of a file of its own."""
    return ShelteredOutbox(sqlite(hits, size), failing)


class Own:
    """A site's own outbox: what is asked of every outbox, and no more."""

    def __init__(self, hits: int, size: int) -> None:
        self._kept = MemoryOutbox(hits, size)
        self.put, self.take = self._kept.put, self._kept.take
        self.settle, self.retry = self._kept.settle, self._kept.retry
        self.bury, self.drop = self._kept.bury, self._kept.drop
        self.purge, self.next_due, self.counts = self._kept.purge, self._kept.next_due, self._kept.counts


def adopted(hits: int, size: int) -> Outbox:
    """Return memory in front of a site's own outbox."""
    return ShelteredOutbox(AdoptedOutbox(Own(hits, size)), failing)


def failing(error: Exception | None) -> None:
    """Fail when the store does."""
    raise AssertionError(f"the store failed: {error}")


def redis(hits: int, size: int) -> RedisOutbox:
    """Make an outbox of its own in the server of these tests."""
    outbox = RedisOutbox(SERVERS[0].url, prefix=f"test-{next(NUMBERS)}", max_hits=hits, max_bytes=size)
    OPEN.append(outbox)
    return outbox


def sheltered_redis(hits: int, size: int) -> Outbox:
    """Return memory in front of Redis."""
    return ShelteredOutbox(redis(hits, size), failing)


OUTBOXES: Final = [
    Kind("memory", MemoryOutbox),
    Kind("sqlite", sqlite),
    Kind("sqlite-sheltered", sheltered),
    Kind("own-sheltered", adopted),
    Kind("redis", redis),
    Kind("redis-sheltered", sheltered_redis),
]
every_outbox = pytest.mark.parametrize("kind", OUTBOXES, ids=str)
SERVERS: Final[list[RedisServer]] = []
NUMBERS: Final = count()
OPEN: Final[list[RedisOutbox]] = []
FILES: Final[WeakSet[SqliteOutbox]] = WeakSet()
LOOP: Final = asyncio.Runner()


@pytest.fixture(scope="module", autouse=True)
def _redis() -> Iterator[None]:
    with RedisServer() as server, LOOP:
        SERVERS[:] = [server]
        yield


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_files()
    while OPEN:
        LOOP.run(OPEN.pop().close())


def close_files() -> None:
    """Close the files of outboxes, should one live on in a cycle such as that of an error with its frames."""
    for outbox in list(FILES):
        outbox.disconnect()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return LOOP.run(coroutine)


def hit(text: str = "hit", worth: Worth = Worth.GOAL, accepted_at: float = NOW) -> Entry:
    return Entry(text, worth, accepted_at)


def lawful(counts: Counts) -> bool:
    """The conservation law."""
    parts = (counts.delivered, counts.waiting, counts.in_flight, counts.dead, *counts.dropped.values())
    return counts.accepted == sum(parts) and all(part >= 0 for part in parts)


async def take_all(outbox: Outbox, now: float = NOW) -> list[str]:
    return [entry.text for entry in await outbox.take(1000, now)]


@every_outbox
def test_hits_leave_in_the_order_in_which_they_came_whatever_their_worth(kind: Kind) -> None:
    async def story() -> None:
        outbox = kind.make(*ROOMY)
        worths = [Worth.REVENUE, Worth.EXPOSURE, Worth.GOAL, Worth.EXPOSURE, Worth.REVENUE]
        await outbox.put([hit(f"{n}", worth, NOW + n) for n, worth in enumerate(worths)])

        assert [entry.text for entry in await outbox.take(2, NOW + 9)] == ["0", "1"]
        assert await take_all(outbox, NOW + 9) == ["2", "3", "4"]

    run(story())


@every_outbox
def test_what_was_taken_keeps_its_text_worth_age_and_attempts(kind: Kind) -> None:
    async def story() -> None:
        outbox = kind.make(*ROOMY)
        await outbox.put([hit("c=2&p=1", Worth.REVENUE)])
        (entry,) = await outbox.take(5, NOW)
        entry.attempts, entry.waited = 3, 7.5
        await outbox.retry(entry, NOW)
        (again,) = await outbox.take(5, NOW)

        assert again == Entry("c=2&p=1", Worth.REVENUE, NOW, 3, 7.5)

    run(story())


@every_outbox
def test_a_retry_waits_until_it_is_due_and_then_goes_first(kind: Kind) -> None:
    async def story() -> None:
        outbox = kind.make(*ROOMY)
        await outbox.put([hit("late"), hit("soon"), hit("fresh", accepted_at=NOW - 5)])
        entries = {entry.text: entry for entry in await outbox.take(3, NOW)}
        await outbox.retry(entries["fresh"], NOW + 1)
        await outbox.retry(entries["late"], NOW + 20)
        await outbox.retry(entries["soon"], NOW + 10)

        assert await outbox.next_due() == NOW + 1
        assert await take_all(outbox, NOW) == []
        await outbox.put([hit("new")])
        assert await outbox.next_due() == 0.0
        assert await take_all(outbox, NOW + 15) == ["fresh", "soon", "new"]
        assert await outbox.next_due() == NOW + 20

    run(story())


@every_outbox
def test_at_a_moment_when_nothing_is_due_fresh_hits_alone_are_taken(kind: Kind) -> None:
    async def story(outbox: Outbox) -> None:
        await outbox.put([hit("tried"), hit("fresh")])
        (tried,) = await outbox.take(1, NOW)
        await outbox.retry(tried, NOW)
        if isinstance(outbox, MemoryOutbox):
            outbox.hurry()
        assert [entry.text for entry in await outbox.take(9, NOTHING_DUE)] == ["fresh"]
        assert await outbox.take(9, NOTHING_DUE) == []
        assert await take_all(outbox) == ["tried"]

    run(story(kind.make(*ROOMY)))


@every_outbox
def test_an_empty_outbox_has_nothing_due(kind: Kind) -> None:
    async def story() -> None:
        outbox = kind.make(*ROOMY)

        assert await outbox.next_due() is None
        assert await outbox.take(1, NOW) == []
        assert outbox.counts() == Counts()

    run(story())


@every_outbox
def test_every_end_of_a_hit_is_counted_once_and_by_its_reason(kind: Kind) -> None:
    async def story() -> Counts:
        outbox = kind.make(*ROOMY)
        await outbox.put([hit(f"{number}") for number in range(7)])
        first, second, third, fourth, fifth = await outbox.take(5, NOW)
        await outbox.settle(first)
        await outbox.bury(second, "status 404")
        await outbox.drop(third, "ambiguous")
        await outbox.drop(fourth, "expired")
        del fifth  # in flight
        return outbox.counts()

    assert run(story()) == Counts(7, 1, 2, 1, 1, {"ambiguous": 1, "expired": 1})


@every_outbox
def test_looking_for_what_is_due_changes_nothing(kind: Kind) -> None:
    async def story() -> Counts:
        outbox = kind.make(*ROOMY)
        await outbox.put([hit(f"{number}") for number in range(5)])
        delivered, buried, dropped, again = await outbox.take(4, NOW)
        await outbox.settle(delivered)
        await outbox.bury(buried, "status 404")
        await outbox.drop(dropped, "ambiguous")
        for _ in range(3):
            assert await outbox.next_due() == 0.0
        await outbox.retry(again, NOW)
        for _ in range(3):
            assert await outbox.next_due() == 0.0
        assert await take_all(outbox) == ["3", "4"]
        return outbox.counts()

    assert run(story()) == Counts(5, 1, 0, 2, 1, {"ambiguous": 1})


@every_outbox
def test_without_room_for_hits_the_least_valuable_go_first_and_the_oldest_of_these(kind: Kind) -> None:
    async def story() -> None:
        outbox = kind.make(4, 1_000_000)
        kinds = {"r": Worth.REVENUE, "g": Worth.GOAL, "e": Worth.EXPOSURE}
        arrivals = ["r1", "g1", "e1", "e2", "g2", "g3", "g4"]
        left = []
        for number, text in enumerate(arrivals):
            await outbox.put([hit(text, kinds[text[0]], NOW + number)])
            left.append(outbox.counts().dropped.get("overflow", 0))

        assert left == [0, 0, 0, 0, 1, 2, 3]
        assert await take_all(outbox) == ["r1", "g2", "g3", "g4"]

    run(story())


@every_outbox
def test_while_room_is_made_again_and_again_newcomers_of_less_worth_go_first(kind: Kind) -> None:
    async def story() -> None:
        outbox = kind.make(3, 1_000_000)
        await outbox.put([hit(f"g{number}", Worth.GOAL, NOW + number) for number in range(5)])
        (taken,) = await outbox.take(1, NOW + 5)
        await outbox.put([hit("e1", Worth.EXPOSURE, NOW + 6)])
        await outbox.put([hit("g5", Worth.GOAL, NOW + 7)])
        await outbox.retry(taken, NOW + 8)

        assert outbox.counts() == Counts(7, 0, 3, 0, 0, {"overflow": 4})
        assert await take_all(outbox, NOW + 9) == ["g3", "g4", "g5"]

    run(story())


@every_outbox
def test_without_room_for_bytes_the_same_is_dropped(kind: Kind) -> None:
    async def story() -> None:
        outbox = kind.make(1000, 100)
        await outbox.put([hit("r" * 40, Worth.REVENUE), hit("e" * 30, Worth.EXPOSURE), hit("g" * 30)])
        assert outbox.counts().waiting == 3
        await outbox.put([hit("r" * 40, Worth.REVENUE)])
        assert await take_all(outbox) == ["r" * 40, "r" * 40]
        await outbox.put([hit("x" * 101, Worth.REVENUE)])  # has no room even alone
        assert outbox.counts() == Counts(5, 0, 0, 2, 0, {"overflow": 3})

    run(story())


@every_outbox
def test_a_retry_that_finds_no_room_drops_something_and_is_counted(kind: Kind) -> None:
    async def story() -> None:
        outbox = kind.make(2, 1_000_000)
        await outbox.put([hit("taken", Worth.EXPOSURE), hit("goal")])
        (taken,) = await outbox.take(1, NOW)
        await outbox.put([hit("second goal")])
        await outbox.retry(taken, NOW + 5)

        assert outbox.counts() == Counts(3, 0, 2, 0, 0, {"overflow": 1})
        assert await take_all(outbox, NOW + 9) == ["goal", "second goal"]

    run(story())


class Machine(RuleBasedStateMachine):
    """Does anything in any order; the account must balance after every step."""

    make: Callable[[int, int], Outbox]

    def __init__(self) -> None:
        super().__init__()
        self.outbox = type(self).make(6, 60)
        self.now = NOW
        self.flying: list[Entry] = []
        self.accepted = 0

    def teardown(self) -> None:
        close_files()

    @rule(texts=st.lists(st.integers(1, 25), max_size=4), worth=st.sampled_from(Worth))
    def put(self, texts: list[int], worth: Worth) -> None:
        run(self.outbox.put([hit("x" * size, worth, self.now) for size in texts]))
        self.accepted += len(texts)

    @rule(number=st.integers(1, 4), later=st.floats(0, 20))
    def take(self, number: int, later: float) -> None:
        self.now += later
        taken = run(self.outbox.take(number, self.now))
        assert len(taken) <= number
        self.flying += taken

    @precondition(lambda self: self.flying)
    @rule(how=st.sampled_from(["settle", "retry", "bury", "drop"]), delay=st.floats(0, 30), data=st.data())
    def end(self, how: str, delay: float, data: st.DataObject) -> None:
        entry = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        if how == "settle":
            run(self.outbox.settle(entry))
        elif how == "retry":
            run(self.outbox.retry(entry, self.now + delay))
        elif how == "bury":
            run(self.outbox.bury(entry, "status 404"))
        else:
            run(self.outbox.drop(entry, "expired"))

    @invariant()
    def nothing_is_lost_unnoticed(self) -> None:
        counts = self.outbox.counts()
        assert lawful(counts)
        assert (counts.accepted, counts.in_flight) == (self.accepted, len(self.flying))
        assert counts.waiting <= 6
        assert (run(self.outbox.next_due()) is None) == (counts.waiting == 0)


@every_outbox
def test_whatever_happens_in_whatever_order_every_hit_is_accounted_for(kind: Kind) -> None:
    machine = type("OneKind", (Machine,), {"make": staticmethod(kind.make)})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=25, stateful_step_count=20, deadline=None)
    )


ANNA: Final = "0123456789abcdef" * 2
BERT: Final = ANNA[:-1] + "0"


def hit_of(visitor: str, text: str, worth: Worth = Worth.GOAL, accepted_at: float = NOW) -> Entry:
    return Entry(text, worth, accepted_at, visitor=visitor, receipt=Receipt(visitor, goals=(331,)))


@every_outbox
def test_of_a_visitor_who_withdraws_everything_that_waits_goes_and_nothing_else(kind: Kind) -> None:
    async def story() -> None:
        outbox = kind.make(*ROOMY)
        later = count(int(NOW))

        def some(when: str) -> list[Entry]:
            whose = [(who, worth) for worth in Worth for who in (ANNA, BERT)]
            theirs = [hit_of(who, f"{who[-1]} {when}", worth, next(later)) for who, worth in whose]
            return [*theirs, hit(f"nobody's {when}", accepted_at=next(later))]

        await outbox.put(some("tried"))
        for entry in await outbox.take(7, NOW):
            await outbox.retry(entry, NOW + 15)
        await outbox.put(some("fresh"))

        assert await outbox.purge(ANNA) == 6
        assert outbox.counts() == Counts(14, 0, 8, 0, 0, {"withdrawn": 6})
        assert await outbox.purge(ANNA) == 0
        assert await outbox.purge("f" * 32) == 0
        assert await outbox.next_due() == 0.0
        left = await take_all(outbox, NOW + 20)
        assert sorted(left[:4]) == ["0 tried"] * 3 + ["nobody's tried"]
        assert left[4:] == ["0 fresh"] * 3 + ["nobody's fresh"]
        assert outbox.counts() == Counts(14, 0, 0, 8, 0, {"withdrawn": 6})

    run(story())


@every_outbox
def test_what_is_in_flight_when_its_visitor_withdraws_is_still_accounted_for(kind: Kind) -> None:
    async def story() -> None:
        outbox = kind.make(*ROOMY)
        await outbox.put([hit_of(ANNA, f"{number}", accepted_at=NOW + number) for number in range(6)])
        delivered, doubtful, refused, again, withdrawn = await outbox.take(5, NOW + 9)

        assert await outbox.purge(ANNA) == 1
        assert outbox.counts() == Counts(6, 0, 0, 5, 0, {"withdrawn": 1})
        await outbox.settle(delivered)
        await outbox.drop(doubtful, "ambiguous")
        await outbox.bury(refused, "status 404")
        await outbox.drop(withdrawn, "withdrawn")
        await outbox.retry(again, NOW + 10)
        assert outbox.counts() == Counts(6, 1, 1, 0, 1, {"ambiguous": 1, "withdrawn": 2})
        assert await outbox.purge(ANNA) == 1
        assert outbox.counts() == Counts(6, 1, 0, 0, 1, {"ambiguous": 1, "withdrawn": 3})
        assert await outbox.next_due() is None

    run(story())


@every_outbox
def test_what_its_visitor_withdrew_is_not_given_back_to_be_made_good(kind: Kind) -> None:
    async def story() -> None:
        outbox = kind.make(*ROOMY)
        await outbox.put([hit_of(ANNA, "waits"), hit_of(ANNA, "flies")])
        (entry,) = await outbox.take(1, NOW)
        await outbox.purge(ANNA)
        await outbox.drop(entry, "withdrawn")
        assert list(getattr(outbox, "lost")) == []  # noqa: B009 - no part of what is asked of every outbox

    run(story())


@every_outbox
def test_what_a_visitor_withdraws_makes_room(kind: Kind) -> None:
    async def story() -> None:
        outbox = kind.make(4, 40)
        await outbox.put([hit_of(ANNA, "a" * 10, Worth.REVENUE) for _ in range(4)])
        assert await outbox.purge(ANNA) == 4
        await outbox.put([hit_of(BERT, "b" * 10, Worth.EXPOSURE) for _ in range(4)])
        assert outbox.counts() == Counts(8, 0, 4, 0, 0, {"withdrawn": 4})
        assert await take_all(outbox) == ["b" * 10] * 4

    run(story())


@every_outbox
def test_a_visitor_is_found_among_thousands_of_hits(kind: Kind) -> None:
    async def story() -> None:
        outbox = kind.make(10_000, 1_000_000)
        everybody = [ANNA if number % 3 == 0 else BERT for number in range(2400)]
        await outbox.put([hit_of(who, who[-1]) for who in everybody[:1200]])
        for entry in await outbox.take(1200, NOW):
            await outbox.retry(entry, NOW + 10)
        await outbox.put([hit_of(who, who[-1]) for who in everybody[1200:]])
        assert await outbox.purge(ANNA) == 800
        assert {entry.text for entry in await outbox.take(2400, NOW + 20)} == {"0"}
        assert outbox.counts() == Counts(2400, 0, 0, 1600, 0, {"withdrawn": 800})

    run(story())


class Withdrawals(Machine):
    """Visitors withdraw in the midst of it; what waited of them is never taken."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: set[str] = set()

    @rule(visitors=st.lists(st.integers(0, 3), min_size=1, max_size=4), worth=st.sampled_from(Worth))
    def put_of(self, visitors: list[int], worth: Worth) -> None:
        known = [f"{number:032x}" for number in visitors]
        run(self.outbox.put([hit_of(visitor, "x", worth, self.now) for visitor in known]))
        self.accepted += len(known)
        self.gone -= set(known)

    @rule(number=st.integers(0, 3))
    def purge(self, number: int) -> None:
        visitor, before = f"{number:032x}", self.outbox.counts()
        gone = run(self.outbox.purge(visitor))
        after = self.outbox.counts()
        assert after.waiting == before.waiting - gone
        assert after.dropped.get("withdrawn", 0) == before.dropped.get("withdrawn", 0) + gone
        self.gone.add(visitor)

    @invariant()
    def nothing_comes_of_who_withdrew(self) -> None:
        taken = run(self.outbox.take(1, self.now))
        assert self.gone.isdisjoint([entry.visitor for entry in taken])
        self.gone -= {entry.visitor for entry in self.flying}  # they may come back to wait
        for entry in taken:
            run(self.outbox.settle(entry))


@every_outbox
def test_whoever_withdraws_whenever_every_hit_is_accounted_for(kind: Kind) -> None:
    machine = type("OneKind", (Withdrawals,), {"make": staticmethod(kind.make)})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=25, stateful_step_count=20, deadline=None)
    )
