"""A long queue that is there at the start, in every outbox that survives a process."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections import Counter
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from convert_middleware.delivery import Counts, Entry, ShelteredOutbox, Worth
from convert_middleware.delivery.sqlite import SqliteOutbox

from .conftest import Deliver, until

if TYPE_CHECKING:
    from pathlib import Path

    from convert_middleware.errors import ConvertError
    from tests.servers import TrackingServer

T = TypeVar("T")
NOW: Final = 1_800_000_000.0
BACKLOG: Final = 30_000


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def leave_behind(path: Path, number: int, accepted_at: float = NOW, worth: Worth = Worth.GOAL) -> None:
    """Leave hits in a file, as a process does that ended."""
    outbox = SqliteOutbox(path, clock=lambda: accepted_at)
    entries = [Entry(f"old={hit}", worth, accepted_at) for hit in range(number)]
    run(outbox.put(entries))
    run(outbox.close())


def test_a_long_backlog_is_taken_piece_by_piece_in_bounded_memory(tmp_path: Path) -> None:
    leave_behind(tmp_path / "outbox.db", BACKLOG)
    outbox = SqliteOutbox(tmp_path / "outbox.db", clock=lambda: NOW)

    taken: list[Entry] = []

    async def begin() -> None:
        for _ in range(51):
            for entry in taken:
                await outbox.settle(entry)
            taken[:] = await outbox.take(10, NOW)

    tracemalloc.start()
    try:
        run(begin())
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    run(outbox.release())
    run(outbox.close())

    assert most < 1_000_000  # as rows alone the backlog is several times that
    assert [entry.text for entry in taken] == [f"old={number}" for number in range(500, 510)]


def test_a_backlog_that_is_too_old_does_not_hold_up_what_is_new(
    tmp_path: Path, tracking_server: TrackingServer, deliver: Deliver
) -> None:
    leave_behind(tmp_path / "outbox.db", 3000)
    now = NOW + 3601.0
    outbox = SqliteOutbox(tmp_path / "outbox.db", clock=lambda: now)
    delivery = deliver(tracking_server.endpoint, outbox=ShelteredOutbox(outbox, _say), clock=lambda: now)
    delivery.hand_over("new=1", Worth.EXPOSURE)

    until(lambda: delivery.counts().delivered == 1, 10.0)
    assert tracking_server.targets == ["/track/?new=1"]
    assert delivery.counts() == Counts(accepted=3001, delivered=1, dropped={"expired": 3000})


def test_what_comes_while_a_backlog_is_sent_arrives_with_it_and_each_hit_once(
    tmp_path: Path, tracking_server: TrackingServer, deliver: Deliver
) -> None:
    leave_behind(tmp_path / "outbox.db", 300)
    outbox = SqliteOutbox(tmp_path / "outbox.db", clock=lambda: NOW)
    delivery = deliver(tracking_server.endpoint, outbox=ShelteredOutbox(outbox, _say), clock=lambda: NOW)
    for number in range(100):
        delivery.hand_over(f"new={number}", Worth.EXPOSURE)
        tracking_server.until_requests(number + 1)  # it goes on meanwhile

    until(lambda: delivery.counts().delivered == 400, 20.0)
    expected = [f"/track/?old={number}" for number in range(300)]
    expected += [f"/track/?new={number}" for number in range(100)]
    assert sorted(tracking_server.targets) == sorted(expected)
    assert delivery.counts() == Counts(accepted=400, delivered=400)


def test_a_backlog_of_hits_that_failed_before_leaves_every_other_turn_to_new_ones(
    tmp_path: Path, tracking_server: TrackingServer, deliver: Deliver
) -> None:
    failed = [Entry(f"old={number}", Worth.GOAL, NOW, attempts=1) for number in range(300)]
    leaving = SqliteOutbox(tmp_path / "outbox.db", clock=lambda: NOW)
    run(leaving.put(failed))
    for entry in run(leaving.take(300, NOW)):
        run(leaving.retry(entry, NOW))
    run(leaving.put([Entry(f"new={number}", Worth.EXPOSURE, NOW) for number in range(60)]))
    run(leaving.close())
    outbox = SqliteOutbox(tmp_path / "outbox.db", clock=lambda: NOW)
    delivery = deliver(tracking_server.endpoint, outbox=ShelteredOutbox(outbox, _say), clock=lambda: NOW)
    delivery.start()
    until(lambda: delivery.counts().delivered == 360, 10.0)
    kinds = ["new" if "new" in target else "old" for target in tracking_server.targets]
    assert Counter(kinds) == {"new": 60, "old": 300}
    # They leave by turns, sixteen at once at most; answers that are late shift it a little.
    assert kinds[:160].count("new") == 60
    assert kinds[:160].count("old") >= 60


def test_room_is_counted_anew_with_what_is_there_at_the_start(tmp_path: Path) -> None:
    leave_behind(tmp_path / "outbox.db", 1000)
    outbox = SqliteOutbox(tmp_path / "outbox.db", clock=lambda: NOW, max_hits=100)
    run(outbox.put([Entry("paid", Worth.REVENUE, NOW)]))

    assert outbox.counts().dropped["overflow"] == 901
    taken = run(outbox.take(1000, NOW))
    assert len(taken) == 100
    assert taken[-1].text == "paid"
    run(outbox.release())
    run(outbox.close())


def _say(error: ConvertError | None) -> None:
    assert error is None
