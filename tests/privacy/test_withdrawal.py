"""Who agrees is counted; who takes that back loses the cookie, and what waits of them never leaves."""

from __future__ import annotations

from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Final

import pytest

from convert_middleware import CookieOptions
from convert_middleware.delivery.worker import LANES
from convert_middleware.hooks import HitDropped, RequestExcluded, VisitorWithdrew, visitor_hash
from convert_middleware.wire import decode
from tests.delivery.conftest import until
from tests.redis_server import RedisServer
from tests.servers import answer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from convert_middleware import Recorder
    from convert_middleware.browser import RequestFacts
    from tests.privacy.conftest import Browser, Sites
    from tests.privacy.doors import Answer, Record
    from tests.servers import Behaviour, Seen, TrackingServer

    Headers = tuple[tuple[str, str], ...]

YES: Final = "cookie_choice=all"
NO: Final = "cookie_choice=none"
GPC: Final = (("Sec-GPC", "1"),)
DNT: Final = (("DNT", "1"),)
PLAIN: Final = [("content-type", "text/plain")]


def choice(request: RequestFacts) -> bool | None:
    """Find the visitor's choice where this site keeps it."""
    chosen = request.cookie("cookie_choice")
    return None if chosen is None else chosen == "all"


def goal(number: int) -> Record:
    return lambda convert: convert.goal(number)


def nothing(convert: Recorder) -> str:
    del convert
    return "hello"


def agreed(browser: Browser, record: Record) -> str:
    """Let a new visitor agree and record; return the visitor's cookie."""
    return browser.get(record, cookie=YES).cookie


def counted(browser: Browser, record: Record) -> str:
    """Let a new visitor be counted, and return the cookie when Convert has heard of it."""
    cookie = browser.get(record, cookie=YES).cookie
    assert browser.tracker.flush(20.0)
    return cookie


def refuses(browser: Browser, cookie: str, record: Record = nothing) -> Answer:
    return browser.get(record, cookie=f"{cookie}; {NO}")


def attributes(line: str) -> list[str]:
    """Return what of a Set-Cookie header says which cookie it is, and where it goes."""
    return [part for part in line.split("; ")[1:] if not part.startswith(("Max-Age=", "Expires="))]


def arrived(server: TrackingServer) -> list[int]:
    """Return the goals of which the server was told that they are new."""
    hits = [decode(target.partition("?")[2]) for target in server.targets]
    return sorted(goal for hit in hits for goal in hit.goals[: hit.new_goals])


def test_nothing_is_kept_before_a_visitor_agrees_nor_after(sites: Sites) -> None:
    browser = sites.open(consent=choice)
    assert browser.get(goal(331)).cookies == []
    assert browser.convert.hits() == []

    first = browser.get(goal(331), cookie=YES)
    assert first.body == "True"
    visitor_id = browser.get(lambda convert: convert.visitor_id, cookie=f"{first.cookie}; {YES}").body
    (hit,) = browser.convert.hits()
    assert hit.goals == (331,)

    last = refuses(browser, first.cookie, goal(331))
    assert last.body == "True"  # nobody knows this visitor any more
    (line,) = last.cookies
    assert line.startswith("convert_visitor=;")
    assert "Max-Age=0" in line
    assert browser.convert.told(VisitorWithdrew) == [VisitorWithdrew(visitor=visitor_hash(visitor_id))]
    assert browser.tracker.stats().excluded == {"consent unknown": 1, "consent denied": 1}

    assert refuses(browser, "a=1", goal(331)).cookies == []
    assert browser.convert.hits() == []
    assert len(browser.convert.told(VisitorWithdrew)) == 1


@pytest.mark.parametrize(
    ("options", "scheme"),
    [
        (CookieOptions(), "http"),
        (CookieOptions(), "https"),
        (CookieOptions(name="who", path="/shop", domain="shop.example", samesite="strict"), "http"),
        (CookieOptions(name="__Host-who", secure=True, samesite="none", partitioned=True), "https"),
    ],
)
def test_the_cookie_is_deleted_with_the_attributes_it_was_set_with(
    options: CookieOptions, scheme: str, sites: Sites
) -> None:
    browser = sites.open(consent=choice, cookie=options)
    given = browser.get(goal(331), cookie=YES, scheme=scheme)
    taken = browser.get(nothing, cookie=f"{given.cookie}; {NO}", scheme=scheme)
    assert taken.cookies[0].startswith(f"{options.name}=;")
    assert attributes(taken.cookies[0]) == attributes(given.cookies[0])


@pytest.mark.parametrize("record", [goal(332), nothing], ids=["goal", "nothing"])
@pytest.mark.parametrize(
    ("options", "headers"),
    [({}, GPC), ({"honour_dnt": True}, DNT), ({"honour_dnt": True, "honour_gpc": False}, DNT)],
    ids=["gpc", "dnt", "dnt alone"],
)
def test_a_browser_that_begins_to_say_no_withdraws_on_whatever_page(
    options: dict[str, Any], headers: Headers, record: Record, sites: Sites
) -> None:
    browser = sites.open(**options)
    cookie = counted(browser, goal(331))
    left = browser.get(record, cookie=cookie, headers=headers)
    assert "Max-Age=0" in left.cookies[0]
    assert ("cache-control", "private") in left.headers
    assert len(browser.convert.told(VisitorWithdrew)) == len(browser.convert.told(RequestExcluded)) == 1
    assert len(browser.convert.hits()) == 1

    assert browser.get(nothing, headers=headers).headers == PLAIN
    assert len(browser.convert.told(RequestExcluded)) == 1


@pytest.mark.parametrize(
    ("options", "headers", "more"),
    [
        ({}, (("Sec-GPC", "0"),), ""),
        ({}, (("Upgrade-Insecure-Requests", "1"), *DNT), ""),
        ({"honour_gpc": False}, GPC, ""),
        ({"honour_gpc": False, "honour_dnt": True}, GPC, ""),
        ({"exclude": lambda request: True}, GPC, ""),
        ({"consent": choice}, (), f"; {YES}"),
        ({"consent": choice}, (), ""),
    ],
    ids=["gpc 0", "dnt", "gpc off", "dnt alone", "excluded", "granted", "unknown"],
)
def test_a_page_that_records_nothing_stays_as_it_is_for_who_does_not_withdraw(
    options: dict[str, Any], headers: Headers, more: str, sites: Sites
) -> None:
    browser = sites.open()
    cookie = browser.get(goal(331)).cookie
    unchanged = sites.open(**options).get(nothing, cookie=cookie + more, headers=headers)
    assert unchanged.headers == PLAIN
    assert browser.convert.told(VisitorWithdrew) == []


def test_a_visitor_withdraws_on_a_page_that_records_nothing(sites: Sites) -> None:
    browser = sites.open(consent=choice)
    cookie = counted(browser, goal(331))
    gone = refuses(browser, cookie)
    assert gone.body == "hello"
    assert "Max-Age=0" in gone.cookies[0]
    assert ("cache-control", "private") in gone.headers  # the deletion is that visitor's own
    assert len(browser.convert.told(VisitorWithdrew)) == len(browser.convert.told(RequestExcluded)) == 1


def test_who_withdrew_and_agrees_again_is_somebody_new(sites: Sites) -> None:
    browser = sites.open(consent=choice)
    cookie = counted(browser, lambda convert: [convert.experiment(11, 12), convert.goal(331)])
    refuses(browser, cookie)
    again = browser.get(lambda convert: [convert.experiment(11, 13), convert.goal(331)], cookie=YES)
    assert again.body == "[13, True]"
    first, second = browser.convert.hits()
    assert [first.exposures[0].variation_id, second.exposures[0].variation_id] == [12, 13]
    assert first.new_goals == second.new_goals == 1


@pytest.fixture(params=["memory", "sqlite", "redis"])
def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The option of each kind of outbox in turn."""
    if request.param == "redis":
        with RedisServer() as server:
            yield server.url
    else:
        yield f"sqlite:///{tmp_path}/outbox.db" if request.param == "sqlite" else "memory://"


@pytest.mark.parametrize("hooks", [True, False], ids=["hooks", "no-hooks"])
def test_what_waits_of_who_withdraws_never_leaves_and_all_else_does(
    outbox: str, hooks: bool, sites: Sites, tracking_server: TrackingServer
) -> None:
    options = {} if hooks else {"hooks": ()}
    browser = sites.open(consent=choice, outbox=outbox, **options)
    server_answers = browser.convert.hold()
    for number in range(LANES):
        agreed(browser, goal(1000 + number))
    until(lambda: browser.tracker.stats().in_flight == LANES)
    anna = agreed(browser, goal(331))
    browser.get(goal(332), cookie=f"{anna}; {YES}")
    agreed(browser, goal(333))
    until(lambda: browser.tracker.stats().waiting == 3)
    refuses(browser, anna)
    server_answers.set()
    assert browser.tracker.flush(20.0)

    assert arrived(tracking_server) == [333, *range(1000, 1000 + LANES)]
    stats = browser.tracker.stats()
    assert stats.delivered == LANES + 1
    assert stats.dropped == {"withdrawn": 2}
    if hooks:
        told = [event for event in browser.convert.events if isinstance(event, HitDropped)]
        assert {event.reason for event in told} == {"withdrawn"}
        assert sum(event.number for event in told) == 2


def held(server: TrackingServer, then: Behaviour) -> Event:
    """Have the server answer nothing until the event is set, and then this."""
    released = Event()

    def choose(seen: Seen) -> Behaviour:
        del seen
        assert released.wait(5.0)
        return then

    server.default = choose
    return released


@pytest.mark.parametrize("status", [200, 503, 404])
def test_a_hit_in_flight_when_its_visitor_withdraws_gets_no_second_attempt(
    status: int, outbox: str, sites: Sites, tracking_server: TrackingServer
) -> None:
    browser = sites.open(consent=choice, outbox=outbox)
    server_answers = held(tracking_server, answer(status))
    cookie = agreed(browser, goal(331))
    tracking_server.until_requests(1)
    refuses(browser, cookie)
    server_answers.set()
    assert browser.tracker.flush(20.0)

    assert arrived(tracking_server) == [331]
    stats = browser.tracker.stats()
    if status == 200:
        assert (stats.delivered, stats.dropped) == (1, {})
    else:
        assert (stats.delivered, stats.dead, stats.dropped) == (0, 0, {"withdrawn": 1})
        assert browser.convert.told(HitDropped) == [HitDropped(reason="withdrawn")]


@pytest.mark.parametrize("headers", [(("Sec-GPC", "1"),), ()], ids=["gpc", "consent"])
def test_a_forged_cookie_is_deleted_and_withdraws_nobody(
    headers: tuple[tuple[str, str], ...], sites: Sites
) -> None:
    browser = sites.open(consent=choice)
    gone = browser.get(goal(331), cookie=f"convert_visitor=1.forged.text; {NO}", headers=headers)
    assert "Max-Age=0" in gone.cookies[0]
    assert browser.convert.told(VisitorWithdrew) == []
    assert browser.tracker.stats().rejected_cookies == {"signature": 1}


def test_of_a_browser_with_cookies_of_two_visitors_both_withdraw(
    sites: Sites, tracking_server: TrackingServer
) -> None:
    browser = sites.open(consent=choice)
    server_answers = browser.convert.hold()
    for number in range(LANES):
        agreed(browser, goal(1000 + number))
    until(lambda: browser.tracker.stats().in_flight == LANES)
    one, two = agreed(browser, goal(331)), agreed(browser, goal(332))
    refuses(browser, f"{one}; {two}")
    server_answers.set()
    assert browser.tracker.flush(20.0)
    assert arrived(tracking_server) == [*range(1000, 1000 + LANES)]
    assert browser.tracker.stats().dropped == {"withdrawn": 2}
    assert len(set(browser.convert.told(VisitorWithdrew))) == 2


def test_a_page_that_was_being_made_meanwhile_brings_nothing_back(sites: Sites) -> None:
    browser = sites.open(consent=choice)
    cookie = counted(browser, goal(331))

    def withdraw_in_another_tab(convert: Recorder) -> tuple[bool, bool]:
        before = convert.goal(332)
        tab = Thread(target=refuses, args=(browser, cookie))
        tab.start()
        tab.join()
        return before, convert.goal(333)

    late = browser.get(withdraw_in_another_tab, cookie=f"{cookie}; {YES}")
    assert late.body == "(True, True)"
    assert "Max-Age=0" in late.cookies[0]
    assert browser.tracker.flush(20.0)
    assert arrived(browser.convert.server) == [331]


def test_a_cookie_that_outlived_its_deletion_is_nobodys(sites: Sites) -> None:
    browser = sites.open(consent=choice)
    cookie = counted(browser, goal(331))
    token = browser.get(lambda convert: convert.token(), cookie=f"{cookie}; {YES}").body
    refuses(browser, cookie)
    again = browser.get(goal(331), cookie=f"{cookie}; {YES}")
    assert again.body == "True"
    assert again.cookie not in (cookie, "convert_visitor=")
    with browser.tracker.resume(token) as convert:
        convert.goal(334)
    assert browser.tracker.flush(20.0)
    assert arrived(browser.convert.server) == [331, 331]


def test_an_old_cookie_that_is_sent_again_and_again_has_the_outbox_searched_once(sites: Sites) -> None:
    browser = sites.open(consent=choice)
    cookie = counted(browser, goal(331))
    for _ in range(3):
        refuses(browser, cookie)
        assert browser.tracker.flush(20.0)
    assert len(browser.convert.told(VisitorWithdrew)) == 1
