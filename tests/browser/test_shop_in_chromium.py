"""A person in a real browser; selected with ``-m browser`` and failing where there is no Chromium."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from convert_middleware import Settings, Tracker
from convert_middleware.collector import create_collector
from convert_middleware.collector.serve import running
from examples.shop import ids
from examples.shop.app import create_app
from examples.visitors import USER_AGENT
from tests.browser.conftest import served

if TYPE_CHECKING:  # collected, and deselected, where Playwright is not installed
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser


@pytest.fixture
def sites() -> Iterator[tuple[str, str]]:
    app = create_collector(names=ids.NAMES)
    with running(app) as collector:
        tracker = Tracker(
            Settings(
                project_id=ids.PROJECT,
                customer_id=ids.CUSTOMER,
                secret_key="k" * 32,
                endpoint=f"{collector}/track/",
            )
        )
        with served(create_app(tracker, collector)) as shop:
            yield shop, collector
        tracker.close()
    app.state.collector.close()


def buy_a_mug(page: Page, shop: str) -> None:
    page.goto(shop)
    page.get_by_role("link", name="Stoneware mug").click()
    page.locator("form button").click()
    page.get_by_role("link", name="Go to checkout").click()
    page.get_by_label("Name on the parcel").fill("Someone")
    page.get_by_role("button", name="Pay").click()
    page.get_by_role("heading", name="Thank you").wait_for()


def test_a_person_lands_buys_and_comes_back_and_the_collector_shows_one_of_each(
    chromium: Browser, sites: tuple[str, str]
) -> None:
    shop, collector = sites
    context = chromium.new_context(user_agent=USER_AGENT)
    page = context.new_page()
    buy_a_mug(page, shop)
    headline = page.locator(".told .tag").first.inner_text()
    page.reload()
    page.get_by_role("heading", name="Thank you").wait_for()

    later = context.new_page()
    later.goto(shop)
    assert later.locator(".told .tag").first.inner_text() == headline

    cookie = next(one for one in context.cookies(shop) if one["name"] == "convert_visitor")
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Lax"
    assert not cookie["secure"]
    assert cookie["path"] == "/"
    assert 394 * 86_400 < cookie["expires"] - time.time() < 396 * 86_400

    live = context.new_page()
    live.goto(collector)
    landing = live.get_by_role("table").filter(has_text=headline.partition(": ")[2])
    row = landing.get_by_role("row").filter(has_text=headline.partition(": ")[2])
    row.filter(has_text="18.50").wait_for()
    cells = [cell.strip() for cell in row.get_by_role("cell").all_inner_texts()]
    headings = [cell.split("\n")[0].strip() for cell in landing.get_by_role("columnheader").all_inner_texts()]
    shown = dict(zip(headings[-len(cells) :], cells, strict=True))
    assert shown["Visitors"] == "1"
    assert shown["Orders"] == "1"
    bought = next(value for heading, value in shown.items() if "Bought" in heading)
    assert bought.split()[0] == "1"
    assert "100" in bought
    context.close()


def test_a_phone_scrolls_in_one_direction_only(chromium: Browser, sites: tuple[str, str]) -> None:
    shop, collector = sites
    context = chromium.new_context(viewport={"width": 390, "height": 844}, user_agent=USER_AGENT)
    page = context.new_page()
    buy_a_mug(page, shop)
    for address in (shop, f"{shop}/product/lamp", f"{shop}/thanks", collector):
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, address
    context.close()
