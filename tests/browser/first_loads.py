"""How often two requests of one new visitor are counted as two visitors, measured in a real Chromium.

    python -m tests.browser.first_loads [--visitors NUMBER] [--takes SECONDS]

Each visitor is a browser without a past. Its first answer brings the cookie; what it asked for before that
came is somebody else's, as far as anybody can know.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from playwright.sync_api import sync_playwright

from examples.visitors import USER_AGENT
from tests.asgi.conftest import Convert
from tests.browser.conftest import served
from tests.browser.shop import Shop
from tests.chromium import SWITCHES, chromium_path
from tests.servers import TrackingServer

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

# They run in a page that records nothing, and are over when both landing pages have come.
TABS: Final = """async ([first, second, gap]) => {
    const loaded = (tab) => new Promise((done) => {
        const look = () => tab.document.querySelector("#variation") ? done() : setTimeout(look, 5);
        look();
    });
    const one = open(first);
    if (gap) await new Promise((done) => setTimeout(done, gap));
    await Promise.all([loaded(one), loaded(open(second))]);
}"""
PARTS: Final = "([first, second]) => Promise.all([fetch(first), fetch(second)]).then(() => {})"
PAGE_AND_PART: Final = """async ([first, second]) => {
    const page = document.createElement("iframe");
    page.src = first;
    await new Promise((done) => { page.onload = done; document.body.append(page); });
    await page.contentWindow.fetch(second);
}"""


@dataclass(frozen=True)
class Way:
    """A way to ask for two pages that record, on a first visit."""

    name: str
    script: str
    paths: tuple[str, str] = ("/?1", "/?2")
    gap: float = 0.0  # between the two, in response times


WAYS: Final = [
    Way("a page that records, and then something it loads that does too", PAGE_AND_PART),
    Way("a page that records nothing, and two things it loads at once that do", PARTS),
    Way("two tabs at once, different addresses", TABS),
    Way("two tabs at once, the same address", TABS, ("/", "/")),
    Way("two tabs, the second half a response time later", TABS, gap=0.5),
    Way("two tabs, the second two response times later", TABS, gap=2.0),
]


def visit(context: BrowserContext, shop: Shop, way: Way) -> None:
    """Ask for both pages in a browser without a past."""
    page = context.new_page()
    page.goto(f"{shop.url}/plain")
    page.evaluate(way.script, [*[shop.url + path for path in way.paths], way.gap * shop.takes * 1000])


def main() -> None:
    """Measure every way."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--visitors", type=int, default=100, help="for each way (default: %(default)s)")
    options.add_argument(
        "--takes", type=float, default=0.05, help="seconds for a page (default: %(default)s)"
    )
    chosen = options.parse_args()
    with TrackingServer() as server, sync_playwright() as playwright:
        convert = Convert(server)
        shop = Shop(convert.tracker())
        shop.takes = chosen.takes
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=SWITCHES)
        with served(shop.app) as shop.url:
            print(f"{chosen.visitors} visitors each, {chosen.takes * 1000:.0f} ms for a page")
            for way in WAYS:
                twice = 0
                for _ in range(chosen.visitors):
                    context = browser.new_context(user_agent=USER_AGENT)
                    visit(context, shop, way)
                    context.close()
                    twice += sum(hit.new_exposures for hit in convert.hits()) > 1
                print(f"{twice / chosen.visitors:7.1%}  counted twice: {way.name}", flush=True)
        browser.close()
        convert.check_accounts()


if __name__ == "__main__":
    main()
