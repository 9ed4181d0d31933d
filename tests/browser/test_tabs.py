"""What a browser does beside following links: parallel tabs, going back, loading ahead, refusing cookies."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from examples.visitors import USER_AGENT
from tests.browser.test_story import new, our_cookie, visitor
from tests.chromium import SWITCHES, chromium_path

if TYPE_CHECKING:  # collected, and deselected, where Playwright is not installed
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Browser, Page, Playwright

    from tests.asgi.conftest import Convert
    from tests.browser.shop import Shop

pytestmark = pytest.mark.browser
PATIENCE = 30.0  # seconds that a browser gets
HITHER = "url => { setTimeout(() => location.assign(url), 0) }"  # and does not wait for it


def load_at_once(shop: Shop, path: str, *tabs: Page) -> None:
    """Load a page in two tabs; the server answers when both have asked.

    Their addresses differ, since Chromium asks for one address in one tab after the other.
    """
    shop.pair(path)
    for number, tab in enumerate(tabs):
        tab.evaluate(HITHER, f"{shop.url}{path}?tab={number}")
    for number, tab in enumerate(tabs):
        tab.wait_for_url(f"{shop.url}{path}?tab={number}")
    shop.unpair(path)


def test_two_tabs_that_reach_a_goal_in_the_same_moment_count_it_once(
    chromium: Browser, convert: Convert, open_shop: Callable[..., Shop]
) -> None:
    shop = open_shop()
    context = visitor(chromium)
    tabs = [context.new_page() for _ in range(2)]
    for tab in tabs:
        tab.goto(f"{shop.url}/")
    load_at_once(shop, "/goal", *tabs)
    load_at_once(shop, "/buy", *tabs)

    exposures, goals, _ = new(convert.hits())
    assert (exposures, sorted(goals)) == (1, [331, 332])
    for tab in tabs:  # whichever cookie the browser kept
        tab.goto(f"{shop.url}/goal")
        tab.goto(f"{shop.url}/buy")
    assert convert.hits() == []
    context.close()


def test_two_first_loads_in_the_same_moment_are_two_visitors_and_one_of_them_stays(
    chromium: Browser, convert: Convert, open_shop: Callable[..., Shop]
) -> None:
    """What nothing can help: neither request has a cookie."""
    shop = open_shop()
    context = visitor(chromium)
    tabs = [context.new_page() for _ in range(2)]
    load_at_once(shop, "/", *tabs)
    assert new(convert.hits()) == (2, [], 0)

    shown = {tab.locator("#variation").inner_text() for tab in tabs}
    for tab in tabs:
        tab.goto(f"{shop.url}/")
    kept = {tab.locator("#variation").inner_text() for tab in tabs}
    assert len(shown) == 2
    assert len(kept) == 1
    assert kept < shown
    assert convert.hits() == []
    context.close()


def test_going_back_asks_for_nothing_and_counts_nothing(
    chromium: Browser, convert: Convert, open_shop: Callable[..., Shop]
) -> None:
    shop = open_shop()
    context = visitor(chromium)
    page = context.new_page()
    page.goto(f"{shop.url}/")
    variation = page.locator("#variation").inner_text()
    page.get_by_role("link", name="goal").click()
    page.get_by_role("heading", name="goal").wait_for()
    assert new(convert.hits()) == (1, [331], 0)
    asked = len(shop.asked)

    page.evaluate("() => { setTimeout(() => history.back(), 0) }")
    page.get_by_role("heading", name="landing").wait_for()
    assert page.evaluate("window.restored"), "from the cache for going back"
    assert page.locator("#variation").inner_text() == variation
    assert len(shop.asked) == asked
    assert convert.hits() == []
    context.close()


def test_a_page_loaded_ahead_counts_when_the_browser_asks_for_it_as_usual_and_once(
    chromium: Browser, convert: Convert, open_shop: Callable[..., Shop]
) -> None:
    shop = open_shop()
    context = visitor(chromium)
    page = context.new_page()
    page.goto(f"{shop.url}/")
    page.goto(f"{shop.url}/ahead-of/goal")
    assert ahead_of(shop, page) == [("/goal", "prefetch;prerender")]
    assert new(convert.hits()) == (1, [], 0), "nobody has seen it, and perhaps nobody will"
    before = our_cookie(context, shop)

    page.get_by_role("link", name="goal").click()
    page.get_by_role("heading", name="goal").wait_for()
    assert [path for path, _ in shop.asked].count("/goal") == 1, "it was there already"
    assert convert.hits() == []
    assert our_cookie(context, shop) == before

    for _ in range(2):
        page.reload()
    assert new(convert.hits()) == (0, [331], 0)
    context.close()


def test_the_same_page_tells_as_well_where_it_was_only_loaded_ahead(
    chromium: Browser, convert: Convert, open_shop: Callable[..., Shop]
) -> None:
    shop = open_shop()
    context = visitor(chromium)
    page = context.new_page()
    page.goto(f"{shop.url}/ahead-of/telling")
    assert ahead_of(shop, page) == [("/telling", "prefetch;prerender")]
    assert convert.hits() == []

    page.evaluate(HITHER, f"{shop.url}/telling")
    page.get_by_role("heading", name="telling").wait_for()
    until(lambda: shop.activated != [])
    page.wait_for_load_state("networkidle")
    assert [path for path, _ in shop.asked].count("/telling") == 1
    assert new(convert.hits()) == (0, [333], 0)
    context.close()


def ahead_of(shop: Shop, page: Page) -> list[tuple[str, str]]:
    """Wait until the browser has loaded a page ahead and return what it asked for."""
    for _ in range(400):
        if asked := loaded_ahead(shop):
            return asked
        page.wait_for_timeout(50)
    return []


def loaded_ahead(shop: Shop) -> list[tuple[str, str]]:
    """Return what a browser asked for without anybody seeing it."""
    return [(path, purpose) for path, purpose in shop.asked if purpose]


def test_a_prerendered_page_is_counted_by_what_it_asks_for_when_it_is_shown_and_once(
    convert: Convert, open_shop: Callable[..., Shop], tmp_path: Path
) -> None:
    """In a Chromium that nobody drives: one that is driven prerenders nothing, it only loads ahead."""
    shop = open_shop()
    command = [chromium_path(), "--headless", *SWITCHES, f"--user-agent={USER_AGENT}"]
    command += [f"--user-data-dir={tmp_path}", f"{shop.url}/ahead-of/telling?follow"]
    chromium = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: loaded_ahead(shop) == [("/telling", "prefetch;prerender")])
        assert convert.hits() == [], "nobody has seen it"
        assert shop.activated == []

        shop.go = True
        until(lambda: shop.activated != [])
    finally:
        chromium.terminate()
        chromium.wait(PATIENCE)

    assert shop.activated[0] > 0, "it was shown as it had been prerendered"
    assert [path for path, _ in shop.asked].count("/telling") == 1
    assert new(convert.hits()) == (0, [333], 0)


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that a browser does by itself."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)  # nothing tells when a browser that nobody drives has done something


def test_who_refuses_cookies_gets_every_page_and_is_somebody_new_on_each(
    playwright: Playwright, convert: Convert, open_shop: Callable[..., Shop], tmp_path: Path
) -> None:
    shop = open_shop()
    settings = {"profile": {"default_content_setting_values": {"cookies": 2}}}  # as chrome://settings does
    (tmp_path / "Default").mkdir()
    (tmp_path / "Default" / "Preferences").write_text(json.dumps(settings))
    context = playwright.chromium.launch_persistent_context(
        tmp_path, executable_path=chromium_path(), args=SWITCHES, user_agent=USER_AGENT
    )
    page = context.new_page()
    shown = []
    for _ in range(2):
        page.goto(f"{shop.url}/")
        shown.append(page.locator("#variation").inner_text())
    page.get_by_role("link", name="goal").click()
    page.get_by_role("heading", name="goal").wait_for()
    page.get_by_role("link", name="buy").click()
    page.get_by_role("heading", name="thanks").wait_for()

    assert context.cookies(shop.url) == []
    assert len(set(shown)) == 2
    hits = convert.hits()
    assert new(hits) == (2, [331, 332], 1)
    assert [len(hit.exposures) for hit in hits] == [1, 1, 0, 0], "its goals are credited to no experiment"
    context.close()
