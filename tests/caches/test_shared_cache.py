"""No shared cache hands one visitor's page or cookie to another, and what is nobody's own stays cacheable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.asgi.conftest import Convert
from tests.caches.model import HABITS, Habits, SharedCache
from tests.contract.doors import Page, asgi, wsgi

if TYPE_CHECKING:
    from convert_middleware import Recorder
    from tests.contract.doors import Serve
    from tests.servers import TrackingServer

Pairs = tuple[tuple[str, str], ...]
every_door = pytest.mark.parametrize("serve", [asgi, wsgi])
every_cache = pytest.mark.parametrize("habits", HABITS, ids=str)

OPEN: Final[dict[str, Pairs]] = {
    "public": (("cache-control", "public, s-maxage=60"),),
    "says nothing": (),
    "encoded": (("cache-control", "public, s-maxage=60"), ("vary", "Accept-Encoding")),
    "varies by cookie already": (("cache-control", "s-maxage=60"), ("vary", "cookie")),
    "varies by anything": (("cache-control", "public, max-age=60"), ("vary", "*")),
    "for CDNs": (("cache-control", "private"), ("cdn-cache-control", "max-age=60")),
    "for surrogates": (("cache-control", "no-store"), ("surrogate-control", "max-age=60")),
    "shouted": (("CACHE-CONTROL", "PUBLIC, S-MaxAge=60"), ("VARY", "Origin")),
    "twice": (("cache-control", "public"), ("cache-control", "s-maxage=60")),
}
USES: Final[dict[str, Callable[[Recorder, int], object]]] = {
    "presents": lambda convert, number: convert.experiment(11, number),
    "reaches": lambda convert, number: (convert.goal(331), number),
    "reads": lambda convert, number: (dict(convert.experiments), convert.visitor_id, number),
}


@pytest.fixture
def convert(tracking_server: TrackingServer, nothing_is_told: None) -> Iterator[Convert]:
    """Convert; afterwards every hit is accounted for."""
    convert = Convert(tracking_server)
    yield convert
    convert.check_accounts()


def site(use: Callable[[Recorder, int], object], headers: Pairs) -> dict[str, Page]:
    """Return a landing page that is everyone's own, and a static one, with these headers."""
    numbers = count(1)
    return {
        "/": Page(lambda convert: use(convert, next(numbers)), headers=headers),
        "/style.css": Page(headers=headers, body=(b"body {}",)),
    }


@every_door
@every_cache
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_nobody_gets_the_page_or_the_cookie_of_somebody_else(
    convert: Convert, serve: Serve, habits: Habits, use: Any
) -> None:
    tracker = convert.tracker()
    for name, headers in OPEN.items():
        cache = SharedCache(serve, tracker, site(use, headers), habits)

        first, second = cache.ask("/"), cache.ask("/")
        cookies = [line.partition(";")[0] for answer, _ in (first, second) for line in answer.cookies]
        third = cache.ask("/", cookie=cookies[0] if cookies else "other=1")

        assert not any(cached for _, cached in (first, second, third)), name
        assert first[0].got != second[0].got
        assert len(set(cookies)) == len(cookies)


@every_door
@every_cache
def test_a_page_without_records_keeps_its_headers_and_is_kept_as_without_us(
    convert: Convert, serve: Serve, habits: Habits
) -> None:
    tracker = convert.tracker()
    for name, headers in OPEN.items():
        pages = site(USES["presents"], headers)
        behind_us = SharedCache(serve, tracker, pages, habits)
        bare = SharedCache(serve, None, pages, habits)
        for cookie in ("", "convert_visitor=forged; other=1", "", "other=2"):
            answer, cached = behind_us.ask("/style.css", cookie=cookie)

            assert (answer, cached) == bare.ask("/style.css", cookie=cookie), name
            assert answer.headers == [(key.lower(), value) for key, value in headers]


@every_door
@every_cache
def test_a_static_page_comes_from_the_cache_until_it_is_too_old(
    convert: Convert, serve: Serve, habits: Habits
) -> None:
    cache = SharedCache(serve, convert.tracker(), site(USES["presents"], OPEN["public"]), habits)

    assert [cache.ask("/style.css", cookie=f"n={n}")[1] for n in range(3)] == [False, True, True]
    cache.now += 61
    assert not cache.ask("/style.css")[1]


@every_door
@every_cache
def test_without_the_guard_every_such_cache_would_mix_visitors_up(
    convert: Convert, serve: Serve, habits: Habits
) -> None:
    """That the model can tell the difference."""
    tracker = convert.tracker(cache_guard=False)
    cache = SharedCache(serve, tracker, site(USES["presents"], OPEN["public"]), habits)
    (first, _), (second, cached) = cache.ask("/"), cache.ask("/")

    assert cached
    assert first.cookies == second.cookies
