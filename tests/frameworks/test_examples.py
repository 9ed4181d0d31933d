"""The examples in real servers: the whole visit, the exact hits, and nothing twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from convert_middleware.wire import decode
from examples.frameworks import ASGI, WSGI
from tests.end_to_end.process import ROOT

from .process import AsgiSite, WsgiSite
from .story import AGAIN, HITS, VISIT, visit

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.end_to_end.process import Site
    from tests.servers import TrackingServer

EVERY_EXAMPLE: dict[str, Callable[[str, str], Site]] = {
    **dict.fromkeys(ASGI, AsgiSite),
    **dict.fromkeys(WSGI, WsgiSite),
}


def test_no_example_is_forgotten() -> None:
    modules = {path.stem for path in (ROOT / "examples" / "frameworks").glob("*_site.py")}
    assert modules == {*ASGI, *WSGI}


@pytest.mark.parametrize("name", EVERY_EXAMPLE)
def test_the_whole_visit_makes_exactly_these_hits_and_a_second_one_none(
    name: str, tracking_server: TrackingServer
) -> None:
    site = EVERY_EXAMPLE[name](f"examples.frameworks.{name}:app", tracking_server.endpoint)
    with site, site.visitor() as browser:
        first = visit(browser, VISIT)
        again = visit(browser, AGAIN)
        said = site.stop()

    assert sorted(map(decode, tracking_server.targets), key=str) == sorted(HITS, key=str)
    assert {path for path, page in first.items() if "set-cookie" in page.headers} == {
        "/",
        "/signup",
        "/buy",
        "/file",  # also with what the stream recorded when its headers were gone
    }
    assert not [path for path, page in again.items() if "set-cookie" in page.headers]
    assert not {"set-cookie", "vary", "cache-control"} & set(first["/plain"].headers)
    assert "Traceback" not in said
