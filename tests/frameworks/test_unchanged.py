"""Pages of a site are the same byte for byte with and without the door, except for our headers."""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from convert_middleware.wire import decode
from examples.visitors import USER_AGENT

from .process import AsgiSite, WsgiSite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.end_to_end.process import Site
    from tests.servers import TrackingServer

FLASK: Final = "tests.frameworks.pages_flask"
DJANGO: Final = "tests.frameworks.pages_django"
SITES: Final = {
    "Flask": (WsgiSite, f"{FLASK}:bare", f"{FLASK}:tracked"),
    "Django": (WsgiSite, f"{DJANGO}:bare", f"{DJANGO}:tracked"),
    "Django with ASGI": (AsgiSite, f"{DJANGO}:bare_asgi", f"{DJANGO}:tracked_asgi"),
}


class Question(NamedTuple):
    """A request."""

    method: str
    path: str
    headers: str = ""
    body: str = ""


class Answer(NamedTuple):
    """A response as it came over the wire, without its Date."""

    status: bytes
    headers: list[bytes]
    body: bytes

    def without(self, *names: bytes) -> Answer:
        """Return the same without these headers and without our cookie."""
        gone = (*(name + b":" for name in names), b"set-cookie: convert_visitor=")
        kept = [line for line in self.headers if not line.lower().startswith(gone)]
        return self._replace(headers=kept)

    def values(self, name: bytes) -> list[bytes]:
        """Return what a header says, once for each of its lines."""
        lines = [line.partition(b": ") for line in self.headers]
        return [value for key, _, value in lines if key.lower() == name]


PAGES: Final = (
    *("html", "json", "stream", "file", "redirect"),
    *("missing", "broken", "nothing", "cookie", "varying"),
)
QUESTIONS: Final = (
    *(Question("GET", f"/{page}") for page in PAGES),
    *(Question("HEAD", f"/{page}") for page in PAGES),
    Question("GET", "/nowhere"),
    Question("GET", "/file", "Range: bytes=3-9\r\n"),
    Question("GET", "/file", "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\n"),
    Question("POST", "/echo", "Content-Length: 5\r\n", "hello"),
    Question("OPTIONS", "/html"),
    Question("DELETE", "/json"),
)


def ask(site: Site, question: Question, query: str = "") -> Answer:
    """Send a request over a connection of its own and read until the server closes it."""
    method, path, headers, body = question
    request = (
        f"{method} {path}{query} HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: {USER_AGENT}\r\n"
        f"{headers}Connection: close\r\n\r\n{body}"
    )
    port = int(site.address().rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20.0) as connection:
        connection.sendall(request.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, content = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    return Answer(status, [line for line in lines if not line.lower().startswith(b"date:")], content)


@pytest.fixture(autouse=True)
def the_same_order_of_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flask's Allow header has the order of a set."""
    monkeypatch.setenv("PYTHONHASHSEED", "1")


@contextmanager
def both(name: str, endpoint: str) -> Iterator[tuple[Site, Site]]:
    """Run a site without the door and with it."""
    server, bare, tracked = SITES[name]
    with ExitStack() as stack:
        yield (
            stack.enter_context(server(bare, endpoint)),
            stack.enter_context(server(tracked, endpoint)),
        )


@pytest.mark.parametrize("name", SITES)
def test_a_page_that_records_nothing_is_the_same_byte_for_byte(
    name: str, tracking_server: TrackingServer
) -> None:
    with both(name, tracking_server.endpoint) as (bare, tracked):
        for question in QUESTIONS:
            assert ask(tracked, question) == ask(bare, question), question
        tracked.stop()
    assert tracking_server.targets == []


@pytest.mark.parametrize("name", SITES)
def test_a_page_that_records_has_our_headers_more_and_no_other_byte(
    name: str, tracking_server: TrackingServer
) -> None:
    with both(name, tracking_server.endpoint) as (bare, tracked):
        for question in QUESTIONS:
            theirs, ours = (ask(site, question, "?record=yes") for site in (bare, tracked))
            changed = (b"vary", b"cache-control")
            assert ours.without(*changed) == theirs.without(*changed), question
            assert_ours(theirs, ours)
        tracked.stop()
    assert [decode(target).goals for target in tracking_server.targets] == [(331,)] * len(QUESTIONS)


def assert_ours(theirs: Answer, ours: Answer) -> None:
    """One cookie of ours is set, and shared caches are told that the page is this visitor's own."""
    (vary,), (control,) = ours.values(b"vary"), ours.values(b"cache-control")
    cookies = [value for value in ours.values(b"set-cookie") if value.startswith(b"convert_visitor=")]
    assert len(cookies) == 1
    assert vary == b", ".join([*theirs.values(b"vary"), b"Cookie"])
    given = [value.removeprefix(b"public, ") for value in theirs.values(b"cache-control")]
    assert control == (b"no-store" if given == [b"no-store"] else b", ".join([b"private", *given]))
