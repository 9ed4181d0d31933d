"""Starting, flushing and ending the delivery thread."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from convert_middleware import Settings, Tracker
from convert_middleware.delivery import Counts, Delivery, HttpxSender, Policy, Worth
from tests.servers import TrackingServer, after, answer, stall

from .conftest import Deliver, until

if TYPE_CHECKING:
    from convert_middleware.hooks import Event

SECRET = "a secret of at least 16 bytes"


def tracker_for(endpoint: str) -> Tracker:
    # The fast sender's runtime is the process's own and keeps its files open, as no thread of ours may.
    return Tracker(
        Settings(project_id="1", customer_id="2", secret_key=SECRET, endpoint=endpoint, sender="httpx")
    )


def test_a_flush_of_half_a_second_against_a_stalled_server_returns_in_time(deliver: Deliver) -> None:
    with TrackingServer(default=stall()) as server:
        delivery = deliver(server.endpoint)
        for number in range(100):
            delivery.hand_over(f"n={number}", Worth.GOAL)
        server.until_requests(16)
        began = time.monotonic()
        done = delivery.flush(0.5)
        took = time.monotonic() - began

        assert not done
        assert 0.4 < took < 0.6
        began = time.monotonic()
        assert not delivery.close(0.3)
        assert time.monotonic() - began < 1.0
    assert delivery.counts() == Counts(accepted=100, dropped={"shutdown": 100})


@pytest.mark.parametrize("failures", [1, 4], ids=["once", "until the server counts as down"])
def test_a_flush_cuts_the_wait_of_what_fails_while_it_waits(
    failures: int, tracking_server: TrackingServer, deliver: Deliver
) -> None:
    tracking_server.script(*[after(0.1, answer(503))] * failures)
    delivery = deliver(tracking_server.endpoint, Policy(first_delay=1e6, max_delay=1e6))
    for number in range(failures):
        delivery.hand_over(f"n={number}", Worth.GOAL)
    tracking_server.until_requests(failures)

    assert delivery.flush(20.0)
    assert delivery.counts() == Counts(accepted=failures, delivered=failures)


def test_a_flush_waits_although_new_hits_keep_coming(
    tracking_server: TrackingServer, deliver: Deliver
) -> None:
    delivery = deliver(tracking_server.endpoint)
    stop = threading.Event()

    def visit() -> None:
        for number in range(100_000):
            delivery.hand_over(f"n={number}", Worth.GOAL)
            if stop.wait(0.005):  # far slower than they leave, also on a busy machine
                return

    visitors = threading.Thread(target=visit)
    visitors.start()
    try:
        assert all(delivery.flush(20.0) for _ in range(5))
    finally:
        stop.set()
        visitors.join()
    assert delivery.flush(20.0)


def test_no_wake_up_is_lost(tracking_server: TrackingServer, deliver: Deliver) -> None:
    delivery = deliver(tracking_server.endpoint)

    def all_delivered() -> bool:
        counts = delivery.counts()
        return counts.delivered == counts.accepted

    for number in range(150):  # each is handed over in another moment of the worker's falling asleep
        delivery.hand_over(f"n={number}", Worth.GOAL)
        until(all_delivered, 2.0)


@pytest.mark.parametrize("threads", [1, 8])
def test_closing_again_or_at_the_same_time_delivers_everything_once(
    threads: int, tracking_server: TrackingServer, deliver: Deliver
) -> None:
    for _round in range(5):
        delivery = deliver(tracking_server.endpoint)
        for number in range(40):
            delivery.hand_over(f"n={number}", Worth.GOAL)
        with ThreadPoolExecutor(threads) as pool:
            assert all(pool.map(delivery.close, [5.0] * 8))
        assert delivery.counts() == Counts(accepted=40, delivered=40)
    assert len(tracking_server.requests) == 200


def test_a_close_while_the_first_hit_starts_the_thread_counts_right(
    tracking_server: TrackingServer, deliver: Deliver
) -> None:
    for _round in range(30):
        delivery = deliver(tracking_server.endpoint)
        together = threading.Barrier(3)

        def visit(delivery: Delivery = delivery, together: threading.Barrier = together) -> bool:
            together.wait(5)
            return delivery.hand_over("n=1", Worth.GOAL)

        with ThreadPoolExecutor(2) as pool:
            for _ in range(2):
                pool.submit(visit)
            together.wait(5)
            delivery.close(5.0)
        delivery.close(5.0)
        counts = delivery.counts()
        assert counts.accepted == counts.delivered + counts.dropped.get("shutdown", 0)
        assert (counts.waiting, counts.in_flight) == (0, 0)


def test_a_hook_can_close_and_flush_from_the_delivery_thread(
    tracking_server: TrackingServer, deliver: Deliver
) -> None:
    returned: list[bool] = []
    all_there = threading.Event()

    def hook(event: Event) -> None:
        all_there.wait(5)
        if not returned:
            returned.extend([delivery.flush(20.0), delivery.close(5)])

    delivery = deliver(tracking_server.endpoint, hook=hook)
    for number in range(20):
        delivery.hand_over(f"n={number}", Worth.GOAL)
    all_there.set()

    until(lambda: delivery.counts().delivered + delivery.counts().dropped.get("shutdown", 0) >= 1)
    until(lambda: not delivery.counts().waiting and not delivery.counts().in_flight)
    assert returned == [False, False]
    assert not delivery.hand_over("late", Worth.GOAL)


def test_a_hit_after_close_is_refused_counted_and_warned_about_once(
    tracking_server: TrackingServer, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = tracker_for(tracking_server.endpoint)
    with tracker.resume(Recorded(tracker).token) as recorder:
        recorder.goal(1)
    tracker.close()
    for goal in (2, 3, 4):
        with tracker.resume(Recorded(tracker).token) as recorder:
            recorder.goal(goal)

    assert (tracker.stats().accepted, tracker.stats().delivered, tracker.stats().refused) == (1, 1, 3)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in warnings] == ["A hit was refused: the tracker is closed."]


class Recorded:
    """A new visitor's token."""

    def __init__(self, tracker: Tracker) -> None:
        visitor = tracker.load(()).visitor
        self.token = tracker.write_token(visitor)


def test_a_drained_delivery_starts_again_with_the_next_hit(
    tracking_server: TrackingServer, deliver: Deliver
) -> None:
    delivery = deliver(tracking_server.endpoint)
    for number in range(3):
        delivery.hand_over(f"n={number}", Worth.GOAL)
        assert delivery.drain(5)

    assert delivery.counts() == Counts(accepted=3, delivered=3)


def test_after_a_crash_the_thread_goes_on_by_itself_while_hits_wait(
    tracking_server: TrackingServer, deliver: Deliver, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[float] = []

    def make_sender() -> HttpxSender:
        made.append(time.monotonic())
        if len(made) == 1:
            raise RuntimeError("of the sender's")
        return HttpxSender(tracking_server.endpoint)

    delivery = deliver(tracking_server.endpoint, make_sender=make_sender)
    for number in range(3):
        delivery.hand_over(f"n={number}", Worth.GOAL)

    until(lambda: delivery.counts().delivered == 3)
    assert "The delivery thread ended: RuntimeError" in caplog.messages
    assert made[1] - made[0] > 0.9


def test_a_thread_that_always_crashes_rests_between_and_lets_itself_be_closed(deliver: Deliver) -> None:
    made: list[float] = []

    def make_sender() -> HttpxSender:
        made.append(time.monotonic())
        raise RuntimeError("of the sender's")

    delivery = deliver("", make_sender=make_sender)
    began = time.monotonic()
    for number in range(1000):
        delivery.hand_over(f"n={number}", Worth.GOAL)
    until(lambda: made)
    assert len(made) == 1
    assert not delivery.flush(0.1)
    assert not delivery.close(2.0)
    assert time.monotonic() < began + 2.0
    assert len(made) <= 4
    assert delivery.counts() == Counts(accepted=1000, dropped={"shutdown": 1000})


def test_thousands_of_trackers_leave_nothing_behind() -> None:
    before = threading.active_count()
    gone = []
    for _ in range(2000):
        tracker = tracker_for("http://127.0.0.1:9/track/")
        gone.append(weakref.ref(tracker))
        del tracker
    gc.collect()

    assert not any(reference() for reference in gone)
    assert threading.active_count() == before


def test_a_tracker_that_nobody_closed_delivers_and_ends_its_thread(tracking_server: TrackingServer) -> None:
    before = set(threading.enumerate())
    tracker = tracker_for(tracking_server.endpoint)
    with tracker.resume(Recorded(tracker).token) as recorder:
        recorder.goal(331)
    del tracker, recorder
    gc.collect()

    tracking_server.until_requests(1)
    until(lambda: set(threading.enumerate()) <= before)


def test_ending_delivery_from_within_its_own_outbox_does_not_lock_up(
    tracking_server: TrackingServer, deliver: Deliver
) -> None:
    class Last(str):
        __slots__ = ()

        def __len__(
            self,
        ) -> int:  # the outbox measures it with its lock held, as a collection may strike then
            delivery.signal_stop(time.monotonic() + 5)
            return super().__len__()

    delivery = deliver(tracking_server.endpoint)
    handed = threading.Thread(target=delivery.hand_over, args=(Last("n=1"), Worth.GOAL), daemon=True)
    handed.start()
    handed.join(5)

    assert not handed.is_alive()
    until(lambda: delivery.counts().delivered == 1)


def test_log_lines_of_a_kind_come_at_most_once_a_minute(
    tracking_server: TrackingServer, deliver: Deliver, caplog: pytest.LogCaptureFixture
) -> None:
    tracking_server.default = answer(404)
    delivery = deliver(tracking_server.endpoint)
    for number in range(50):
        delivery.hand_over(f"secret={number}", Worth.GOAL)
    assert delivery.flush(20.0)

    assert len([record for record in caplog.records if record.name == "convert_middleware"]) == 1
    assert "secret" not in caplog.text
