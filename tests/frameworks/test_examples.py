"""The examples in real servers: the exact hits of a whole visit, nothing twice, nothing lost at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from convert_middleware.wire import decode
from examples.frameworks import ASGI, WSGI
from tests.end_to_end.process import ROOT
from tests.servers import answer

from .process import EVERY_EXAMPLE
from .story import AGAIN, HITS, VISIT, visit

if TYPE_CHECKING:
    from tests.servers import TrackingServer


def test_no_example_is_forgotten() -> None:
    modules = {path.stem for path in (ROOT / "examples" / "frameworks").glob("*_site.py")}
    assert modules == {*ASGI, *WSGI}


@pytest.mark.parametrize("name", EVERY_EXAMPLE)
def test_the_whole_visit_makes_exactly_these_hits_and_a_second_one_none(
    name: str, tracking_server: TrackingServer
) -> None:
    with EVERY_EXAMPLE[name](tracking_server.endpoint) as site, site.visitor() as browser:
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


@pytest.mark.parametrize("name", EVERY_EXAMPLE)
def test_what_waits_when_the_site_is_told_to_end_is_delivered_first(
    name: str, tracking_server: TrackingServer
) -> None:
    tracking_server.script(answer(503), answer(503))
    with EVERY_EXAMPLE[name](tracking_server.endpoint) as site, site.visitor() as browser:
        visit(browser, VISIT[:1])
        tracking_server.until_requests(1)
        visit(browser, VISIT[1:2])  # now at least the first waits for its next try
        site.stop()

    assert len(tracking_server.targets) == 4  # two that were refused, and two that were not
    assert set(map(decode, tracking_server.targets)) == set(HITS[:2])
