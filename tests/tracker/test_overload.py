"""A server that stopped answering while the site goes on selling."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from convert_middleware import MemoryOutbox
from convert_middleware.delivery.worker import LANES
from convert_middleware.errors import SettingsError
from convert_middleware.wire import decode
from tests.asgi.conftest import warnings_of
from tests.delivery.conftest import until
from tests.servers import answer, stall
from tests.tracker.test_durable import durable, reach
from tests.tracker.visits import Visit

if TYPE_CHECKING:
    from pathlib import Path

    from convert_middleware import Tracker
    from tests.asgi.conftest import Convert


def stalled(convert: Convert, outbox: MemoryOutbox) -> Tracker:
    """Return a tracker all of whose lanes wait for a server that never answers."""
    convert.server.default = stall()
    tracker = convert.tracker(outbox=outbox, hooks=[])
    for goal in range(LANES):
        reach(tracker, 1 + goal)
    convert.server.until_requests(LANES)
    return tracker


def a_thousand_responses(tracker: Tracker) -> None:
    for number in range(1000):
        visit = Visit(tracker)
        visit.convert.experiment(11, 12)
        if number % 20 == 0:
            visit.convert.revenue(35, transaction_id=f"order-{number}", value="1599.99")
        elif number % 20 < 3:
            visit.convert.goal(331)
        visit.respond()


def waiting(outbox: MemoryOutbox) -> list[str]:
    """Return what waits while every lane is busy, and leave it there."""

    async def look() -> list[str]:
        entries = await outbox.take(10_000, float("inf"))
        for entry in entries:
            await outbox.retry(entry, 0.0)
        return [entry.text for entry in entries]

    return asyncio.run(look())


def test_a_thousand_responses_with_room_for_a_hundred_lose_the_least_valuable_and_say_so_once(
    convert: Convert, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = MemoryOutbox(max_hits=100)
    tracker = stalled(convert, outbox)
    a_thousand_responses(tracker)

    stats = tracker.stats()
    assert (stats.accepted, stats.in_flight, stats.waiting) == (LANES + 1000, LANES, 100)
    assert stats.dropped == {"overflow": 900}
    hits = [decode(text) for text in waiting(outbox)]
    paid = [hit for hit in hits if hit.transaction is not None]
    reached = [hit for hit in hits if hit.transaction is None and hit.new_goals]
    assert (len(hits), len(paid), len(reached)) == (100, 50, 50)
    assert {hit.transaction.transaction_id for hit in paid if hit.transaction} == {
        f"order-{number}" for number in range(0, 1000, 20)
    }
    tracker.close(0.1)
    said = [line for line in warnings_of(caplog) if "full" in line]
    assert said == ["The outbox is full; hits dropped to make room: 900."]


def test_a_close_that_lost_something_says_so_to_everybody_who_asks_however_often(convert: Convert) -> None:
    tracker = stalled(convert, MemoryOutbox())
    with ThreadPoolExecutor(4) as pool:
        together = [pool.submit(tracker.close, 0.2) for _ in range(4)]
    assert [asked.result() for asked in together] == [False] * 4
    assert not tracker.close(0.2)
    assert tracker.stats().dropped == {"shutdown": LANES}


def test_a_close_that_lost_nothing_says_so_to_everybody_who_asks_however_often(convert: Convert) -> None:
    tracker = convert.tracker(hooks=[])
    for goal in range(1, 51):
        reach(tracker, goal)
    with ThreadPoolExecutor(4) as pool:
        together = [pool.submit(tracker.close, 10.0) for _ in range(4)]
    assert [asked.result() for asked in together] == [True] * 4
    assert tracker.close(0.2)
    assert tracker.stats().delivered == 50


def test_the_bytes_that_wait_are_bounded_too(convert: Convert) -> None:
    outbox = MemoryOutbox(max_bytes=20_000)
    tracker = stalled(convert, outbox)
    a_thousand_responses(tracker)

    stats = tracker.stats()
    assert stats.accepted == LANES + 1000
    assert stats.dropped["overflow"] == 1000 - stats.waiting
    texts = waiting(outbox)
    assert len(texts) == stats.waiting
    assert 10_000 < sum(map(len, texts)) <= 20_000
    assert len([text for text in texts if decode(text).transaction]) == 50
    tracker.close(0.1)


def test_a_full_outbox_is_said_while_the_server_is_down_and_at_most_once_a_minute(
    convert: Convert, caplog: pytest.LogCaptureFixture
) -> None:
    convert.server.default = answer(503)
    tracker = convert.tracker(outbox=MemoryOutbox(max_hits=100), hooks=[])
    for _ in range(3):
        a_thousand_responses(tracker)
        until(lambda: tracker.stats().waiting == 100 and "The outbox is full" in caplog.text)

    assert caplog.text.count("The outbox is full") == 1
    tracker.close(0.1)


def test_a_wrong_configuration_leaves_the_backlog_of_a_file_as_it_is(
    convert: Convert, tmp_path: Path
) -> None:
    held = convert.hold()
    first = durable(convert, tmp_path)
    for goal in range(1, 51):
        reach(first, goal)
    first.close(0.2)
    held.set()
    path = tmp_path / "outbox.db"
    before = path.read_bytes()

    wrong: list[dict[str, Any]] = [
        {"endpoint": "nonsense"},
        {"project_id": "x"},
        {"secret_key": "short"},
        {"sender": "pigeon"},
    ]
    for options in wrong:
        with pytest.raises(SettingsError):
            convert.tracker(outbox=f"sqlite:///{path}", **options)
    assert path.read_bytes() == before
