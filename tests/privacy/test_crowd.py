"""Many visitors record and withdraw at once, and others ask how things stand."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import pytest

from convert_middleware.wire import decode
from tests.asgi.conftest import warnings_of
from tests.tracker.visits import Visit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.asgi.conftest import Convert

GPC: Final = (b"sec-gpc", b"1")
THREADS: Final = 4
VISITORS: Final = 150  # of each thread


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns so often that what may come between two steps does."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # seconds
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("restless")
def test_withdrawals_in_the_midst_of_a_crowd_lose_nothing_of_others(
    convert: Convert, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = convert.tracker(hooks=[], outbox="memory://")

    def come_and_go(thread: int) -> None:
        for number in range(VISITORS):
            goal = 1 + thread * VISITORS + number
            visit = Visit(tracker)
            visit.convert.goal(goal)
            cookie = visit.respond()
            if number % 2:
                header = (b"cookie", b"convert_visitor=" + cookie)
                assert tracker.meet(b"convert_visitor", "GET", "/", b"", [header, GPC]).withdrawn
            tracker.stats()

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(come_and_go, range(THREADS)))
    assert tracker.flush(20.0)

    told = [goal for target in convert.server.targets for goal in decode(target.partition("?")[2]).goals]
    stayed = {1 + thread * VISITORS + number for thread in range(THREADS) for number in range(0, VISITORS, 2)}
    assert stayed <= set(told)
    assert len(set(told)) == len(told)
    stats = tracker.stats()
    assert stats.delivered == len(told)
    assert set(stats.dropped) <= {"withdrawn"}
    assert warnings_of(caplog) == []
