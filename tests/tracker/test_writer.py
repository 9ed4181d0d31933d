"""Without hooks, requests leave their news to the delivery thread; nothing of it may get lost on the way."""

from __future__ import annotations

import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from convert_middleware.delivery import Ledger, MemoryOutbox
from convert_middleware.delivery.redis_ledger import RedisLedger
from convert_middleware.delivery.redis_link import RedisLink
from convert_middleware.hooks import Announcer
from convert_middleware.visitor import News, Visitor
from convert_middleware.wire import decode
from convert_middleware.writer import HELP, MOST, MOST_ASKED, Writer
from tests.tracker.visits import Visit

if TYPE_CHECKING:
    from convert_middleware import Tracker
    from tests.asgi.conftest import Convert


def quiet(convert: Convert) -> Tracker:
    return convert.tracker(hooks=[], outbox="memory://")


def goals_of(convert: Convert) -> list[int]:
    """The new goals of all that arrived."""
    hits = [decode(target) for target in convert.server.targets]
    return sorted(goal for hit in hits for goal in hit.goals[: hit.new_goals])


def a_visit(tracker: Tracker, goal: int, *cookies: bytes) -> bytes:
    visit = Visit(tracker, *cookies)
    visit.convert.goal(goal)
    return visit.respond()


def test_news_is_accepted_as_soon_as_anybody_asks(convert: Convert) -> None:
    held = convert.hold()
    tracker = quiet(convert)
    for goal in range(1, 21):
        a_visit(tracker, goal)
        assert tracker.stats().accepted == goal
    held.set()


def test_a_flush_right_after_the_response_waits_for_its_hit(convert: Convert) -> None:
    tracker = quiet(convert)
    for goal in range(1, 21):
        a_visit(tracker, goal)
        assert tracker.flush(20.0)
        assert goals_of(convert) == list(range(1, goal + 1))


def test_a_close_right_after_the_response_delivers_its_hit(convert: Convert) -> None:
    tracker = quiet(convert)
    a_visit(tracker, 331)
    assert tracker.close(5.0)
    assert goals_of(convert) == [331]


def test_while_nothing_can_leave_requests_write_their_news_themselves(convert: Convert) -> None:
    held = convert.hold()
    tracker = quiet(convert)
    for _ in range(3 * MOST):
        a_visit(tracker, 331)
    assert len(tracker._writer._waiting) <= MOST
    assert tracker.stats().accepted == 3 * MOST
    held.set()
    assert tracker.close(20.0)


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "with a Redis that does not answer"])
def test_a_request_that_helps_out_writes_a_little_and_more_than_it_brings(shared: bool) -> None:
    written: list[News] = []
    ledger = RedisLedger(RedisLink("redis://127.0.0.1:9/0", "convert")) if shared else None
    writer = Writer(
        lambda news, _owed, _now: written.append(news), Ledger(), MemoryOutbox(), Announcer((), float), ledger
    )
    news = News(Visitor("a" * 32, 1_750_000_000))
    most = MOST_ASKED if shared else MOST
    wrote = []  # how much each request wrote
    for _ in range(most + 100):
        before = len(written)
        writer.take(news, 1_750_000_000.0)
        wrote.append(len(written) - before)

    assert set(wrote) == {0, HELP}
    assert writer.pending() <= most
    assert writer.pending() + len(written) == most + 100


def test_of_parallel_requests_one_counts_each_goal(convert: Convert) -> None:
    tracker = quiet(convert)
    cookie = a_visit(tracker, 1)
    together = threading.Barrier(8)

    def one(_number: int) -> None:
        together.wait(5)
        for goal in range(2, 42):
            a_visit(tracker, goal, cookie)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))
    assert tracker.flush(10.0)
    assert goals_of(convert) == list(range(1, 42))


def test_what_a_parallel_page_presented_first_is_what_both_tell(convert: Convert) -> None:
    tracker = quiet(convert)
    cookie = a_visit(tracker, 1)
    first, second = Visit(tracker, cookie), Visit(tracker, cookie)
    first.convert.experiment(11, 12)
    convert.clock.sleep(60)
    assert second.convert.experiment(11, 13) == 13  # already rendered, and nobody could know
    second.convert.goal(331)
    first.respond()
    second.respond()
    assert tracker.flush(20.0)
    variations = {
        exposure.variation_id for target in convert.server.targets for exposure in decode(target).exposures
    }
    assert variations == {12}


def test_a_credit_without_news_survives_a_lost_cookie(convert: Convert) -> None:
    tracker = quiet(convert)
    cookie = a_visit(tracker, 33)
    shown = Visit(tracker, cookie)
    shown.convert.experiment(21, 22)
    cookie = shown.respond()
    again = Visit(tracker, cookie)
    assert not again.convert.goal(33)
    cookie = again.respond(lost=True)
    a_visit(tracker, 331, cookie)
    assert tracker.flush(20.0)
    (told,) = [hit for hit in map(decode, convert.server.targets) if 331 in hit.goals]
    assert told.exposures[0].goals == (33, 331)


def test_a_forked_child_leaves_the_news_of_its_parent_to_the_parent(convert: Convert) -> None:
    held = convert.hold()
    tracker = quiet(convert)
    for goal in range(1, 41):
        a_visit(tracker, goal)
    child = os.fork()
    if child == 0:
        os._exit(tracker.stats().accepted)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    held.set()
    assert tracker.flush(10.0)
    assert goals_of(convert) == list(range(1, 41))


class Last:
    """Records a goal when it is collected."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.myself = self  # so that only the garbage collector can end it

    def __del__(self) -> None:
        a_visit(self.tracker, 331)


def test_destructors_may_record_in_the_midst_of_everything(convert: Convert) -> None:
    tracker = quiet(convert)
    cookie = a_visit(tracker, 1)
    thresholds = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for goal in range(2, 52):
            visits = Visit(tracker, cookie), Visit(tracker, cookie)
            for visit in visits:
                visit.convert.goal(goal)
                Last(tracker)
            for visit in visits:  # the second has to be merged with the first
                visit.respond()
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert tracker.flush(10.0)
    assert goals_of(convert) == sorted([*range(1, 52), *[331] * 100])
