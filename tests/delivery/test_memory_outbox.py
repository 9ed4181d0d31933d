"""What the outbox in memory promises beyond its contract: it may be filled from anywhere."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import pytest

from convert_middleware.delivery import Counts, Entry, MemoryOutbox, SqliteOutbox, Worth
from convert_middleware.delivery.opening import open_memory
from convert_middleware.errors import SettingsError

NOW: Final = 1_800_000_000.0


class Interrupting(str):
    """A text that does something at the very moment when the outbox, its lock held, measures it."""

    __slots__ = ("what",)
    what: Callable[[], object]

    def __len__(self) -> int:
        what, self.what = self.what, int
        what()
        return super().__len__()


def interrupting(what: Callable[[], object]) -> Entry:
    text = Interrupting("interrupting")
    text.what = what
    return hit(text)


def hit(text: str = "hit", worth: Worth = Worth.GOAL) -> Entry:
    return Entry(text, worth, NOW)


@contextmanager
def signal_handler(what: Callable[[], object]) -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, lambda *_: what() and None)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_handler_that_interrupts_a_handover_can_hand_over_itself() -> None:
    outbox = MemoryOutbox()

    with signal_handler(lambda: outbox.offer(hit("from the handler"))):
        outbox.offer(interrupting(lambda: signal.raise_signal(signal.SIGUSR1)))

    assert outbox.counts() == Counts(accepted=2, waiting=2)
    taken = asyncio.run(outbox.take(9, NOW))
    assert [str(entry.text) for entry in taken] == ["interrupting", "from the handler"]


def test_an_object_that_dies_in_a_garbage_collection_within_a_handover_can_hand_over() -> None:
    outbox = MemoryOutbox()

    class Mortal:
        def __init__(self) -> None:
            self.myself = self

        def __del__(self) -> None:
            outbox.offer(hit("last words"))

    Mortal()
    outbox.offer(interrupting(gc.collect))

    assert outbox.counts() == Counts(accepted=2, waiting=2)


def test_a_logging_handler_can_hand_over_within_a_handover() -> None:
    outbox = MemoryOutbox()

    class Tracking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            outbox.offer(hit(record.getMessage()))

    log = logging.getLogger("a site's own")
    handler = Tracking()
    log.addHandler(handler)
    outbox.offer(interrupting(lambda: log.error("logged")))
    log.removeHandler(handler)

    assert outbox.counts() == Counts(accepted=2, waiting=2)


@pytest.mark.parametrize("what", ["take", "next_due", "retry", "counts"])
def test_a_hit_handed_over_within_any_operation_is_found_by_the_next(what: str) -> None:
    outbox = MemoryOutbox()
    offered = 0

    def offer_once() -> None:
        nonlocal offered
        offered += 1
        outbox.offer(hit("within"))

    async def story() -> list[Entry]:
        entry = interrupting(int)
        outbox.offer(entry)
        assert isinstance(entry.text, Interrupting)
        if what == "retry":
            await outbox.take(1, NOW)
        entry.text.what = offer_once
        if what == "take":
            await outbox.take(1, NOW)
        elif what == "retry":
            await outbox.retry(entry, NOW)
        else:  # these measure only what is new
            outbox.offer(interrupting(offer_once))
            entry.text.what = int
            await outbox.next_due() if what == "next_due" else outbox.counts()
        return await outbox.take(9, NOW)

    taken = asyncio.run(story())

    assert offered == 1
    assert "within" in [entry.text for entry in taken]


def test_the_account_can_be_read_while_the_outbox_is_interrupted() -> None:
    outbox = MemoryOutbox()
    seen: list[Counts] = []

    outbox.offer(interrupting(lambda: seen.append(outbox.counts())))

    assert len(seen) == 1
    assert outbox.counts() == Counts(accepted=1, waiting=1)


def test_a_signal_handler_can_end_delivery_while_it_interrupts_the_outbox() -> None:
    outbox = MemoryOutbox()
    lost: list[int] = []

    def end() -> None:
        outbox.hurry()
        lost.append(outbox.abandon("shutdown", waiting=True))

    outbox.offer(interrupting(end))

    assert lost == [0]  # what the interrupted thread was doing nobody can say
    assert outbox.abandon("shutdown", waiting=True) == 1
    assert outbox.counts() == Counts(accepted=1, dropped={"shutdown": 1})


def test_thirty_two_threads_with_a_thousand_hits_each_are_counted_exactly() -> None:
    outbox = MemoryOutbox(max_hits=20_000)
    together = threading.Barrier(33)
    before = sys.getswitchinterval()

    def fill(_: int) -> None:
        together.wait(10)
        for _number in range(1000):
            outbox.offer(hit())

    async def empty() -> int:
        taken = 0
        together.wait(10)
        for _round in range(500):
            entries = await outbox.take(16, NOW)
            for entry in entries:
                await outbox.settle(entry)
            taken += len(entries)
        return taken

    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(33) as pool:
            emptied = pool.submit(asyncio.run, empty())
            list(pool.map(fill, range(32)))
            delivered = emptied.result()
    finally:
        sys.setswitchinterval(before)

    counts = outbox.counts()
    assert (counts.accepted, counts.delivered, counts.in_flight) == (32_000, delivered, 0)
    assert counts.waiting + counts.delivered + counts.dropped.get("overflow", 0) == 32_000
    assert counts.waiting <= 20_000


@pytest.mark.parametrize("room", range(1, 8))
def test_without_room_the_oldest_of_the_least_worth_goes_whether_it_was_tried_or_not(room: int) -> None:
    async def story() -> set[str]:
        outbox = MemoryOutbox(max_hits=8)
        for age in (5, 1, 3, 0):  # in this order they come, and will be due
            outbox.offer(Entry(f"{age}", Worth.GOAL, NOW + age))
        for entry in await outbox.take(4, NOW):
            await outbox.retry(entry, NOW + 100)
        for age in (2, 4, 6, 7):
            outbox.offer(Entry(f"{age}", Worth.GOAL, NOW + age))
        for _ in range(8 - room):
            outbox.offer(Entry("of more worth", Worth.REVENUE, NOW))
        return {entry.text for entry in await outbox.take(9, NOW + 100)} - {"of more worth"}

    assert asyncio.run(story()) == {f"{age}" for age in range(8 - room, 8)}


def test_hits_that_are_tried_again_and_again_need_no_more_room() -> None:
    async def story() -> int:
        outbox = MemoryOutbox()
        for number in range(100):
            outbox.offer(hit(f"{number}"))
        tracemalloc.start()
        try:
            for moment in range(200):
                for entry in await outbox.take(100, NOW + moment):
                    await outbox.retry(entry, NOW + moment)
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    assert asyncio.run(story()) < 100_000


def test_what_has_no_room_is_dropped_and_counted_exactly_and_the_most_valuable_stays() -> None:
    outbox = MemoryOutbox(max_hits=100)
    for number in range(1000):
        outbox.offer(hit(worth=Worth.REVENUE if number % 10 == 0 else Worth.EXPOSURE))

    assert outbox.counts() == Counts(accepted=1000, waiting=100, dropped={"overflow": 900})
    taken = asyncio.run(outbox.take(1000, NOW))
    assert {entry.worth for entry in taken} == {Worth.REVENUE}


def test_a_flood_leaves_memory_bounded() -> None:
    outbox = MemoryOutbox(max_hits=1000, max_bytes=200_000)
    tracemalloc.start()
    try:
        for number in range(20_000):
            outbox.offer(hit(f"{number:0100d}"))
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert size < 1_000_000


@pytest.mark.parametrize(
    "wrong",
    [
        "", "memory", "memory:/", "memory://here", "redis://", "memory://?max_hits=0", "memory://?max_hits=-1",
        "memory://?max_hits=1.5", "memory://?max_hits=" + "9" * 30, "memory://?max_bytes=2,000",
        "memory://?colour=red", "memory://?max_hits=٣", None, 7, b"memory://",
    ],
    ids=str,
)  # fmt: skip
def test_an_impossible_outbox_is_refused_by_name(wrong: object) -> None:
    with pytest.raises(SettingsError, match=r"^outbox "):
        open_memory(wrong)


def test_an_outbox_is_named_by_url_or_given() -> None:
    given = MemoryOutbox()
    small = open_memory("memory://?max_hits=2&max_bytes=1000")
    for _ in range(5):
        small.offer(hit())

    assert open_memory(given) is given
    assert small.counts().waiting == 2
    assert isinstance(open_memory("memory://"), MemoryOutbox)


@pytest.mark.parametrize("wrong", ["x", 0, -1, 1.5, True, None])
@pytest.mark.parametrize("limit", ["max_hits", "max_bytes"])
@pytest.mark.parametrize("kind", [MemoryOutbox, partial(SqliteOutbox, "o.db")])
def test_a_limit_that_makes_no_sense_is_refused_by_name(kind: Any, limit: str, wrong: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        kind(**{limit: wrong})
    assert caught.value.option == limit
    assert repr(wrong) in str(caught.value)
