"""What a lost hit should have told is told by the visitor's next one, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from convert_middleware.hooks import ExposureRecorded, GoalReached, TransactionRecorded
from convert_middleware.model import Exposure
from tests.servers import answer, reset
from tests.tracker.visits import Visit

if TYPE_CHECKING:
    from convert_middleware import Tracker
    from convert_middleware.model import Hit
    from tests.asgi.conftest import Convert
    from tests.servers import TrackingServer

AN_HOUR_AND_A_BIT = 3700.0  # seconds; longer than a hit is kept


def a_lost_visit(tracker: Tracker, server: TrackingServer) -> bytes:
    """Let a visitor do everything while the server refuses for good, and return the cookie."""
    server.default = answer(404)
    visit = Visit(tracker)
    visit.convert.experiment(11, 12)
    visit.convert.goal(331)
    visit.convert.revenue(35, transaction_id="ab12345", value="1599.99", products=10)
    cookie = visit.respond()
    assert tracker.flush(20.0)
    assert tracker.stats().dead == 1
    server.default = answer(200)
    return cookie


def told_again(hit: Hit) -> bool:
    """Whether a hit tells of all that the lost visit did as new."""
    order = hit.transaction
    return (
        hit.exposures[: hit.new_exposures] == (Exposure(11, 12, hit.exposures[0].goals),)
        and hit.goals[: hit.new_goals][0] == 331
        and order is not None
        and (order.transaction_id, str(order.value), order.products) == ("ab12345", "1599.99", 10)
    )


def test_the_next_request_that_records_counts_what_was_lost_and_what_is_new(convert: Convert) -> None:
    tracker = convert.tracker()
    cookie = a_lost_visit(tracker, convert.server)
    visit = Visit(tracker, cookie)
    visit.convert.goal(33)
    visit.respond()
    hit = convert.hits()[-1]
    assert told_again(hit)
    assert hit.goals[: hit.new_goals] == (331, 33)


def test_a_request_that_only_reads_counts_it_as_well(convert: Convert) -> None:
    tracker = convert.tracker()
    cookie = a_lost_visit(tracker, convert.server)
    visit = Visit(tracker, cookie)
    assert visit.convert.experiments == {11: 12}
    visit.respond()
    assert told_again(convert.hits()[-1])


def test_of_all_later_requests_one_counts_it(convert: Convert) -> None:
    tracker = convert.tracker()
    cookie = a_lost_visit(tracker, convert.server)
    visits = [Visit(tracker, cookie) for _ in range(5)]
    for visit in visits:
        assert not visit.convert.goal(331)
        visit.respond()
    assert [told_again(hit) for hit in convert.hits()] == [True, True]  # the lost one was seen and refused


def test_the_hooks_hear_of_it_once(convert: Convert) -> None:
    tracker = convert.tracker()
    cookie = a_lost_visit(tracker, convert.server)
    visit = Visit(tracker, cookie)
    assert visit.convert.goals == (331,)
    visit.respond()
    assert len(convert.hits()) == 2
    assert [len(convert.told(kind)) for kind in (ExposureRecorded, GoalReached, TransactionRecorded)] == [
        1
    ] * 3


def test_what_expired_is_counted_again(convert: Convert) -> None:
    tracker = convert.tracker()
    convert.server.default = answer(503)
    visit = Visit(tracker)
    visit.convert.goal(331)
    cookie = visit.respond()
    assert not tracker.flush(0.2)
    convert.clock.now += AN_HOUR_AND_A_BIT
    assert tracker.flush(20.0)
    assert tracker.stats().dropped == {"expired": 1}
    convert.server.default = answer(200)
    again = Visit(tracker, cookie)
    assert again.convert.goals == (331,)
    again.respond()
    assert tracker.flush(20.0)
    assert tracker.stats().delivered == 1


def test_what_had_no_room_is_counted_again(convert: Convert) -> None:
    tracker = convert.tracker(outbox="memory://?max_hits=1")
    held = convert.hold()
    cookies = []
    for goal in range(1, 41):  # more than can be under way at once, and one
        visit = Visit(tracker)
        visit.convert.goal(goal)
        cookies.append(visit.respond())
    lost = tracker.stats().dropped["overflow"]
    assert lost > 0
    held.set()
    assert tracker.flush(20.0)
    for cookie in cookies:
        again = Visit(tracker, cookie)
        assert len(again.convert.goals) == 1
        again.respond()
        assert tracker.flush(20.0)
    assert tracker.stats().delivered == 40


@pytest.mark.parametrize("forgotten", [False, True])
def test_what_may_have_been_counted_and_what_is_forgotten_is_not_told_again(
    forgotten: bool, convert: Convert
) -> None:
    tracker = convert.tracker()
    if forgotten:
        cookie = a_lost_visit(tracker, convert.server)
        visit = Visit(tracker, cookie)
        visit.convert.forget()
        visit.respond()
    else:
        convert.server.default = reset()
        visit = Visit(tracker)
        visit.convert.goal(331)
        cookie = visit.respond()
        assert tracker.flush(20.0)
        assert tracker.stats().dropped == {"ambiguous": 1}
        convert.server.default = answer(200)
    again = Visit(tracker, cookie)
    assert again.convert.goals == (331,)
    again.respond()
    assert tracker.flush(20.0)
    assert tracker.stats().accepted == 1
