"""One story in every framework and server: the same pages, cookies and hits everywhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from convert_middleware.cookie import MAX_AGE, CookieCodec
from convert_middleware.wire import decode
from tests.frameworks.process import SECRET
from tests.frameworks.story import AGAIN, HITS, VISIT, visit
from tests.servers import answer

from .page import PAGE, tables
from .servers import PAIRS, SERVERS, Running, Server, example

if TYPE_CHECKING:
    import httpx

    from tests.servers import TrackingServer


class Kept(NamedTuple):
    """What a response gave the browser to keep."""

    path: str
    attributes: str
    experiments: tuple[int, ...]
    variations: tuple[int, ...]
    goals: tuple[int, ...]
    transactions: int


_ATTRIBUTES = "Path=/; HttpOnly; SameSite=Lax"
KEPT = [
    Kept("/", _ATTRIBUTES, (11,), (12,), (), 0),
    Kept("/signup", _ATTRIBUTES, (11,), (12,), (331,), 0),
    Kept("/buy", _ATTRIBUTES, (11,), (12,), (331,), 1),
    Kept("/file", _ATTRIBUTES, (11,), (12,), (331, 34, 33), 1),
]


def kept(pages: dict[str, httpx.Response]) -> list[Kept]:
    codec = CookieCodec([SECRET], MAX_AGE)
    found = []
    for path, page in pages.items():
        for line in page.headers.get_list("set-cookie"):
            pair, _, attributes = line.partition("; ")
            age, _, others = attributes.partition("; ")
            assert MAX_AGE - 60 <= int(age.removeprefix("Max-Age=")) <= MAX_AGE
            name, _, value = pair.partition("=")
            assert name == "convert_visitor"
            visitor, _ = codec.read(value.encode(), time.time())
            state = visitor.experiments, visitor.variations, visitor.goals, len(visitor.transactions)
            found.append(Kept(path, others, *state))
    return found


@pytest.mark.parametrize(("server", "name"), PAIRS, ids=lambda value: getattr(value, "name", value))
def test_pages_cookies_and_hits_are_the_same_everywhere(
    server: Server, name: str, tracking_server: TrackingServer
) -> None:
    with Running(server, example(name), tracking_server.endpoint) as site, site.visitor() as browser:
        first = visit(browser, VISIT)
        again = visit(browser, AGAIN)
        tracking_server.until_requests(len(HITS))
        site.stop()

    if server.delivers and name != "litestar_site":  # whose logging ends before its process does
        account = site.accounts[-1]
        assert account.accepted == account.delivered == len(HITS)
    assert kept(first) == KEPT
    assert kept(again) == []
    assert sorted(map(decode, tracking_server.targets), key=str) == sorted(HITS, key=str)


@pytest.mark.parametrize(
    "server", [each for each in SERVERS if each.delivers is not None], ids=lambda server: server.name
)
def test_what_waits_in_memory_when_the_server_is_told_to_end(
    server: Server, tracking_server: TrackingServer
) -> None:
    later = answer(503, {"Retry-After": "600"})
    tracking_server.script(later, later)
    app = example(server.frameworks[0])
    with Running(server, app, tracking_server.endpoint) as site, site.visitor() as browser:
        visit(browser, VISIT[:1])
        tracking_server.until_requests(1)
        visit(browser, VISIT[1:2])  # now at least the first waits for its next try
        site.stop()

    delivered = set(map(decode, tracking_server.targets[2:]))
    in_order = server.delivers or (server.name == "granian, WSGI" and sys.version_info >= (3, 13))
    assert delivered == (set(HITS[:2]) if in_order else set())


def test_the_page_tells_of_exactly_these_pairs() -> None:
    assert tables(lambda _server, _name: True) in PAGE.read_text()
