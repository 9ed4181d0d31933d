"""The whole way: a browser, uvicorn in a process of its own, the site, and a real tracking server."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from convert_middleware.wire import decode
from tests.accounts import accounts_in
from tests.servers import after, refused_port, stall

from .process import Site
from .site import SECRET

if TYPE_CHECKING:
    from tests.servers import TrackingServer

BOUGHT = "/track/?c=2&p=1&e=11-12-331&ea=1&g=331&ga=1&t=35%7Cab12345%7C1599.99%7C10"


def assert_accounts(said: str, *, accepted: int, delivered: int) -> None:
    """The last log line gives the numbers, and they add up."""
    (account,) = accounts_in(said)
    assert (account.accepted, account.delivered) == (accepted, delivered)
    assert "Traceback" not in said
    assert SECRET not in said


def test_one_visit_makes_exactly_one_get_with_exactly_the_published_parameters(
    tracking_server: TrackingServer,
) -> None:
    with Site(tracking_server.endpoint) as site, site.visitor() as browser:
        page = browser.get("/buy")
        said = site.stop()

    assert (page.status_code, page.text) == (200, "variation 12")
    assert page.headers["set-cookie"].startswith("convert_visitor=")
    assert [(seen.method, seen.target, seen.body) for seen in tracking_server.requests] == [
        ("GET", BOUGHT, b"")
    ]
    assert_accounts(said, accepted=1, delivered=1)


def test_a_second_visit_with_the_cookie_counts_nothing_twice(tracking_server: TrackingServer) -> None:
    with Site(tracking_server.endpoint) as site, site.visitor() as browser:
        browser.get("/buy")
        again = browser.get("/buy")
        first = browser.get("/reach/332")
        second = browser.get("/reach/332")
        said = site.stop()

    assert (again.status_code, again.text) == (200, "variation 12")
    assert "set-cookie" not in again.headers
    assert (first.text, second.text) == ("True", "False")
    assert sorted(tracking_server.targets) == sorted(
        [BOUGHT, "/track/?c=2&p=1&e=11-12-331.332&ea=0&g=332,331&ga=1"]
    )
    assert_accounts(said, accepted=2, delivered=2)


def test_a_restart_of_the_site_forgets_nothing_that_the_cookie_knows(
    tracking_server: TrackingServer,
) -> None:
    with Site(tracking_server.endpoint) as site, site.visitor() as browser:
        cookie = browser.get("/buy").headers["set-cookie"].partition(";")[0]
        site.stop()
    with Site(tracking_server.endpoint) as site, site.visitor(Cookie=cookie) as browser:
        assert "set-cookie" not in browser.get("/buy").headers
        site.stop()

    assert tracking_server.targets == [BOUGHT]


def test_a_page_that_records_nothing_looks_as_if_we_were_not_there(tracking_server: TrackingServer) -> None:
    with Site(tracking_server.endpoint) as site, site.visitor(Cookie="convert_visitor=odd") as browser:
        page = browser.get("/plain")
        site.stop()

    assert page.headers["cache-control"] == "public, s-maxage=60"
    assert set(page.headers) == {"date", "server", "cache-control", "content-length", "content-type"}
    assert tracking_server.requests == []


VISITOR = {
    "Cookie": "session=s3cr3t-session",
    "User-Agent": "Mozilla/5.0 (visitors-browser)",
    "Authorization": "Bearer s3cr3t-token",
    "Referer": "https://search.example/?q=visitors-words",
    "X-Forwarded-For": "203.0.113.99",
    "Forwarded": "for=203.0.113.99",
    "X-Real-IP": "203.0.113.99",
    "Accept-Language": "visitors-language",
    "Origin": "https://visitors-origin.example",
    "X-Request-ID": "visitors-request",
    "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}


def test_no_header_of_the_visitor_leaves_with_the_tracking_request(tracking_server: TrackingServer) -> None:
    with Site(tracking_server.endpoint) as site, site.visitor(**VISITOR) as browser:
        browser.get("/buy")
        browser.get("/reach/332")
        site.stop()

    assert len(tracking_server.requests) == 2
    for seen in tracking_server.requests:
        assert {name.lower() for name, _ in seen.headers} == {
            "host",
            "user-agent",
            "accept",
            "accept-encoding",
        }
        (agent,) = seen.all("user-agent")
        assert re.fullmatch(r"ConvertAgent/1\.0 convert-middleware/\S+", agent)
        sent = " ".join(value for _, value in seen.headers) + seen.target
        for value in (
            *VISITOR.values(),
            "s3cr3t",
            "visitors-",
            "203.0.113.99",
            browser.cookies["convert_visitor"],
        ):
            assert value not in sent


def test_sigterm_with_hits_waiting_drains_them_all(tracking_server: TrackingServer) -> None:
    tracking_server.default = after(0.2)
    goals = [str(goal) for goal in range(1, 81)]
    with Site(tracking_server.endpoint) as site, site.visitor() as browser:
        browser.get("/plain")
        for goal in goals:
            browser.cookies.clear()
            assert browser.get(f"/reach/{goal}").text == "True"
        answered = len(tracking_server.requests)
        said = site.stop()

    assert answered < len(goals), "hits were still waiting"
    assert sorted(int(decode(target).goals[0]) for target in tracking_server.targets) == list(range(1, 81))
    assert_accounts(said, accepted=80, delivered=80)


def test_a_stalled_tracking_server_holds_up_no_page_and_the_end_only_for_a_while(
    tracking_server: TrackingServer,
) -> None:
    tracking_server.default = stall()
    with Site(tracking_server.endpoint, drain_timeout="0.3") as site, site.visitor() as browser:
        for goal in range(1, 41):
            browser.cookies.clear()
            assert browser.get(f"/reach/{goal}").status_code == 200
        said = site.stop()

    assert_accounts(said, accepted=40, delivered=0)
    assert "40 dropped" in said


def test_a_tracking_server_that_is_down_holds_up_no_page() -> None:
    with refused_port() as port:
        endpoint = f"http://127.0.0.1:{port}/track/"
        with Site(endpoint, drain_timeout="0.3") as site, site.visitor() as browser:
            assert browser.get("/buy").text == "variation 12"
            assert browser.get("/buy").status_code == 200
            said = site.stop()

    assert_accounts(said, accepted=1, delivered=0)


def test_a_client_that_leaves_in_mid_stream_counts_once(tracking_server: TrackingServer) -> None:
    with Site(tracking_server.endpoint) as site, site.visitor() as browser:
        with browser.stream("GET", "/ticks") as events:
            for line in events.iter_lines():
                if line == "data: 5":
                    break
            cookie = events.headers["set-cookie"].partition(";")[0]
        (seen,) = tracking_server.until_requests(1)
        browser.cookies.clear()
        browser.headers["cookie"] = cookie
        assert browser.get("/reach/331").text == "False"
        said = site.stop()

    assert seen.target == "/track/?c=2&p=1&e=11-12-331&ea=1&g=331&ga=1"
    assert_accounts(said, accepted=1, delivered=1)


def test_many_visitors_at_once_are_each_counted_once(tracking_server: TrackingServer) -> None:
    def shop(number: int) -> None:
        with site.visitor() as browser:
            for goal in (number, number, 500):
                browser.get(f"/reach/{goal}")

    with Site(tracking_server.endpoint) as site, ThreadPoolExecutor(8) as crowd:
        site.address()
        list(crowd.map(shop, range(1, 41)))
        said = site.stop()

    reached = sorted(goal for target in tracking_server.targets for goal in decode(target).goals[:1])
    assert reached == sorted([*range(1, 41), *[500] * 40])
    assert all(decode(target).new_goals == 1 for target in tracking_server.targets)
    assert_accounts(said, accepted=80, delivered=80)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_loop_that_uvicorn_runs_on_makes_no_difference(
    tracking_server: TrackingServer, loop: str
) -> None:
    with Site(tracking_server.endpoint, "--loop", loop) as site, site.visitor() as browser:
        browser.get("/buy")
        said = site.stop()

    assert tracking_server.targets == [BOUGHT]
    assert_accounts(said, accepted=1, delivered=1)


def test_two_worker_processes_count_one_visitor_once(tracking_server: TrackingServer) -> None:
    with Site(tracking_server.endpoint, "--workers", "2") as site, site.visitor() as browser:
        pages = [browser.get("/buy", headers={"connection": "close"}) for _ in range(12)]
        tracking_server.until_requests(1)
        site.stop()

    assert [page.status_code for page in pages] == [200] * 12
    assert tracking_server.targets == [BOUGHT]
