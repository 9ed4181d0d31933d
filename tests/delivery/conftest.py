"""A delivery of real parts, its account checked and its house clean when it ends."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from convert_middleware.delivery import Counts, Delivery, HttpxSender, MemoryOutbox, Policy
from convert_middleware.hooks import Announcer, Event

PATIENCE: Final = 5.0  # seconds
QUICK: Final = Policy(first_delay=0.01, max_delay=0.02)

Deliver = Callable[..., Delivery]


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Block until ``condition`` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.002)  # nothing tells when a thread of ours has done something


def balanced(counts: Counts) -> bool:
    """The conservation law."""
    parts = (counts.delivered, counts.waiting, counts.in_flight, counts.dead, *counts.dropped.values())
    return counts.accepted == sum(parts) and min(parts) >= 0


@pytest.fixture
def deliver() -> Iterator[Deliver]:
    """Make deliveries to an endpoint; each is closed afterwards, its account balanced, nothing waiting."""
    made: list[Delivery] = []

    def make(
        endpoint: str, policy: Policy = QUICK, hook: Callable[[Event], object] | None = None, **options: Any
    ) -> Delivery:
        announcer = Announcer((hook,) if hook else (), time.monotonic)
        sender = options.pop("make_sender", lambda: HttpxSender(endpoint))
        delivery = Delivery(options.pop("outbox", MemoryOutbox()), sender, policy, announcer, **options)
        made.append(delivery)
        return delivery

    yield make
    for delivery in made:
        delivery.close(0.2)
        counts = delivery.counts()
        assert balanced(counts), counts
        assert (counts.waiting, counts.in_flight) == (0, 0)


@pytest.fixture(autouse=True)
def nothing_leaks(nothing_is_left_behind: None, nothing_is_told: None) -> Iterator[None]:
    """After each test there are no more threads and no more open files than before."""
    before, files = set(threading.enumerate()), _open_files()
    yield
    gc.collect()
    until(lambda: set(threading.enumerate()) <= before)
    until(lambda: _open_files() <= files)


def _open_files() -> set[str]:
    found = set()
    for number in os.listdir("/proc/self/fd") if Path("/proc/self/fd").exists() else ():  # noqa: PTH208 - fewer files
        with suppress(OSError):
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")  # noqa: PTH115 - sockets have no path
    return {each for each in found if "/fd" not in each}
