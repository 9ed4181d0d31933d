"""The same claims with a real nginx and its cache in front of a real server process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import httpx
import pytest

from examples.visitors import USER_AGENT
from tests.caches.nginx import Nginx
from tests.end_to_end.process import Site

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import TrackingServer

pytestmark = pytest.mark.nginx
# What people write into an nginx in front of a shop, from careful to careless.
CONFIGS: Final = {
    "obeys headers": [],
    "keeps what says nothing": ["proxy_cache_valid any 60s;"],
    "ignores Vary": ["proxy_cache_valid any 60s;", "proxy_ignore_headers Vary;"],
    "ignores Vary and Set-Cookie": ["proxy_cache_valid any 60s;", "proxy_ignore_headers Vary Set-Cookie;"],
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
OWN_PAGES: Final = ("/", "/encoded", "/for-nginx", "/silent")


class AsgiSite(Site):
    """The site in uvicorn."""

    server = ("uvicorn", "tests.caches.site:asgi", "--port", "0")


class WsgiSite(Site):
    """The site in waitress."""

    server = ("tests.frameworks.waitress_server", "tests.caches.site:wsgi")
    up = "Serving on"
    where = r"Serving on (http://[0-9.]+:([0-9]+))"


@pytest.fixture(params=[AsgiSite, WsgiSite])
def site(request: pytest.FixtureRequest, tracking_server: TrackingServer) -> Iterator[Site]:
    """The site behind each door in turn."""
    with request.param(tracking_server.endpoint) as site:
        yield site


@pytest.fixture
def unguarded(tracking_server: TrackingServer) -> Iterator[Site]:
    """The site without the cache guard."""
    with AsgiSite(tracking_server.endpoint, cache_guard="false") as site:
        yield site


def visitor(url: str) -> httpx.Client:
    """Return a browser that keeps cookies."""
    return httpx.Client(base_url=url, headers={"User-Agent": USER_AGENT}, trust_env=False, timeout=20.0)


def status(answer: httpx.Response) -> str:
    """Return what nginx says of its cache."""
    return str(answer.headers["x-cache-status"])


def own_headers(answer: httpx.Response) -> list[tuple[str, str]]:
    """Return the headers that are the application's."""
    of_servers = ("date", "server", "connection", "x-cache-status", "via")
    return sorted((key, value) for key, value in answer.headers.multi_items() if key not in of_servers)


@every_config
def test_nginx_hands_nobody_the_page_or_the_cookie_of_somebody_else(
    site: Site, tmp_path: Path, config: list[str]
) -> None:
    with Nginx(tmp_path, site.address(), *config) as nginx:
        for path in OWN_PAGES:
            with visitor(nginx.url) as one, visitor(nginx.url) as other, visitor(nginx.url) as late:
                first, second, again = one.get(path), other.get(path), one.get(path)
                last = late.get(path)

            assert all(status(answer) != "HIT" for answer in (first, second, again, last)), path
            assert len({first.text, second.text, last.text}) == 3
            assert again.text == first.text
            assert len({answer.headers["set-cookie"] for answer in (first, second, last)}) == 3
            assert "set-cookie" not in again.headers


@every_config
def test_nginx_keeps_a_page_without_records_and_its_headers_are_the_sites_own(
    site: Site, tmp_path: Path, config: list[str]
) -> None:
    with (
        Nginx(tmp_path, site.address(), *config) as nginx,
        visitor(site.address()) as direct,
        visitor(nginx.url) as one,
        visitor(nginx.url) as other,
    ):
        plain = direct.get("/style.css")
        one.get("/")  # who has a cookie of ours gets the same page
        first, second = one.get("/style.css"), other.get("/style.css")

    assert (status(first), status(second)) == ("MISS", "HIT")
    for answer in (first, second):
        assert answer.content == plain.content
        assert own_headers(answer) == own_headers(plain)


def test_without_the_guard_a_careless_nginx_would_mix_visitors_up(unguarded: Site, tmp_path: Path) -> None:
    """That these tests can tell the difference."""
    config = CONFIGS["ignores Vary and Set-Cookie"]
    with (
        Nginx(tmp_path, unguarded.address(), *config) as nginx,
        visitor(nginx.url) as one,
        visitor(nginx.url) as other,
    ):
        first, second = one.get("/"), other.get("/")

    assert (status(first), status(second)) == ("MISS", "HIT")
    assert first.headers["set-cookie"] == second.headers["set-cookie"]


def test_an_nginx_that_ignores_cache_control_cannot_be_helped(site: Site, tmp_path: Path) -> None:
    """What the documentation warns of: who comes back gets no new cookie, so that nothing is left to obey."""
    config = ["proxy_cache_valid any 60s;", "proxy_ignore_headers Cache-Control Vary;"]
    with (
        Nginx(tmp_path, site.address(), *config) as nginx,
        visitor(nginx.url) as one,
        visitor(nginx.url) as other,
    ):
        first, again = one.get("/"), one.get("/")
        stranger = other.get("/")
        told = [browser.get("/for-nginx") for browser in (one, one, other)]

    assert first.text == again.text == stranger.text
    assert status(stranger) == "HIT"
    assert "set-cookie" not in stranger.headers
    assert [status(answer) for answer in told] == ["MISS"] * 3, "but by what is said to it alone"
