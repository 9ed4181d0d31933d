"""What handlers write on: it checks every argument and tells what is first."""

from __future__ import annotations

import contextvars
import logging
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from convert_middleware.errors import ArgumentError, ArgumentTypeError, OutsideRequestError
from convert_middleware.hooks import Announcer, ArgumentRejected, Event, VariationConflict, VisitorForgotten
from convert_middleware.model import MAX_ID
from convert_middleware.page import Loaded, Page
from convert_middleware.recorder import Recorder, current, enter, leave
from convert_middleware.visitor import News, Visitor
from tests.histories import NOW, VISITOR_ID


class Desk:
    """A host that keeps the news it is sent."""

    def __init__(self, *, strict: bool = True) -> None:
        self.strict = strict
        self.events: list[Event] = []
        self.announcer = Announcer([self.events.append], lambda: 0.0)
        self.news: list[News] = []
        self.owed: list[Visitor] = []
        self.forgotten: list[Visitor] = []
        self.loads = 0

    def now(self) -> int:
        return NOW

    def send_news(self, page: Page) -> None:
        news = page.take()
        if news is not None:
            self.news.append(news)

    def write_token(self, visitor: Visitor, *, excluded: bool) -> str:
        return f"token of {visitor.visitor_id}"

    def forget(self, visitor: Visitor) -> None:
        self.forgotten.append(visitor)

    def owes(self, visitor: Visitor) -> bool:
        return visitor in self.owed

    def load(self, visitor: Visitor, *, stale: bool = False) -> Loaded:
        self.loads += 1
        return Loaded(visitor, stale)

    def page(self, visitor: Visitor | None = None, *, shown: bool = False, stale: bool = False) -> Page:
        known = visitor or Visitor(VISITOR_ID, NOW - 60)
        return Page(self, lambda: self.load(known, stale=stale), shown=shown)


@pytest.fixture
def desk() -> Desk:
    return Desk()


BAD_IDS: list[Any] = [0, -1, "12a", "", "1.005", "9" * 40, 10**40, MAX_ID + 1]
BAD_TYPES: list[Any] = [True, None, float("nan"), 1.0, b"12", object()]
BAD_VALUES: list[Any] = [-1, -0.01, float("nan"), float("inf"), 1e400, "1e3", "12a", "", "-1", 10**13]
BAD_TRANSACTIONS: list[Any] = ["", "a|b", "\ud800", "a" * 257]
ORDER: dict[str, Any] = {"transaction_id": "ab12345", "value": "1599.99"}

WRONG: list[tuple[str, tuple[Any, ...], dict[str, Any], str, Any]] = [
    *[("experiment", (bad, 12), {}, "experiment_id", bad) for bad in BAD_IDS + BAD_TYPES],
    *[("experiment", (11, bad), {}, "variation_id", bad) for bad in BAD_IDS + BAD_TYPES],
    *[("goal", (bad,), {}, "goal_id", bad) for bad in BAD_IDS + BAD_TYPES],
    *[("goal", (5,), {"experiments": [11, bad]}, "experiments", bad) for bad in BAD_IDS + BAD_TYPES],
    *[("revenue", ([35, bad],), ORDER, "goal_ids", bad) for bad in BAD_IDS + BAD_TYPES],
    *[("revenue", (35,), ORDER | {"transaction_id": bad}, "transaction_id", bad) for bad in BAD_TRANSACTIONS],
    *[("revenue", (35,), ORDER | {"transaction_id": bad}, "transaction_id", bad) for bad in (5, None, b"a")],
    *[("revenue", (35,), ORDER | {"value": bad}, "value", bad) for bad in BAD_VALUES],
    *[("revenue", (35,), ORDER | {"value": bad}, "value", bad) for bad in (None, True, b"1", [1])],
    *[("revenue", (35,), ORDER | {"products": bad}, "products", bad) for bad in (0, -1, 10**10)],
    *[("revenue", (35,), ORDER | {"products": bad}, "products", bad) for bad in (True, None, "1", 1.5)],
    ("revenue", ((),), ORDER, "goal_ids", ()),
    ("revenue", (range(1, 52),), ORDER, "goal_ids", tuple(range(1, 52))),
]


@pytest.mark.parametrize(("method", "given", "options", "argument", "value"), WRONG)
def test_a_bad_argument_is_named_with_its_value_and_the_other_records_survive(
    desk: Desk, method: str, given: tuple[Any, ...], options: dict[str, Any], argument: str, value: Any
) -> None:
    page = desk.page(shown=True)
    recorder = Recorder(page)
    recorder.experiment(11, 12)
    with pytest.raises(ArgumentError) as caught:
        getattr(recorder, method)(*given, **options)
    assert (caught.value.argument, str(caught.value)[: len(argument) + 1]) == (argument, f"{argument}=")
    assert caught.value.value is value or caught.value.value == value
    assert isinstance(caught.value, ValueError)
    recorder.goal(331)
    recorder.flush()
    [news] = desk.news
    assert (news.experiments, news.goals, news.transactions) == ([11], [331], [])


def test_a_wrong_type_is_a_type_error_too(desk: Desk) -> None:
    wrong: Any = None
    with pytest.raises(TypeError) as caught:
        Recorder(desk.page()).goal(wrong)
    assert isinstance(caught.value, ArgumentTypeError)


@pytest.mark.parametrize(("method", "given", "options", "argument", "value"), WRONG)
def test_without_strict_a_bad_argument_is_announced_and_logged_and_the_page_goes_on(
    caplog: pytest.LogCaptureFixture,
    method: str,
    given: tuple[Any, ...],
    options: dict[str, Any],
    argument: str,
    value: Any,
) -> None:
    desk = Desk(strict=False)
    recorder = Recorder(desk.page(shown=True))
    result = getattr(recorder, method)(*given, **options)
    assert result is (given[1] if method == "experiment" else False)
    [event] = desk.events
    assert isinstance(event, ArgumentRejected)
    assert event.argument == argument
    [line] = caplog.records
    assert line.levelno == logging.ERROR
    assert re.match(rf"Nothing was recorded in test_recorder\.py:[0-9]+: {argument} ", line.getMessage())
    assert recorder.goal(331)
    recorder.flush()
    assert [news.goals for news in desk.news] == [[331]]


def test_the_first_variation_stays_and_the_conflict_is_announced(desk: Desk) -> None:
    recorder = Recorder(desk.page(shown=True))
    assert [recorder.experiment("11", "12"), recorder.experiment(11, 12), recorder.experiment(11, 13)] == [
        12
    ] * 3
    [conflict] = desk.events
    assert isinstance(conflict, VariationConflict)
    assert (conflict.experiment_id, conflict.kept, conflict.asked) == (11, 12, 13)
    recorder.flush()
    assert [news.experiments for news in desk.news] == [[11]]


def test_a_goal_reached_twice_counts_once(desk: Desk) -> None:
    recorder = Recorder(desk.page())
    assert [recorder.goal(331), recorder.goal("331"), recorder.goal(331, experiments=[])] == [
        True,
        False,
        False,
    ]
    recorder.flush()
    assert [news.goals for news in desk.news] == [[331]]


def test_a_transaction_recorded_twice_counts_once(desk: Desk) -> None:
    recorder = Recorder(desk.page())
    assert recorder.revenue([35, "36"], transaction_id="ab12345", value=1599.99, products=10)
    assert not recorder.revenue(35, transaction_id="ab12345", value=1)
    recorder.flush()
    [paid] = desk.news[0].transactions
    assert (paid.goals, str(paid.value), paid.products) == ((35, 36), "1599.99", 10)


def test_what_was_recorded_stays_when_the_callers_own_lists_change(desk: Desk) -> None:
    recorder = Recorder(desk.page(shown=True))
    recorder.experiment(11, 12)
    experiments, goals = [11], [35, 36]
    recorder.goal(331, experiments=experiments)
    recorder.revenue(goals, transaction_id="a", value=1)
    experiments.append(99)
    goals.clear()
    recorder.flush()
    [news] = desk.news
    assert news.transactions[0].goals == (35, 36)
    assert news.visitor.triplets()[0].goals == (331,)


def test_the_views_show_the_visitor_and_cannot_be_written(desk: Desk) -> None:
    recorder = Recorder(desk.page())
    recorder.experiment(11, 12)
    recorder.goal(331)
    recorder.goal(33)
    assert recorder.visitor_id == VISITOR_ID
    assert recorder.experiments == {11: 12}
    assert recorder.goals == (331, 33)
    view: Any = recorder.experiments
    with pytest.raises(TypeError):
        view[11] = 13
    for name in ("visitor_id", "experiments", "goals", "anything"):
        with pytest.raises(AttributeError):
            setattr(recorder, name, 1)


def test_current_outside_a_request_is_a_clear_error() -> None:
    with pytest.raises(OutsideRequestError, match=r"no current request.*ConvertMiddleware.*Tracker\.resume"):
        current()


@pytest.fixture
def entered(desk: Desk) -> Iterator[Recorder]:
    recorder = Recorder(desk.page(shown=True))
    token = enter(recorder)
    yield recorder
    leave(token)


def test_current_is_the_recorder_of_the_innermost_request(desk: Desk, entered: Recorder) -> None:
    inner = Recorder(desk.page())
    token = enter(inner)
    assert current() is inner
    leave(token)
    assert current() is entered


def test_current_works_in_threads_with_a_copied_context_and_only_there(entered: Recorder) -> None:
    found: list[object] = []

    def look() -> None:
        try:
            found.append(current())
        except OutsideRequestError as error:
            found.append(type(error))

    for run in (contextvars.copy_context().run, lambda function: function()):
        thread = threading.Thread(target=run, args=[look])
        thread.start()
        thread.join()
    assert found == [entered, OutsideRequestError]


def test_two_threads_of_one_request_count_every_goal_once(desk: Desk) -> None:
    recorder = Recorder(desk.page(shown=True))
    start = threading.Barrier(4)
    firsts: list[int] = []

    def record() -> None:
        start.wait()
        for goal in range(1, 301):
            if recorder.goal(goal):
                firsts.append(goal)
            if recorder.revenue(goal, transaction_id=f"order {goal % 40}", value=1):
                firsts.append(-(goal % 40))

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorder.flush()
    [news] = desk.news
    assert sorted(firsts) == [*range(-39, 1), *range(1, 301)]
    assert sorted(news.goals) == list(range(1, 301))
    assert len(news.transactions) == 40


def test_state_is_loaded_once_and_only_when_somebody_asks(desk: Desk) -> None:
    page = desk.page()
    recorder = Recorder(page)
    recorder.flush()
    assert (desk.loads, page.used, page.touched) == (0, False, False)
    assert recorder.goals == ()
    assert (desk.loads, page.used, page.touched) == (1, True, False)
    recorder.goal(331)
    assert (desk.loads, page.touched) == (1, True)


@pytest.mark.parametrize(
    ("stale", "touch", "saves"), [(True, False, False), (True, True, True), (False, True, False)]
)
def test_a_cookie_is_written_anew_only_where_something_was_recorded(
    desk: Desk, stale: bool, touch: bool, saves: bool
) -> None:
    known = Visitor(VISITOR_ID, NOW - 60).reach(331, NOW - 50)
    page = desk.page(known, stale=stale)
    assert page.visitor == known
    if touch:
        assert not Recorder(page).goal(331)
    assert page.to_save() == (known if saves else None)
    page.saved(known)
    assert page.to_save() is None


def test_an_exposure_waits_until_it_was_shown_and_goals_wait_to_be_credited_to_it(desk: Desk) -> None:
    page = desk.page()
    recorder = Recorder(page)
    recorder.goal(33)
    recorder.flush()
    recorder.experiment(11, 12)
    recorder.goal(331)
    recorder.flush()
    page.shown = True
    recorder.flush()
    first, second = desk.news
    assert (first.experiments, first.goals, first.visitor.experiments) == ([], [33], ())
    assert (second.experiments, second.goals, second.visitor.experiments) == ([11], [331], (11,))


def test_a_response_that_shows_nothing_takes_its_exposures_back_and_keeps_its_goals(desk: Desk) -> None:
    page = desk.page(Visitor(VISITOR_ID, NOW - 60).present(21, 22, NOW - 50))
    recorder = Recorder(page)
    recorder.experiment(11, 12)
    recorder.goal(331)
    page.withhold()
    page.shown = True
    recorder.flush()
    [news] = desk.news
    assert (news.experiments, news.goals) == ([], [331])
    assert news.visitor.triplets() == [(21, 22, (331,))]
    assert page.to_save() == news.visitor


def test_a_response_that_shows_nothing_of_what_it_presented_writes_no_cookie(desk: Desk) -> None:
    page = desk.page(Visitor(VISITOR_ID, NOW - 60).present(21, 22, NOW - 50))
    Recorder(page).experiment(11, 12)
    assert page.to_save() is not None
    page.withhold()
    assert page.to_save() is None
    Recorder(page).flush()
    assert desk.news == []


def test_what_is_recorded_after_the_end_leaves_at_once(desk: Desk) -> None:
    page = desk.page(shown=True)
    page.ended = True
    recorder = Recorder(page)
    recorder.goal(331)
    recorder.experiment(11, 12)
    recorder.goal(331)
    recorder.revenue(35, transaction_id="a", value=1)
    assert [(news.experiments, news.goals, len(news.transactions)) for news in desk.news] == [
        ([], [331], 0),
        ([11], [], 0),
        ([], [], 1),
    ]


def test_a_forgotten_visitor_leaves_nothing_and_records_nothing_more(desk: Desk) -> None:
    page = desk.page(Visitor(VISITOR_ID, NOW - 60).present(21, 22, NOW - 50).reach(33, NOW - 40), shown=True)
    recorder = Recorder(page)
    recorder.goal(331)
    recorder.forget()
    assert (recorder.goals, recorder.experiments) == ((), {})
    assert recorder.experiment(11, 12) == 12
    assert not recorder.goal(331)
    assert not recorder.revenue(35, transaction_id="a", value=1)
    recorder.flush()
    assert (desk.news, page.to_save()) == ([], None)
    assert [visitor.visitor_id for visitor in desk.forgotten] == [VISITOR_ID]
    [event] = desk.events
    assert isinstance(event, VisitorForgotten)


def test_a_recorder_in_a_with_block_is_flushed_at_its_end_whatever_happens(desk: Desk) -> None:
    def fail_at_the_counter() -> None:
        with Recorder(desk.page(shown=True)) as recorder:
            recorder.goal(331)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_at_the_counter()
    assert [news.goals for news in desk.news] == [[331]]


def test_a_token_is_written_by_the_engine(desk: Desk) -> None:
    assert Recorder(desk.page()).token() == f"token of {VISITOR_ID}"


def test_what_is_owed_to_a_visitor_is_told_although_nothing_is_recorded() -> None:
    desk = Desk()
    known = Visitor(VISITOR_ID, NOW - 60).reach(331, NOW - 50)
    desk.owed.append(known)
    page = desk.page(known)
    assert not page.dirty
    assert Recorder(page).goals == (331,)
    assert page.dirty
