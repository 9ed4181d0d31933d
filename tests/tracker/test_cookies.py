"""The visitor's cookie through the engine: read from whatever is sent, written, renewed, forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from convert_middleware import CookieOptions, Recorder
from convert_middleware.cookie import BUDGET, CookieCodec
from convert_middleware.hooks import CookieRejected, StateEvicted, VisitorForgotten
from convert_middleware.visitor import Visitor
from tests.asgi.conftest import SECRET
from tests.tracker.visits import Visit

if TYPE_CHECKING:
    from tests.asgi.conftest import Convert

YEAR = 365 * 86_400
VISITOR_ID = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "malformed"),
        (b"null", "malformed"),
        (b"1.abc.def", "signature"),
        (b"2.abc.def", "version"),
        (b"1." * 2**19, "too_long"),
    ],
)
def test_a_bad_cookie_is_no_cookie_and_counted_by_reason(convert: Convert, text: bytes, reason: str) -> None:
    tracker = convert.tracker()
    visit = Visit(tracker, text)
    assert visit.convert.goal(331)
    visit.respond()
    assert visit.wrote
    assert tracker.stats().rejected_cookies == {reason: 1}
    assert convert.told(CookieRejected) == [CookieRejected(reason=reason)]
    assert len(convert.hits()) == 1


@pytest.mark.parametrize(("offset", "reason"), [(-3600, "future"), (395 * 86_400 + 3600, "expired")])
def test_a_cookie_of_another_time_is_no_cookie(convert: Convert, offset: int, reason: str) -> None:
    visit = Visit(convert.tracker())
    visit.convert.goal(331)
    cookie = visit.respond()
    assert len(convert.hits()) == 1
    convert.clock.sleep(offset)
    elsewhere = convert.tracker()
    assert elsewhere.load([cookie]).visitor.goals == ()
    assert elsewhere.stats().rejected_cookies == {reason: 1}


@pytest.mark.parametrize("offset", [-5, 5, 3600, 2**32 - 1_750_000_000])
def test_servers_whose_clocks_differ_know_the_same_visitor(convert: Convert, offset: int) -> None:
    convert.clock.sleep(max(0, offset - 86_400))
    visit = Visit(convert.tracker())
    visit.convert.experiment(11, 12)
    cookie = visit.respond()
    [first] = convert.hits()
    convert.clock.sleep(min(offset, 86_400))
    elsewhere = Visit(convert.tracker(), cookie)
    elsewhere.convert.goal(331)
    elsewhere.respond()
    [second] = convert.hits()
    assert (first.exposures, second.exposures) == (((11, 12, ()),), ((11, 12, (331,)),))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_cookies_of_our_name_are_merged_and_written_as_one(
    convert: Convert, order: tuple[int, int]
) -> None:
    tracker = convert.tracker()
    texts = []
    for goal in (33, 331):
        visit = Visit(tracker)
        visit.convert.goal(goal)
        texts.append(visit.respond())
    both = Visit(convert.tracker(), b"of another program", *[texts[number] for number in order])
    assert set(both.convert.goals) == {33, 331}
    assert not both.convert.goal(33)
    both.respond()
    assert both.wrote
    assert len(convert.hits()) == 2


def test_a_crowded_cookie_lets_the_oldest_go_and_says_so(convert: Convert) -> None:
    tracker = convert.tracker()
    visit = Visit(tracker)
    for number in range(100):
        visit.convert.experiment(10**9 + number, 1)
        visit.convert.goal(2 * 10**9 + number)
    for number in range(20):
        visit.convert.revenue(35, transaction_id=f"order {number}", value=1)
    cookie = visit.respond()
    assert len(cookie) <= BUDGET
    [event] = convert.told(StateEvicted)
    assert isinstance(event, StateEvicted)
    assert event.transactions == 20
    assert event.experiments > 0
    kept = convert.tracker().load([cookie]).visitor
    assert kept.experiments == tuple(10**9 + number for number in range(event.experiments, 100))
    hits = convert.hits()
    assert sum(hit.new_exposures for hit in hits) == sum(hit.new_goals for hit in hits) == 100
    assert sum(hit.transaction is not None for hit in hits) == 20


def test_what_a_crowded_cookie_let_go_is_not_counted_again_by_this_process(convert: Convert) -> None:
    tracker = convert.tracker()
    visit = Visit(tracker)
    for number in range(250):
        visit.convert.experiment(10**9 + number, 1)
    again = Visit(tracker, visit.respond())
    assert convert.told(StateEvicted)
    assert again.convert.experiment(10**9, 2) == 1
    again.respond()
    assert sum(hit.new_exposures for hit in convert.hits()) == 250


@pytest.mark.parametrize(("sliding", "left"), [(False, 3600 - 600), (True, 3600)])
def test_a_cookies_life_counts_from_the_first_visit_unless_it_slides(
    convert: Convert, sliding: bool, left: int
) -> None:
    tracker = convert.tracker(cookie=CookieOptions(max_age=3600, sliding=sliding))
    visitor = tracker.load([]).visitor
    text, age, _ = tracker.write_cookie(visitor)
    assert age == 3600
    convert.clock.sleep(600)
    known = tracker.load([text]).visitor
    text, age, _ = tracker.write_cookie(known.reach(331, tracker.now()))
    assert age == left
    convert.clock.sleep(3600 - 300)
    elsewhere = convert.tracker(cookie=CookieOptions(max_age=3600, sliding=sliding))
    goals = elsewhere.load([text]).visitor.goals
    assert goals == ((331,) if sliding else ())


def test_a_visitor_keeps_one_id_from_the_first_record_on(convert: Convert) -> None:
    tracker = convert.tracker()
    visit = Visit(tracker)
    visit.convert.goal(331)
    visitor_id = visit.convert.visitor_id
    cookie = visit.respond()
    assert len(bytes.fromhex(visitor_id)) == 16
    assert convert.tracker().load([cookie]).visitor.visitor_id == visitor_id
    assert Visit(tracker).convert.visitor_id != Visit(tracker).convert.visitor_id
    assert len(convert.hits()) == 1


def test_a_forgotten_visitor_is_forgotten_by_the_process_and_tells_nothing(convert: Convert) -> None:
    tracker = convert.tracker()
    first = Visit(tracker)
    first.convert.experiment(11, 12)
    cookie = first.respond()
    first.convert.goal(331)  # late: only the process knows
    second = Visit(tracker, cookie)
    second.convert.goal(33)
    second.convert.forget()
    second.respond()
    assert not second.wrote
    assert [type(event) for event in convert.told(VisitorForgotten)] == [VisitorForgotten]
    assert tracker.load([cookie]).visitor.goals == ()
    assert [hit.goals for hit in convert.hits()] == [(), (331,)]


def test_without_strict_the_rest_of_the_page_is_counted(
    convert: Convert, caplog: pytest.LogCaptureFixture
) -> None:
    visit = Visit(convert.tracker(strict=False))
    wrong: Any = "12a"
    assert visit.convert.experiment(11, wrong) is wrong
    assert not visit.convert.goal(wrong)
    assert not visit.convert.revenue(35, transaction_id="a|b", value=1)
    assert visit.convert.goal(331)
    visit.respond()
    [hit] = convert.hits()
    assert (hit.exposures, hit.goals, hit.transaction) == ((), (331,), None)
    for _ in range(3):
        visit.convert.goal(wrong)
    assert caplog.text.count("Nothing was recorded") == 4  # each line that is wrong, once a minute


def test_a_hit_after_close_is_refused_counted_and_said_once(
    convert: Convert, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = convert.tracker()
    tracker.close()
    for goal in (331, 33):
        visit = Visit(tracker)
        visit.convert.goal(goal)
        assert visit.respond()
    assert tracker.stats().refused == 2
    assert tracker.stats().accepted == 0
    assert caplog.text.count("A hit was refused: the tracker is closed.") == 1


def test_a_cookie_that_another_process_wrote_is_the_same_as_one_of_our_own(convert: Convert) -> None:
    now = int(convert.clock())
    visitor = Visitor(VISITOR_ID, now).present(11, 12, now).reach(331, now)
    text, _ = CookieCodec([SECRET], YEAR).write(visitor)
    tracker = convert.tracker()
    ours, *_ = tracker.write_cookie(visitor)
    assert ours == text
    assert tracker.load([ours])[:2] == convert.tracker().load([text])[:2] == (visitor, False)
    assert Recorder(Visit(tracker, ours).page).goals == (331,)
