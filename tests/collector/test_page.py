"""The page in a real Chromium, as a person sees it."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from convert_middleware import wire
from convert_middleware.model import Exposure, Hit, Transaction
from tests.chromium import SWITCHES, chromium_path

from .conftest import AGENT, EXAMPLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page, Playwright

    from convert_middleware.collector import Collector

pytestmark = pytest.mark.browser
HEADERS = [("user-agent", AGENT)]
SCRIPT = "<img src=x onerror=document.title='broken'>"


@pytest.fixture
def page(playwright: Playwright, address: str, collector: Collector) -> Iterator[Page]:
    browser = playwright.chromium.launch(executable_path=chromium_path(), args=SWITCHES)
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(address)
    page.wait_for_selector("#state[data-state=live]")
    yield page
    browser.close()
    assert complaints == []


def total(page: Page, label: str, value: str) -> None:
    shown = f"#totals div:has(dt:text-is('{label}')):has(dd:text-is('{value}'))"
    page.wait_for_selector(shown, timeout=20_000)


def test_the_first_hit_replaces_the_instructions(page: Page, address: str, collector: Collector) -> None:
    page.wait_for_selector("#empty:visible")
    assert f"{address}/track/?{EXAMPLE}" in page.inner_text("#example")
    collector.take("/track/", EXAMPLE, HEADERS)
    page.wait_for_selector("#stream li.hit")
    total(page, "Revenue", "1,599.99")
    assert page.is_hidden("#empty")
    assert "reached 331, 33, 34 for the first time (before: 341, 35)" in page.inner_text("#stream li")
    page.click("#stream summary")
    assert EXAMPLE in page.inner_text("#stream .wire")
    assert "Variation 12" in page.inner_text("#experiments .experiment >> nth=0")


def test_what_comes_from_outside_stays_text(page: Page, collector: Collector) -> None:
    hit = Hit(customer_id=2, project_id=1, transaction=Transaction((5,), SCRIPT, "1.00"))  # type: ignore[arg-type]  # converted at birth
    collector.take("/track/", wire.query(hit), [*HEADERS, ("x", SCRIPT)])
    collector.take("/track/", f"c=2&p=1&{SCRIPT}=1", HEADERS)
    collector.take("/track/", "c=2&p=1", [("user-agent", f"curl/{SCRIPT}")])
    page.wait_for_selector("#stream li.bot")
    for summary in page.locator("#stream summary").all():
        summary.click()
    assert SCRIPT in page.inner_text("#stream")
    assert page.locator("#stream img").count() == 0
    assert page.title() == "Collector"


def test_the_page_is_never_wider_than_the_screen(page: Page, collector: Collector) -> None:
    goals = tuple(range(100331, 100345))
    for variation in range(1, 8):
        shown = (Exposure(2**63 - 1, variation, goals),)
        hit = Hit(customer_id=2, project_id=1, exposures=shown, new_exposures=1, goals=goals, new_goals=14)
        collector.take("/track/", wire.query(hit), HEADERS)
    total(page, "Hits", "7")
    for width, height in ((1366, 768), (1024, 768), (768, 1024), (390, 844), (320, 568)):
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [1440, 1280, 1241, 1100, 1000])
def test_all_numbers_of_five_goals_are_on_the_screen_of_a_laptop(
    page: Page, collector: Collector, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    for number in range(1, 201):
        goals = tuple(range(1_004_131, 1_004_131 + 1 + number % 5))
        bought = Transaction((goals[0],), f"o{number}", Decimal("199.99"), 2)
        shown = (Exposure(1_004_110, 1_004_111 + number % 2, goals),)
        hit = Hit(
            customer_id=2, project_id=1, exposures=shown, new_exposures=1, goals=goals, new_goals=len(goals),
            transaction=bought,
        )  # fmt: skip
        collector.take("/track/", wire.query(hit), HEADERS)
    total(page, "Hits", "200")
    assert page.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.wide'))") == 0


def test_nothing_is_said_before_it_is_known(page: Page, address: str, collector: Collector) -> None:
    collector.take("/track/", EXAMPLE, HEADERS)
    page.route("**/api/events*", lambda route: None)  # never answered
    page.goto(address)
    page.wait_for_selector("#totals dd")
    assert set(page.locator("#totals dd, #pace-now").all_inner_texts()) == {"\N{EN DASH}"}
    assert page.is_hidden("#silence")


def test_an_empty_stream_says_why(page: Page, collector: Collector) -> None:
    page.wait_for_selector("#silence:visible:text-is('Nothing yet.')")
    page.check("#problems")
    page.wait_for_selector("#silence:visible:text-is('No problems.')")
    page.click("#pause")
    page.wait_for_selector("#silence:visible:text-is('Paused.')")
    collector.take("/track/", EXAMPLE, HEADERS)
    page.wait_for_selector("#pause:text-is('Resume (1)')")
    assert page.inner_text("#silence") == "Paused."
    page.uncheck("#problems")
    page.click("#pause")
    page.wait_for_selector("#stream li.hit:visible")
    assert page.is_hidden("#silence")


def test_problems_only_says_so_where_there_are_none(page: Page, collector: Collector) -> None:
    page.check("#problems")
    assert page.is_hidden("#calm")  # nothing came yet, and that is said
    collector.take("/track/", EXAMPLE, HEADERS)
    page.wait_for_selector("#calm:visible")
    assert page.is_hidden("#silence")
    collector.take("/track/", "c=2&p=none", HEADERS)
    page.wait_for_selector("#stream li.malformed:visible")
    assert page.is_hidden("#calm")
    assert page.is_hidden("#stream li.hit")


def test_a_flood_leaves_200_lines_and_right_totals(page: Page, collector: Collector) -> None:
    for number in range(1, 3001):
        collector.take("/track/", f"c=2&p=1&e=1-10-{number}&ea=1&t=5|{number}|0.01|1", HEADERS)
    total(page, "Hits", "3,000")
    total(page, "Revenue", "30.00")
    page.wait_for_function("document.querySelectorAll('#stream li').length === 200")


def test_a_fault_is_chosen_and_ended_by_hand(page: Page, collector: Collector) -> None:
    page.click("#misbehave")
    page.fill("[name=status]", "503")
    page.fill("[name=retry_after]", "2")
    page.fill("[name=probability]", "50")
    page.keyboard.press("Enter")
    page.wait_for_selector("#fault-state:has-text('Answers 503, Retry-After 2, in 50 % of cases')")
    assert collector.faults.as_json()["probability"] == 0.5
    page.click("#normal")
    page.wait_for_selector("#fault-state:has-text('answered normally')")
    assert not collector.faults.as_json()["active"]


def test_clearing_asks_first(page: Page, collector: Collector) -> None:
    collector.take("/track/", EXAMPLE, HEADERS)
    total(page, "Hits", "1")
    page.click("#clear")
    page.click("dialog button[value=cancel]")
    assert len(collector.hits()) == 1
    page.click("#clear")
    page.click("dialog button[value=clear]")
    total(page, "Hits", "0")
    page.wait_for_selector("#empty:visible")
    assert page.locator("#stream li").count() == 0
    assert collector.hits() == []
