"""The end of a delivery whose outbox outlives it: what is left stays there."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

from convert_middleware.delivery import Counts, Delivery, HttpxSender, ShelteredOutbox, Worth
from convert_middleware.delivery.sqlite import SqliteOutbox
from convert_middleware.hooks import Announcer, Event, HitDelivered
from tests.servers import TrackingServer, answer, stall

from .conftest import QUICK, Deliver, until

if TYPE_CHECKING:
    from pathlib import Path


def durable(path: Path, endpoint: str, busy: float = 5.0) -> Delivery:
    announcer = Announcer((), time.monotonic)
    outbox = ShelteredOutbox(SqliteOutbox(path, busy=busy), lambda _: None)
    return Delivery(outbox, lambda: HttpxSender(endpoint), QUICK, announcer)


def test_without_time_to_deliver_what_was_handed_over_stays_in_the_file(
    tmp_path: Path, tracking_server: TrackingServer
) -> None:
    delivery = durable(tmp_path / "outbox.db", tracking_server.endpoint)
    for number in range(100):
        delivery.hand_over(f"n={number}", Worth.GOAL)

    assert delivery.close(0)
    assert delivery.counts() == Counts(100, waiting=100)
    assert tracking_server.requests == []


def test_without_time_to_deliver_a_running_thread_begins_nothing_more(
    tmp_path: Path, tracking_server: TrackingServer
) -> None:
    delivery = durable(tmp_path / "outbox.db", tracking_server.endpoint)
    delivery.hand_over("n=0", Worth.GOAL)
    assert delivery.flush(5.0)
    for number in range(1, 101):
        delivery.hand_over(f"n={number}", Worth.GOAL)

    assert delivery.close(0)
    assert delivery.counts() == Counts(101, delivered=1, waiting=100)
    assert len(tracking_server.requests) == 1


def test_an_end_that_interrupts_what_may_have_left_is_not_called_clean(tmp_path: Path) -> None:
    with TrackingServer(default=stall()) as server:
        delivery = durable(tmp_path / "outbox.db", server.endpoint)
        delivery.hand_over("n=0", Worth.GOAL)
        server.until_requests(1)

        assert not delivery.close(0.1)
        assert delivery.counts() == Counts(1, dropped={"interrupted": 1})


def test_hits_that_come_while_a_thread_ends_late_are_delivered_afterwards(
    tmp_path: Path, tracking_server: TrackingServer
) -> None:
    tracking_server.default = answer()
    path = tmp_path / "outbox.db"
    delivery = durable(path, tracking_server.endpoint, busy=7.0)
    delivery.hand_over("n=0", Worth.GOAL)
    assert delivery.flush(5.0)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        delivery.hand_over("n=1", Worth.GOAL)
        until(lambda: delivery.counts().in_flight)

        assert not delivery.drain(0.1)
        for number in range(2, 12):
            delivery.hand_over(f"n={number}", Worth.GOAL)

    until(lambda: delivery.counts() == Counts(12, delivered=12), 10.0)
    assert delivery.close(5.0)


def test_what_is_closed_never_starts_again(tmp_path: Path, tracking_server: TrackingServer) -> None:
    delivery = durable(tmp_path / "outbox.db", tracking_server.endpoint)
    for number in range(10):
        delivery.hand_over(f"n={number}", Worth.GOAL)
    assert delivery.close(0)  # nothing is lost, and all waits in the file

    delivery.start()
    delivery.wake()
    assert not delivery.flush(0.2)
    began = time.monotonic()
    assert delivery.close(5.0)
    assert time.monotonic() - began < 1.0
    assert delivery.counts() == Counts(10, waiting=10)
    assert tracking_server.requests == []


def test_a_keyboard_interrupt_that_a_hook_raises_in_the_thread_loses_nothing_in_flight(
    tracking_server: TrackingServer, deliver: Deliver
) -> None:
    interrupts = [KeyboardInterrupt()]

    def hook(event: Event) -> None:
        if isinstance(event, HitDelivered) and interrupts:
            raise interrupts.pop()

    delivery = deliver(tracking_server.endpoint, hook=hook)
    for number in range(100):
        delivery.hand_over(f"n={number}", Worth.GOAL)

    assert delivery.flush(10.0)
    assert interrupts == []
    assert delivery.counts() == Counts(100, delivered=100)
