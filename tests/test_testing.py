"""What a site's own tests stand on: a tracker that keeps what it sends, and says in words what that was."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import anyio
import flask
import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient

from convert_middleware import (
    ArgumentError,
    ConvertMiddleware,
    ConvertWSGIMiddleware,
    CookieOptions,
    OutsideRequestError,
    Recorder,
    Settings,
    SettingsError,
    Tracker,
    current,
)
from convert_middleware.hooks import Event, GoalReached, HitDelivered, HitFlushed
from convert_middleware.model import Exposure, Transaction
from convert_middleware.testing import Clock, RecordedTracker
from convert_middleware.wire import query

if TYPE_CHECKING:
    from flask.testing import FlaskClient
    from starlette.requests import Request
    from starlette.websockets import WebSocket

    from convert_middleware.browser import RequestFacts
    from tests.servers import TrackingServer

DAY = 86_400


@pytest.fixture(autouse=True)
def no_thread_delivers() -> Iterator[None]:
    """After each test no thread has been left that could send anything."""
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "convert_middleware"]


@pytest.fixture
def tracker() -> RecordedTracker:
    return RecordedTracker()


def buy(convert: Recorder) -> None:
    convert.experiment(11, 12)
    convert.goal(331)
    convert.revenue(35, transaction_id="ab12345", value="1599.99", products=10)


def shop(tracker: Tracker) -> Starlette:
    """Return a site whose pages record in every way there is."""

    async def landing(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(request.state.convert.experiment(11, 12)))

    def order(request: Request) -> PlainTextResponse:
        buy(request.state.convert)
        return PlainTextResponse("thanks", background=BackgroundTask(current().goal, 332))

    async def chat(socket: WebSocket) -> None:
        await socket.accept()
        socket.state.convert.goal(await socket.receive_text())
        socket.state.convert.flush()
        await socket.send_text("noted")
        await socket.receive()

    site = Starlette(routes=[Route("/", landing), Route("/buy", order), WebSocketRoute("/chat", chat)])
    site.add_middleware(ConvertMiddleware, tracker=tracker)
    return site


def test_what_a_page_records_is_there_when_its_response_is(tracker: RecordedTracker) -> None:
    visitor = TestClient(shop(tracker))
    for number in range(1, 20):
        visitor.cookies.clear()
        visitor.get("/")
        assert tracker.exposures == [(11, 12)] * number


def test_a_purchase_is_kept_as_what_convert_would_get(tracker: RecordedTracker) -> None:
    with TestClient(shop(tracker)) as visitor:
        visitor.get("/buy")
        bought, after = tracker.hits
        visitor.get("/buy")
    assert tracker.hits == [bought, after]
    assert (bought.customer_id, bought.project_id) == (2, 1)
    assert (bought.exposures, bought.goals) == ((Exposure(11, 12, (331,)),), (331,))
    assert (after.new_exposures, after.goals, after.new_goals) == (0, (332, 331), 1)
    assert tracker.exposures == [(11, 12)]
    assert tracker.goals == [331, 332]
    assert tracker.transactions == [Transaction((35,), "ab12345", "1599.99", 10)]  # type: ignore[arg-type]  # as at birth


def test_a_socket_tells_what_it_flushed_while_it_is_open(tracker: RecordedTracker) -> None:
    with TestClient(shop(tracker)).websocket_connect("/chat") as chat:
        chat.send_text("331")
        assert chat.receive_text() == "noted"
        assert tracker.goals == [331]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_works_within_any_event_loop(tracker: RecordedTracker, backend: str) -> None:
    async def visit() -> None:
        transport = httpx.ASGITransport(app=shop(tracker))
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as visitor:
            await visitor.get("/buy")
            tracker.assert_paid("ab12345")
        await anyio.to_thread.run_sync(tracker.close)

    anyio.run(visit, backend=backend)


@pytest.fixture
def visitor(tracker: RecordedTracker) -> FlaskClient:
    """A client of a Flask site."""
    site = flask.Flask("shop")

    @site.get("/buy")
    def order() -> str:
        buy(current())
        return "thanks"

    site.wsgi_app = ConvertWSGIMiddleware(site.wsgi_app, tracker=tracker)  # type: ignore[method-assign]  # as Flask's documentation says
    return site.test_client()


def test_a_wsgi_site_tells_when_the_response_is_closed(
    tracker: RecordedTracker, visitor: FlaskClient
) -> None:
    assert visitor.get("/buy", buffered=True).text == "thanks"
    tracker.assert_paid("ab12345", value=1599.99)
    visitor.get("/buy", buffered=True)
    assert len(tracker.hits) == 1


def test_a_response_that_is_still_open_is_thought_of(tracker: RecordedTracker, visitor: FlaskClient) -> None:
    response = visitor.get("/buy")
    assert response.text == "thanks"
    with pytest.raises(AssertionError, match=r"is every response closed.*buffered=True"):
        tracker.assert_reached(331)
    response.close()
    tracker.assert_reached(331)


def test_many_threads_find_all_of_theirs(tracker: RecordedTracker) -> None:
    def browse(first: int) -> list[bool]:
        found = []
        for goal in range(first, first + 50):
            with tracker.request() as convert:
                convert.goal(goal)
            found.append(goal in tracker.goals)
        return found

    with ThreadPoolExecutor(8) as pool:
        assert all(all(found) for found in pool.map(browse, range(1, 400, 50)))
    assert sorted(tracker.goals) == list(range(1, 401))


# --- assertions ---------------------------------------------------------------------------------------


@pytest.fixture
def bought(tracker: RecordedTracker) -> RecordedTracker:
    """The tracker after a purchase and another visitor's landing."""
    with tracker.request() as convert:
        buy(convert)
    with tracker.request() as convert:
        convert.experiment(11, 12)
    return tracker


Claim = Callable[[RecordedTracker], None]
SENT = """
Sent:
1. presented experiment 11 variation 12 for the first time; reached 331 for the first time; \
order ab12345, 1599.99, 10 products, booked on goal 35
2. presented experiment 11 variation 12 for the first time"""


@pytest.mark.parametrize(
    "claim",
    [
        lambda it: it.assert_exposed(11, 12),
        lambda it: it.assert_exposed("11", "12", times=2),
        lambda it: it.assert_exposed(11, 13, times=0),
        lambda it: it.assert_reached(331),
        lambda it: it.assert_reached("331", times=1),
        lambda it: it.assert_reached(332, times=0),
        lambda it: it.assert_paid("ab12345"),
        lambda it: it.assert_paid("ab12345", value="1599.990", times=1),
        lambda it: it.assert_paid("ab12345", value=1599, times=0),
        lambda it: it.assert_paid("cd67890", times=0),
    ],
)
def test_what_is_true_passes(bought: RecordedTracker, claim: Claim) -> None:
    claim(bought)


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        (lambda it: it.assert_exposed(11, 13), "Variation 13 of experiment 11 was not presented."),
        (
            lambda it: it.assert_exposed(11, 12, times=1),
            "Variation 12 of experiment 11 was presented 2 times, not 1.",
        ),
        (lambda it: it.assert_reached(332), "Goal 332 was not reached."),
        (lambda it: it.assert_reached(331, times=0), "Goal 331 was reached once, not 0."),
        (lambda it: it.assert_reached(332, times=2), "Goal 332 was not reached."),
        (lambda it: it.assert_paid("cd67890"), "Order cd67890 was not paid."),
        (lambda it: it.assert_paid("ab12345", value="1599.9"), "Order ab12345 was not paid with 1599.90."),
        (lambda it: it.assert_paid("ab12345", times=2), "Order ab12345 was paid once, not 2."),
        (lambda it: it.assert_nothing_sent(), "Something was sent."),
    ],
)
def test_what_is_not_true_fails_and_says_what_was_sent(
    bought: RecordedTracker, claim: Claim, said: str
) -> None:
    with pytest.raises(AssertionError) as caught:
        claim(bought)
    assert str(caught.value) == said + SENT


@pytest.mark.parametrize(
    ("claim", "argument"),
    [
        (lambda it: it.assert_exposed("a", 12), "experiment_id"),
        (lambda it: it.assert_exposed(11, 0), "variation_id"),
        (lambda it: it.assert_reached(-1), "goal_id"),
        (lambda it: it.assert_paid("ab12345", value="much"), "value"),
        (lambda it: it.cookies_for(experiments={11: "b"}), "experiments"),
        (lambda it: it.cookies_for(goals=[0]), "goals"),
    ],
)
def test_a_claim_that_makes_no_sense_is_an_error_of_its_own(
    tracker: RecordedTracker, claim: Claim, argument: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        claim(tracker)
    assert caught.value.argument == argument


def test_the_failure_is_shown_where_the_test_makes_its_claim(tracker: RecordedTracker) -> None:
    with pytest.raises(AssertionError) as caught:
        tracker.assert_reached(331)
    shown = str(caught.getrepr())
    assert "tracker.assert_reached(331)" in shown
    assert "raise AssertionError" not in shown


def test_requests_that_do_not_count_are_named(tracker: RecordedTracker) -> None:
    visitor = TestClient(shop(tracker), cookies={"convert_visitor": "1.forged.cookie"})
    visitor.get("/", headers={"Sec-GPC": "1"})
    visitor.get("/?convert_preview=live")
    tracker.assert_nothing_sent()
    lines = str(tracker).splitlines()
    assert lines[0].startswith("Nothing was sent.")
    assert lines[1:] == [
        "Requests not counted: 1 (gpc).",
        "Requests not counted: 1 (preview).",
        "Cookies refused: 2 (signature).",
    ]


def test_who_clears_the_list_begins_anew(bought: RecordedTracker) -> None:
    bought.hits.clear()
    bought.assert_nothing_sent()
    assert (bought.exposures, bought.goals, bought.transactions) == ([], [], [])


# --- who comes ----------------------------------------------------------------------------------------


def test_a_visitor_who_comes_back_is_known_and_not_counted_again(tracker: RecordedTracker) -> None:
    cookies = tracker.cookies_for(experiments={11: 13, 21: 22}, goals=[35, 331])
    visitor = TestClient(shop(tracker), cookies=cookies)
    assert visitor.get("/").text == "13"
    tracker.assert_nothing_sent()
    visitor.get("/buy")
    (paid, after) = tracker.hits
    assert paid.exposures == (Exposure(11, 13, (35, 331)), Exposure(21, 22, (35, 331)))
    assert (paid.new_exposures, paid.new_goals, after.new_goals) == (0, 0, 1)


def test_every_visitor_who_comes_back_is_somebody_else(tracker: RecordedTracker) -> None:
    for _ in range(3):
        with tracker.request(tracker.cookies_for(experiments={"11": "12"}, goals=35)) as convert:
            convert.goal(331)
    tracker.assert_reached(331, times=3)


def test_a_function_is_tested_in_a_request_of_no_site(tracker: RecordedTracker) -> None:
    def place_order() -> None:
        buy(current())

    with tracker.request(tracker.cookies_for(experiments={11: 13})) as convert:
        assert current() is convert
        assert convert.experiments == {11: 13}
        place_order()
        tracker.assert_nothing_sent()  # the page is not shown yet
    with pytest.raises(OutsideRequestError):
        current()
    tracker.assert_exposed(11, 12, times=0)
    tracker.assert_reached(331)
    convert.goal(332)  # as a task that outlives the request
    tracker.assert_reached(332)


def test_a_request_that_fails_presents_nothing_and_its_goals_count(tracker: RecordedTracker) -> None:
    def fail() -> None:
        with tracker.request() as convert:
            buy(convert)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (tracker.exposures, tracker.goals) == ([], [331])


def test_a_token_is_resumed_where_it_was_written(tracker: RecordedTracker) -> None:
    with tracker.request() as convert:
        convert.experiment(11, 12)
        token = convert.token()
    with tracker.resume(token) as later:
        later.revenue(35, transaction_id="ab12345", value=1)
    assert tracker.hits[1].exposures == (Exposure(11, 12),)


# --- the engine is the real one -----------------------------------------------------------------------


def test_time_passes_when_the_test_says_so() -> None:
    clock = Clock()
    tracker = RecordedTracker(clock=clock, cookie=CookieOptions(max_age=30 * DAY))
    visitor = TestClient(shop(tracker), cookies=tracker.cookies_for(experiments={11: 13}))
    clock.now += 29 * DAY
    assert visitor.get("/").text == "13"
    clock.now += 2 * DAY
    assert visitor.get("/").text == "12"
    assert tracker.stats().rejected_cookies == {"expired": 1}
    tracker.assert_exposed(11, 12)


def test_a_visitor_who_withdraws_is_nobody() -> None:
    def agreed(request: RequestFacts) -> bool:
        return request.cookie("choice") == "all"

    tracker = RecordedTracker(consent=agreed)
    visitor = TestClient(shop(tracker), cookies={"choice": "all"})
    visitor.get("/")
    tracker.assert_exposed(11, 12, times=1)
    visitor.cookies["choice"] = "none"
    assert "Max-Age=0" in visitor.get("/buy").headers["set-cookie"]
    visitor.cookies["choice"] = "all"
    visitor.get("/")
    tracker.assert_exposed(11, 12, times=2)
    assert tracker.goals == []


def test_hooks_hear_of_everything_in_order() -> None:
    events: list[Event] = []
    tracker = RecordedTracker(hooks=[events.append])
    with tracker.request() as convert:
        convert.goal(331)
    assert [type(event) for event in events] == [GoalReached, HitFlushed, HitDelivered]


def test_every_hit_is_accounted_for_and_refused_after_the_end(bought: RecordedTracker) -> None:
    assert bought.flush(0)
    assert bought.close(0)
    stats = bought.stats()
    assert (stats.accepted, stats.delivered, stats.waiting, stats.in_flight) == (2, 2, 0, 0)
    with bought.request() as convert:
        convert.goal(332)
    assert bought.stats().refused == 1
    bought.assert_reached(332, times=0)


def test_the_settings_of_a_site_are_kept_and_its_outbox_is_not_touched(tmp_path: Any) -> None:
    settings = Settings(
        id_number="1002_1001",
        secret_key="the shop's own, long enough",
        cookie=CookieOptions(name="shop"),
        outbox=f"sqlite:///{tmp_path}/outbox.db",
        deliver=False,
    )
    tracker = RecordedTracker(settings, strict=False)
    visitor = TestClient(shop(tracker), cookies=tracker.cookies_for(goals=[331]))
    visitor.get("/buy")
    assert {(hit.customer_id, hit.project_id) for hit in tracker.hits} == {(1002, 1001)}
    assert list(tracker.cookies_for()) == ["shop"]
    assert tracker.strict is False
    tracker.assert_reached(331, times=0)
    assert list(tmp_path.iterdir()) == []


def test_a_site_that_has_its_tracker_already_is_wrapped(caplog: pytest.LogCaptureFixture) -> None:
    site = Starlette(routes=shop(RecordedTracker()).routes)
    own = RecordedTracker()
    site.add_middleware(ConvertMiddleware, tracker=own)
    tracker = RecordedTracker(own.settings)
    TestClient(ConvertMiddleware(site, tracker=tracker)).get("/buy")
    tracker.assert_paid("ab12345")
    own.assert_nothing_sent()
    assert [record.levelno for record in caplog.records if record.name == "convert_middleware"] == [
        logging.WARNING
    ]


@pytest.mark.parametrize("ids", [{"project_id": 1001, "customer_id": 1002}, {"id_number": "1002_1001"}])
def test_the_project_may_be_told_in_both_ways(ids: Any) -> None:
    tracker = RecordedTracker(**ids)
    assert (tracker.customer_id, tracker.project_id) == (1002, 1001)


def test_an_impossible_option_is_refused_as_ever() -> None:
    with pytest.raises(SettingsError, match="on_ambiguous"):
        RecordedTracker(on_ambiguous="perhaps")  # type: ignore[arg-type]


@pytest.mark.parametrize("hooks", [[], [lambda event: None]], ids=["without hooks", "with hooks"])
def test_it_keeps_what_a_real_one_sends(hooks: Any, tracking_server: TrackingServer) -> None:
    settings = Settings(
        id_number="2_1", secret_key="a key that both have", endpoint=tracking_server.endpoint, hooks=hooks
    )
    clock = Clock()
    kept, sent = RecordedTracker(settings, clock=clock), Tracker(settings, clock=clock)
    for tracker in (kept, sent):
        visitor = TestClient(shop(tracker), cookies=kept.cookies_for(experiments={21: 22}, goals=[35]))
        for path in ("/", "/buy", "/", "/buy"):
            visitor.get(path)
    assert sent.close()
    arrived = [
        target.partition("?")[2] for target in tracking_server.targets
    ]  # some may have overtaken others
    assert sorted(map(query, kept.hits)) == sorted(arrived)
    assert len(arrived) == 3
