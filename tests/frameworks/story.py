"""What a visitor does on every example, what the site answers, and what Convert is told."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Final

from convert_middleware.model import Exposure, Hit, Transaction

if TYPE_CHECKING:
    import httpx

FILE: Final = "A small file that every visitor may have.\n"
STREAM: Final = "one\ntwo\nthree\n"

VISIT: Final = (
    ("GET", "/", "variation 12"),
    ("POST", "/signup", "first"),
    ("POST", "/buy", "thanks"),
    ("GET", "/stream", STREAM),
    ("GET", "/file", FILE),
    ("GET", "/plain", "nothing is recorded here"),
)
AGAIN: Final = tuple((method, path, {"first": "again"}.get(text, text)) for method, path, text in VISIT)

_hit = partial(Hit, customer_id=2, project_id=1)
HITS: Final = (
    _hit(exposures=(Exposure(11, 12),), new_exposures=1),
    _hit(exposures=(Exposure(11, 12, (331,)),), goals=(331,), new_goals=1),
    _hit(
        exposures=(Exposure(11, 12, (331,)),),
        goals=(331,),
        transaction=Transaction((35,), "ab12345", Decimal("1599.99"), 10),
    ),
    _hit(exposures=(Exposure(11, 12, (331, 34)),), goals=(34, 331), new_goals=1),
    _hit(exposures=(Exposure(11, 12, (331, 34, 33)),), goals=(33, 331, 34), new_goals=1),
)


def visit(browser: httpx.Client, story: tuple[tuple[str, str, str], ...]) -> dict[str, httpx.Response]:
    """Do what the story tells, check the answers, and return them by path."""
    pages = {}
    for method, path, text in story:
        page = browser.request(method, path)
        assert (page.status_code, page.text) == (200, text), f"{method} {path}"
        pages[path] = page
    return pages
