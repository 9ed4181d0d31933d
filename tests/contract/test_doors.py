"""What every door must do: the same stories through both, with equal pages, cookies, hits and events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from convert_middleware.model import Exposure
from tests.contract.doors import PLAIN, Both, Page
from tests.servers import TrackingServer

if TYPE_CHECKING:
    from convert_middleware import Recorder


@pytest.fixture
def both() -> Iterator[Both]:
    """A world for each door; afterwards every hit is accounted for."""
    with TrackingServer() as one, TrackingServer() as other:
        both = Both((one, other))
        yield both
        both.check_accounts()


def land(convert: Recorder) -> object:
    return convert.experiment(11, 12)


def reach(convert: Recorder) -> object:
    return convert.goal(331)


def pay(convert: Recorder) -> object:
    return convert.revenue(35, transaction_id="ab12345", value="1599.99", products=10)


def buy(convert: Recorder) -> object:
    return land(convert), reach(convert), pay(convert)


def fail(convert: Recorder) -> object:
    raise ZeroDivisionError("the page's own")


LANDING, GOAL, SHOP = Page(land), Page(reach), Page(buy)
EXPOSED, CREDITED = Exposure(11, 12), Exposure(11, 12, (331,))


def test_who_lands_reaches_a_goal_buys_and_returns_is_counted_once_each(both: Both) -> None:
    assert both.ask(LANDING).got == [12]
    (landing,) = both.hits()
    assert (landing.exposures, landing.new_exposures, landing.goals) == ((EXPOSED,), 1, ())

    assert both.ask(GOAL).got == [True]
    (goal,) = both.hits()
    assert (goal.exposures, goal.new_exposures, goal.goals, goal.new_goals) == ((CREDITED,), 0, (331,), 1)

    assert both.ask(Page(pay)).got == [True]
    (purchase,) = both.hits()
    assert purchase.transaction is not None
    assert (purchase.exposures, purchase.new_goals) == ((CREDITED,), 0)

    both.sleep(30 * 86_400)
    assert both.ask(SHOP).got == [(12, False, False)]
    assert both.ask(SHOP).cookies == []
    assert both.hits() == []


def test_a_whole_story_in_one_request_is_one_hit(both: Both) -> None:
    answer = both.ask(SHOP)

    assert len(answer.cookies) == 1
    (hit,) = both.hits()
    assert (hit.exposures, hit.new_exposures, hit.goals, hit.new_goals) == ((CREDITED,), 1, (331,), 1)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_what_nobody_looks_at_presents_nothing_and_a_goal_in_it_counts(both: Both, method: str) -> None:
    assert both.ask(LANDING, method=method).cookies == []
    assert both.hits() == []
    both.ask(SHOP, method=method)
    (hit,) = both.hits()
    assert (hit.exposures, hit.goals) == ((), (331,))


@pytest.mark.parametrize(
    ("status", "counts"), [(200, True), (204, True), (302, True), (304, False), (404, True)]
)
def test_every_status_presents_the_page_but_not_modified(both: Both, status: int, counts: bool) -> None:
    answer = both.ask(Page(land, status=status, body=()))

    assert len(answer.cookies) == counts
    assert len(both.hits()) == counts


def test_an_exception_before_the_response_keeps_what_was_paid_and_takes_back_what_was_not_shown(
    both: Both,
) -> None:
    answer = both.ask(Page(lambda convert: (buy(convert), fail(convert))))

    assert (answer.raised, answer.status, answer.headers) == ("ZeroDivisionError", 0, [])
    (hit,) = both.hits()
    assert (hit.exposures, hit.goals) == ((), (331,))
    assert hit.transaction is not None


def test_an_exception_after_the_page_has_begun_takes_nothing_back(both: Both) -> None:
    answer = both.ask(Page(buy, body=(b"begun", fail, b"never")))

    assert (answer.raised, answer.status, answer.body) == ("ZeroDivisionError", 200, [b"begun"])
    (hit,) = both.hits()
    assert hit.exposures == (CREDITED,)


def test_a_goal_in_the_middle_of_a_stream_counts_once_though_no_cookie_can_tell_of_it(both: Both) -> None:
    stream = Page(land, body=(b"one", reach, b"two", reach))

    assert both.ask(stream).got == [12, True, False]
    (hit,) = both.hits()
    assert (hit.exposures, hit.goals, hit.new_goals) == ((CREDITED,), (331,), 1)

    assert len(both.ask(stream).cookies) == 1, "the next cookie has it"
    assert both.ask(stream).cookies == []
    assert both.hits() == []


def test_a_browser_that_goes_in_the_middle_of_the_page_has_seen_it(both: Both) -> None:
    answer = both.ask(Page(buy, body=(b"one", b"two", b"three")), stays_for=1)

    assert (answer.body, answer.raised) == ([b"one"], "")
    (hit,) = both.hits()
    assert (hit.exposures, hit.new_goals) == ((CREDITED,), 1)


@pytest.mark.parametrize(
    ("headers", "guarded"),
    [
        ((), [("vary", "Cookie"), ("cache-control", "private")]),
        (
            (("Cache-Control", "public, s-maxage=60, max-age=5"), ("Vary", "Accept-Encoding")),
            [("vary", "Accept-Encoding, Cookie"), ("cache-control", "private, max-age=5")],
        ),
        ((("vary", "*"), ("cache-control", "no-store")), [("vary", "*"), ("cache-control", "no-store")]),
        ((("vary", "cookie"),), [("vary", "cookie"), ("cache-control", "private")]),
        (
            (("cdn-cache-control", "max-age=600"), ("x-accel-expires", "60")),
            [
                ("cdn-cache-control", "no-store"),
                ("x-accel-expires", "0"),
                ("vary", "Cookie"),
                ("cache-control", "private"),
            ],
        ),
    ],
)
def test_shared_caches_are_told_to_keep_out(
    both: Both, headers: tuple[tuple[str, str], ...], guarded: list[tuple[str, str]]
) -> None:
    answer = both.ask(Page(land, headers=headers))

    ours = ("vary", "cache-control", "cdn-cache-control", "x-accel-expires")
    assert [(key, value) for key, value in answer.headers if key in ours] == guarded
    both.hits()
    assert len(both.told("CacheGuarded")) == any("max-age" in value for _, value in headers)


@pytest.mark.parametrize("cookie", ["", "convert_visitor=forged"])
def test_a_page_that_records_nothing_leaves_as_it_is(both: Both, cookie: str) -> None:
    headers = (*PLAIN, ("cache-control", "public, s-maxage=60"), ("vary", "Origin"), ("x-own", "ä"))

    assert both.ask(Page(headers=headers), cookie=cookie).headers == list(headers)
    assert both.hits() == []
    assert both.events == []


def test_an_application_that_sets_our_cookie_itself_keeps_its_own(both: Both) -> None:
    own = ("set-cookie", "convert_visitor=mine; Path=/")

    assert both.ask(Page(reach, headers=(own,))).cookies == ["convert_visitor=mine; Path=/"]
    assert len(both.hits()) == 1


def test_a_door_within_a_door_of_the_same_project_does_nothing(both: Both) -> None:
    both.open({}, {"secret_key": "another of at least 16 bytes"})

    assert len(both.ask(Page(buy, outer=reach)).cookies) == 1
    (hit,) = both.hits()
    assert hit.new_goals == 1


def test_two_projects_have_a_cookie_and_a_hit_each(both: Both) -> None:
    both.open({}, {"project_id": "70"})

    answer = both.ask(Page(land, outer=reach))
    assert [line.partition("=")[0] for line in answer.cookies] == ["convert_visitor_70", "convert_visitor"]
    assert sorted((hit.project_id, hit.goals) for hit in both.hits()) == [(1, (331,)), (70, ())]
    assert both.ask(Page(land, outer=reach), cookie="; ".join).cookies == []
    assert both.hits() == []


def test_the_first_variation_stays_and_the_conflict_is_announced(both: Both) -> None:
    both.ask(LANDING)
    both.hits()

    answer = both.ask(Page(lambda convert: convert.experiment(11, 13)))
    assert (answer.got, answer.cookies) == ([12], [])
    assert both.hits() == []
    assert len(both.told("VariationConflict")) == 1


def test_a_token_carries_the_visitor_into_a_back_office_and_the_page_learns_of_it(both: Both) -> None:
    assert both.ask(Page(lambda convert: (land(convert), convert.token())[1])).got == ["a token"]
    both.hits()

    assert both.resume(lambda convert: (reach(convert), pay(convert))) == (True, True)
    (hit,) = both.hits()
    assert (hit.exposures, hit.new_exposures, hit.new_goals) == ((CREDITED,), 0, 1)
    assert len(both.ask(SHOP).cookies) == 1, "the page's cookie has it from now on"
    assert both.hits() == []


def test_forget_deletes_the_cookie_and_sends_nothing(both: Both) -> None:
    both.ask(LANDING)
    both.hits()

    def change_their_mind(convert: Recorder) -> object:
        reach(convert)
        convert.forget()
        return pay(convert)

    answer = both.ask(Page(change_their_mind))
    (deletion,) = answer.cookies
    assert "Max-Age=0" in deletion
    assert answer.got == [False]
    assert both.hits() == []
    assert len(both.told("VisitorForgotten")) == 1
    assert both.ask(LANDING, cookie="").got == [12]
    assert len(both.hits()) == 1


def test_who_denies_consent_gets_the_page_and_loses_the_cookie(both: Both) -> None:
    both.open({"consent": lambda request: request.cookie("choice") == "yes"})
    both.ask(LANDING, cookie="choice=yes")
    assert len(both.hits()) == 1

    answer = both.ask(SHOP, cookie=lambda own: f"choice=no; {own[-1]}")
    assert answer.got == [(12, True, True)], "the page works"
    (deletion,) = answer.cookies
    assert "Max-Age=0" in deletion
    assert both.hits() == []
    assert both.ask(SHOP, cookie="").cookies == []
    assert both.hits() == []
    assert len(both.told("RequestExcluded")) == 1


def test_who_withdraws_on_a_page_without_records_loses_the_cookie_there(both: Both) -> None:
    both.open({"consent": lambda request: request.cookie("choice") == "yes"})
    both.ask(LANDING, cookie="choice=yes")
    both.hits()

    (deletion,) = both.ask(Page(), cookie=lambda own: f"choice=no; {own[-1]}").cookies
    assert "Max-Age=0" in deletion
    assert both.hits() == []


@pytest.mark.parametrize(
    "headers",
    [(("sec-gpc", "1"),), (("sec-purpose", "prefetch;prerender"),), (("purpose", "prefetch"),)],
    ids=["gpc", "prerender", "prefetch"],
)
def test_what_a_browser_asks_not_to_count_is_not_counted(
    both: Both, headers: tuple[tuple[str, str], ...]
) -> None:
    answer = both.ask(SHOP, headers=headers)

    assert (answer.got, answer.cookies) == ([(12, True, True)], [])
    assert both.hits() == []
    assert len(both.told("RequestExcluded")) == 1


@pytest.mark.parametrize(
    "value",
    ["", "forged", "1.", "9.abc.def", "1.AAAA.AAAA", '"', "\xff\xfe", "%00", "1." + "A" * 5000],
    ids=["empty", "text", "version", "future", "unsigned", "quote", "bytes", "null", "huge"],
)
def test_a_bad_cookie_is_a_new_visitor(both: Both, value: str) -> None:
    both.ask(LANDING)
    answer = both.ask(LANDING, cookie=f"convert_visitor={value}")

    assert len(answer.cookies) == 1
    assert len(both.hits()) == 2
    assert len(both.told("CookieRejected")) == 1


def test_the_cookie_is_found_among_whatever_else_a_browser_sends(both: Both) -> None:
    both.ask(SHOP)
    both.hits()

    odd = both.ask(
        SHOP, cookie=lambda own: f'{{"json": 1}}; =nameless; a="b; {own[0]}; convert_visitor2=x; \xff'
    )
    assert odd.cookies == []
    assert both.hits() == []


def test_several_cookies_of_our_name_are_merged_into_one_visitor(both: Both) -> None:
    """As after a change of domain or path, or one of a parent domain: the browser sends both."""
    both.ask(LANDING)
    both.sleep(60)
    both.ask(GOAL, cookie="")
    both.hits()

    forged = both.ask(SHOP, cookie=lambda own: f"{own[0]}; convert_visitor=of-a-neighbour; {own[1]}")
    assert forged.got == [(12, False, True)]
    assert len(forged.cookies) == 1
    (hit,) = both.hits()
    assert (hit.new_exposures, hit.new_goals) == (0, 0)
    assert hit.transaction is not None


def test_two_requests_with_one_cookie_count_a_goal_once(both: Both) -> None:
    both.ask(LANDING)
    both.hits()

    for _ in range(2):  # the second one was on its way before the first was answered
        both.ask(GOAL, cookie=lambda own: own[0])
    assert [hit.new_goals for hit in both.hits()] == [1]


@pytest.mark.parametrize("strict", [True, False])
def test_a_bad_argument_is_an_error_or_an_announcement(both: Both, strict: bool) -> None:
    both.open({"strict": strict})

    answer = both.ask(Page(lambda convert: (reach(convert), convert.goal("no id"))))
    assert answer.raised == ("ArgumentError" if strict else "")
    assert len(both.hits()) == 1, "what was recorded before stays"
    assert len(both.told("ArgumentRejected")) == (not strict)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_cookie_is_secure_where_the_request_was(both: Both, scheme: str) -> None:
    (line,) = both.ask(LANDING, scheme=scheme).cookies

    assert ("Secure" in line) == (scheme == "https")
    both.hits()


def test_what_convert_s_own_script_counted_is_not_new(both: Both) -> None:
    told = "_conv_v=vi:1*sc:1*cs:1700000000*fs:1700000000*pv:1*exp:{11.{v.12-g.{331.1}}}"

    answer = both.ask(SHOP, cookie=told)
    assert answer.got == [(12, False, True)]
    (hit,) = both.hits()
    assert (hit.new_exposures, hit.new_goals) == (0, 0)


def test_what_a_crowded_cookie_let_go_is_still_known_for_a_while(both: Both) -> None:
    def crowd(convert: Recorder) -> None:
        for number in range(250):
            convert.experiment(10**9 + number, 1)

    crowded = both.ask(Page(crowd))
    assert len(crowded.cookies) == 1

    assert both.ask(Page(lambda convert: convert.experiment(10**9, 2)), cookie="; ".join).got == [1]
