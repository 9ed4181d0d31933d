"""What is said when tracking stops: the numbers, once, however often it stops."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.tracker.test_durable import reach

if TYPE_CHECKING:
    from tests.asgi.conftest import Convert


@pytest.fixture(autouse=True)
def _listens(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "convert_middleware")


def goodbyes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if line.startswith("Tracking stops")]


def test_a_lifespan_that_ends_and_the_exit_after_it_say_the_same_numbers_once(
    convert: Convert, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = convert.tracker(hooks=[])
    reach(tracker, 331)
    assert tracker.drain()
    assert tracker.close()

    [line] = goodbyes(caplog)
    assert line == "Tracking stops: 1 hits accepted, 1 delivered, 0 dropped, 0 dead, 0 waiting, 0 in flight."


def test_what_came_between_two_ends_is_told_at_the_second(
    convert: Convert, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = convert.tracker(hooks=[])
    for goal in (331, 332):
        reach(tracker, goal)
        assert tracker.drain()
    tracker.close()

    assert [line.partition(",")[0] for line in goodbyes(caplog)] == [
        "Tracking stops: 1 hits accepted",
        "Tracking stops: 2 hits accepted",
    ]
