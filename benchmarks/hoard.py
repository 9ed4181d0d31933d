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

    from convert_middleware import Stats
    from convert_middleware.delivery import Counts

    Hoard = Callable[[int], Counts | Stats]  # lets so many hits wait; 0: tells what became of them

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

        def hoard(number: int) -> Counts:
            for text in queries(number, seed=number):
                delivery.hand_over(text, Worth.GOAL)
            return delivery.counts()

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

        def hoard(number: int) -> Stats:
            for _ in range(number):
                headers_of_answer(middleware, request(b""))
            return tracker.stats()

        yield hoard


def main(what: str, how: str, number: int) -> None:
    """Let ``number`` hits wait and say how many bytes each takes."""
    measure = {"traced": traced, "resident": resident}[how]
    with {"hits": hits, "visitors": visitors}[what]() as hoard:
        hoard(_FIRST)
        wait_for_lanes(partial(hoard, 0))
        if how == "traced":
            tracemalloc.start()
        gc.collect()
        before = measure()
        counts = hoard(number - _FIRST)
        gc.collect()
        grown = measure() - before
    if counts.waiting < 0.99 * number:
        raise RuntimeError(f"of {number} hits only {counts.waiting} wait")
    say({"bytes": grown / (number - _FIRST)})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
