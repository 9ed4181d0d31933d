"""Whatever a hit is dropped for, and wherever, hooks hear of it once and the log says it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from convert_middleware.delivery import Entry, HttpxSender, MemoryOutbox, Policy, ShelteredOutbox, Worth
from convert_middleware.delivery.losses import Losses
from convert_middleware.delivery.redis_streams import RedisOutbox
from convert_middleware.delivery.sqlite import SqliteOutbox
from convert_middleware.delivery.worker import LANES, Worker
from convert_middleware.hooks import Announcer, Event, HitDropped
from tests.redis_server import RedisServer
from tests.servers import Behaviour, Seen, TrackingServer, answer, stall

from .conftest import Deliver, until

if TYPE_CHECKING:
    from pathlib import Path

    from convert_middleware.delivery import Delivery
    from convert_middleware.errors import ConvertError

NOW: Final = 1_800_000_000.0
PATIENT: Final = Policy(first_delay=1e6, max_delay=1e6)


class Diary:
    """A hook that notes what was dropped."""

    def __init__(self) -> None:
        self.heard: list[HitDropped] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, HitDropped):
            self.heard.append(event)

    def dropped(self) -> dict[str, int]:
        """Return how many hits by reason, all events together."""
        numbers: Counter[str] = Counter()
        for event in self.heard:
            numbers[event.reason] += event.number
        return dict(numbers)


@pytest.fixture
def diary() -> Diary:
    return Diary()


def hand_over(delivery: Delivery, number: int, worth: Worth = Worth.GOAL) -> None:
    for hit in range(number):
        delivery.hand_over(f"n={hit}", worth)


def ignore(error: ConvertError | None) -> None:
    """Stand in for who is told that a store fails."""


def test_what_has_no_room_is_told_although_every_lane_is_busy(
    tracking_server: TrackingServer, diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    tracking_server.default = stall()

    async def story() -> None:
        outbox = MemoryOutbox(max_hits=100)
        announcer = Announcer([diary], time.monotonic)
        make_sender = partial(HttpxSender, tracking_server.endpoint)
        worker = Worker(outbox, make_sender, Policy(), announcer, time.time, look_every=0.02)
        for number in range(LANES):
            outbox.offer(Entry(f"n={number}", Worth.GOAL, NOW))
        working = asyncio.create_task(worker.run())
        await asyncio.to_thread(tracking_server.until_requests, LANES)
        for number in range(150):
            outbox.offer(Entry(f"m={number}", Worth.GOAL, NOW))
        await asyncio.to_thread(until, lambda: diary.dropped() == {"overflow": 50})
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    asyncio.run(story())
    assert caplog.text.count("The outbox is full; hits dropped to make room: 50.") == 1


def test_what_is_left_at_the_end_is_told_as_a_number(
    tracking_server: TrackingServer, deliver: Deliver, diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    tracking_server.default = stall()
    delivery = deliver(tracking_server.endpoint, hook=diary)
    hand_over(delivery, 50)
    tracking_server.until_requests(LANES)
    assert not delivery.close(0.1)

    assert diary.dropped() == delivery.counts().dropped == {"shutdown": 50}
    assert len(diary.heard) <= 2
    assert "The end came before everything was delivered; hits dropped: 50." in caplog.text
    assert not delivery.close(0.1)
    assert diary.dropped() == {"shutdown": 50}


def test_what_a_thread_was_sending_that_ended_unexpectedly_is_told(
    tracking_server: TrackingServer, deliver: Deliver, diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    broken: list[Exception] = []

    def clock() -> float:
        if broken:
            raise broken.pop()
        return NOW

    tracking_server.default = stall()
    delivery = deliver(tracking_server.endpoint, hook=diary, clock=clock)
    hand_over(delivery, LANES)
    tracking_server.until_requests(LANES)
    broken.append(OSError("of the clock's"))
    delivery.flush(0.01)

    until(diary.dropped)
    assert diary.dropped() == {"interrupted": LANES}
    assert "The delivery thread ended: OSError" in caplog.messages
    assert f"hits dropped that may have arrived: {LANES}." in caplog.text


def test_a_delivery_that_starts_again_tells_nothing_twice(
    tracking_server: TrackingServer, deliver: Deliver, diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    tracking_server.default = stall()
    delivery = deliver(tracking_server.endpoint, hook=diary)
    for lost in (5, 10, 15):
        hand_over(delivery, 5)
        assert not delivery.drain(0.1)
        assert diary.dropped() == {"shutdown": lost}
    assert caplog.text.count("hits dropped: 5.") == 1  # within a minute


def test_what_waited_in_a_file_that_is_gone_is_told(
    tmp_path: Path, tracking_server: TrackingServer, deliver: Deliver, diary: Diary,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    tracking_server.default = answer(503)
    path = tmp_path / "outbox.db"
    outbox = ShelteredOutbox(SqliteOutbox(path), ignore)
    delivery = deliver(tracking_server.endpoint, PATIENT, diary, outbox=outbox)
    hand_over(delivery, 20)
    until(lambda: "is down" in caplog.text and delivery.counts().in_flight == 0)
    until(lambda: outbox.in_memory() == 0)
    path.unlink()
    delivery.hand_over("n=20", Worth.GOAL)

    until(lambda: "file lost" in diary.dropped())
    assert diary.dropped() == {"file lost": 20}
    assert "The file of the outbox is gone or broken; hits dropped that waited in it: 20." in caplog.text
    tracking_server.default = answer()
    assert delivery.flush(10.0)


def test_what_redis_lost_is_told(
    tracking_server: TrackingServer, deliver: Deliver, diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    tracking_server.default = answer(503)
    with RedisServer() as server:
        outbox = ShelteredOutbox(RedisOutbox(server.url), ignore)
        delivery = deliver(tracking_server.endpoint, PATIENT, diary, outbox=outbox)
        hand_over(delivery, 20)
        until(lambda: "is down" in caplog.text and delivery.counts().in_flight == 0)
        until(lambda: outbox.in_memory() == 0)
        server.say("FLUSHALL")
        delivery.hand_over("n=20", Worth.GOAL)

        until(lambda: "store lost" in diary.dropped())
        assert diary.dropped() == {"store lost": 20}
        assert "Redis has lost its data; hits dropped that waited there: 20." in caplog.text
        tracking_server.default = answer()
        assert delivery.close(10.0)


def test_what_others_took_over_from_a_process_that_slept_is_told_by_both(
    tmp_path: Path, tracking_server: TrackingServer, deliver: Deliver, diary: Diary,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    now = [NOW]
    awake = threading.Event()

    def choose(_seen: Seen) -> Behaviour:
        assert awake.wait(5.0)
        return answer(503)

    tracking_server.default = choose
    path = tmp_path / "outbox.db"
    outbox = ShelteredOutbox(SqliteOutbox(path, clock=lambda: now[0]), ignore)
    delivery = deliver(tracking_server.endpoint, PATIENT, diary, outbox=outbox, clock=lambda: now[0])
    delivery.hand_over("n=1", Worth.GOAL)
    tracking_server.until_requests(1)
    now[0] += 60.0
    heir, heard = SqliteOutbox(path, clock=lambda: now[0]), Diary()
    asyncio.run(heir.take(1, now[0]))
    Losses(heir, Announcer([heard], time.monotonic)).tell()
    awake.set()

    until(diary.dropped)
    assert diary.dropped() == {"lease lost": 1}
    assert heard.dropped() == {"interrupted": 1}
    assert "hits that others took over, dropped here: 1." in caplog.text
    asyncio.run(heir.close())


def test_each_hit_that_may_have_been_counted_is_told_at_once(
    tracking_server: TrackingServer, deliver: Deliver, diary: Diary
) -> None:
    tracking_server.default = answer(504)
    delivery = deliver(tracking_server.endpoint, hook=diary)
    hand_over(delivery, 3)

    until(lambda: diary.dropped() == {"ambiguous": 3})
