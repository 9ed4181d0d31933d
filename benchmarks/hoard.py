"""A child that lets hits wait and tells what memory that takes.

    python -m benchmarks.hoard hits|visitors traced|resident NUMBER

``hits``: query strings handed to delivery. ``visitors``: new visitors through the whole middleware, so that
all it remembers of them is there too. ``traced``: what the interpreter's allocator gave out. ``resident``:
what the process grew.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
import tracemalloc
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.children import say
from benchmarks.in_process import Receive, Scope, Send, answer, headers_of_answer, request
from benchmarks.stalled import stalled_server, stalled_tracker, wait_for_lanes
from benchmarks.visitors import queries
from convert_middleware import ConvertMiddleware
from convert_middleware.delivery import Delivery, HttpxSender, MemoryOutbox, Policy, Worth
from convert_middleware.hooks import Announcer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Hoard = Callable[[int], int]  # lets so many wait, returns how many do

_FIRST: Final = 200  # whatever the first hits cost is not what the others cost


def resident() -> int:
    """Return the bytes of memory this process has in use."""
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def traced() -> int:
    """Return the bytes that the interpreter's allocator has given out."""
    return tracemalloc.get_traced_memory()[0]


@contextmanager
def hits() -> Iterator[Hoard]:
    """Hand over query strings of 150 to 300 bytes."""
    with stalled_server() as endpoint:
        delivery = Delivery(
            MemoryOutbox(), partial(HttpxSender, endpoint), Policy(), Announcer((), time.monotonic)
        )

        def hoard(number: int) -> int:
            for text in queries(number, seed=number):
                delivery.hand_over(text, Worth.GOAL)
            wait_for_lanes(delivery.counts)
            counts = delivery.counts()
            return counts.waiting + counts.in_flight

        try:
            yield hoard
        finally:
            delivery.close(0)


@contextmanager
def visitors() -> Iterator[Hoard]:
    """Serve new visitors who are presented a variation and reach a goal."""

    async def page(scope: Scope, _receive: Receive, send: Send) -> None:
        scope["state"]["convert"].experiment(1004411111, 1004422222)
        scope["state"]["convert"].goal(1004433333)
        await answer(send)

    with stalled_tracker("a secret of at least sixteen bytes") as tracker:
        middleware = ConvertMiddleware(page, tracker=tracker)

        def hoard(number: int) -> int:
            for _ in range(number):
                headers_of_answer(middleware, request(b""))
            wait_for_lanes(tracker.stats)
            stats = tracker.stats()
            return stats.waiting + stats.in_flight

        yield hoard


def main(what: str, how: str, number: int) -> None:
    """Let ``number`` hits wait and say how many bytes each takes."""
    measure = {"traced": traced, "resident": resident}[how]
    with {"hits": hits, "visitors": visitors}[what]() as hoard:
        before_waiting = hoard(_FIRST)
        if how == "traced":
            tracemalloc.start()
        gc.collect()
        before = measure()
        waiting = hoard(number - _FIRST) - before_waiting
        gc.collect()
        grown = measure() - before
    if waiting < (number - _FIRST) * 0.99:
        raise RuntimeError(f"only {waiting} hits wait")
    say({"bytes": grown / waiting})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
