"""The whole story of a visitor in a real Chromium, on http and on https."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import pytest

from examples.visitors import USER_AGENT

if TYPE_CHECKING:  # collected, and deselected, where Playwright is not installed
    from collections.abc import Callable

    from playwright.sync_api import Browser, BrowserContext, Cookie

    from convert_middleware.model import Hit
    from tests.asgi.conftest import Convert
    from tests.browser.shop import Shop

pytestmark = pytest.mark.browser
DAY = 86_400


def visitor(chromium: Browser) -> BrowserContext:
    """Return a browser without a past that takes any certificate."""
    return chromium.new_context(user_agent=USER_AGENT, ignore_https_errors=True)


def our_cookie(context: BrowserContext, shop: Shop) -> Cookie:
    """Return what the browser's own jar has of us."""
    (cookie,) = [one for one in context.cookies(shop.url) if one.get("name") == "convert_visitor"]
    return cookie


def put(context: BrowserContext, *cookies: Cookie, age: float = 0.0) -> None:
    """Put cookies into the browser's jar as that has them so many seconds later."""
    aged = [{**cookie, "expires": cookie.get("expires", 0.0) - age} for cookie in cookies]
    context.add_cookies(cast("Any", aged))  # the type that it takes is not public


def new(hits: list[Hit]) -> tuple[int, list[int], int]:
    """Return what is new in these hits: exposures, goals, orders."""
    goals = [goal for hit in hits for goal in hit.goals[: hit.new_goals]]
    return sum(hit.new_exposures for hit in hits), goals, sum(hit.transaction is not None for hit in hits)


@pytest.mark.parametrize("https", [False, True], ids=["http", "https"])
def test_a_person_lands_reaches_a_goal_buys_and_reloads_and_is_counted_once_each(
    chromium: Browser, convert: Convert, open_shop: Callable[..., Shop], https: bool
) -> None:
    shop = open_shop(https=https)
    context = visitor(chromium)
    page = context.new_page()
    page.goto(f"{shop.url}/")
    variation = page.locator("#variation").inner_text()
    page.get_by_role("link", name="goal").click()
    page.get_by_role("heading", name="goal").wait_for()
    page.get_by_role("link", name="buy").click()
    page.get_by_role("heading", name="thanks").wait_for()
    page.reload()
    page.goto(f"{shop.url}/")

    assert page.locator("#variation").inner_text() == variation
    assert new(convert.hits()) == (1, [331, 332], 1)
    cookie = our_cookie(context, shop)
    assert (cookie.get("httpOnly"), cookie.get("sameSite"), cookie.get("path")) == (True, "Lax", "/")
    assert cookie.get("secure") == https
    assert cookie.get("domain") == "127.0.0.1", "of this host only"
    assert 394 * DAY < cookie.get("expires", 0.0) - time.time() < 396 * DAY
    assert "convert_visitor" not in str(page.evaluate("document.cookie")), "no script sees it"
    context.close()


def test_a_visitor_who_returns_a_month_later_is_still_the_same_and_the_cookie_lives_no_longer(
    chromium: Browser, convert: Convert, open_shop: Callable[..., Shop]
) -> None:
    shop = open_shop()
    context = visitor(chromium)
    page = context.new_page()
    page.goto(f"{shop.url}/")
    variation = page.locator("#variation").inner_text()
    convert.hits()
    first = our_cookie(context, shop)

    # The jar as it is 30 days later: all its cookies have 30 days less to live.
    convert.clock.sleep(30 * DAY)
    past = context.cookies()
    context.close()
    later = visitor(chromium)
    put(later, *past, age=30 * DAY)
    page = later.new_page()
    page.goto(f"{shop.url}/")
    assert page.locator("#variation").inner_text() == variation
    assert convert.hits() == []
    page.goto(f"{shop.url}/goal")

    (hit,) = convert.hits()
    assert (hit.new_exposures, hit.new_goals) == (0, 1)
    assert [exposure.goals for exposure in hit.exposures] == [(331,)], "credited to what was seen a month ago"
    left = our_cookie(later, shop).get("expires", 0.0) - time.time()
    assert abs(left - (first.get("expires", 0.0) - 30 * DAY - time.time())) < 60
    later.close()


def test_a_visitor_whose_cookie_has_run_out_is_somebody_new(
    chromium: Browser, convert: Convert, open_shop: Callable[..., Shop]
) -> None:
    shop = open_shop()
    context = visitor(chromium)
    page = context.new_page()
    page.goto(f"{shop.url}/")
    variation = page.locator("#variation").inner_text()
    old = our_cookie(context, shop)

    convert.clock.sleep(396 * DAY)
    put(context, old, age=396 * DAY)
    page.goto(f"{shop.url}/")

    assert page.locator("#variation").inner_text() != variation
    assert new(convert.hits()) == (2, [], 0)
    # A server that is sent such a cookie all the same, by a browser with a wrong clock, does not believe it.
    put(context, old)
    page.goto(f"{shop.url}/")
    assert new(convert.hits()) == (1, [], 0)
    assert convert.trackers[0].stats().rejected_cookies == {"expired": 1}
    context.close()


def test_a_visitor_who_withdraws_consent_loses_the_cookie_and_is_not_counted_any_more(
    chromium: Browser, convert: Convert, open_shop: Callable[..., Shop]
) -> None:
    shop = open_shop(consent=lambda request: {"yes": True, "no": False}.get(request.cookie("choice") or ""))
    context = visitor(chromium)
    page = context.new_page()

    def jar() -> set[str]:
        return {one.get("name", "") for one in context.cookies(shop.url)}

    page.goto(f"{shop.url}/")
    assert page.get_by_role("heading").inner_text() == "landing", "not asked yet: the page works"
    assert jar() == set()
    page.goto(f"{shop.url}/choice/yes")
    page.goto(f"{shop.url}/")
    page.goto(f"{shop.url}/goal")
    assert jar() == {"choice", "convert_visitor"}
    assert new(convert.hits()) == (1, [331], 0)

    page.goto(f"{shop.url}/choice/no")
    page.goto(f"{shop.url}/plain")  # that records nothing
    assert jar() == {"choice"}
    page.goto(f"{shop.url}/buy")
    assert page.get_by_role("heading").inner_text() == "thanks"
    assert jar() == {"choice"}
    assert convert.hits() == []
    context.close()
