"""What shared caches are told: a page that is one visitor's own is never handed to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convert_middleware import ConvertMiddleware, current
from convert_middleware.hooks import CacheGuarded
from convert_middleware.response import guard, names_of

from .drive import Answer, App, Receive, Scope, Send, ask, page, respond

if TYPE_CHECKING:
    from .conftest import Convert

Pairs = list[tuple[bytes, bytes]]


def values(headers: Pairs, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def guarded(headers: Pairs) -> Pairs:
    headers = list(headers)
    guard(headers, names_of(headers))
    return headers


VARY: dict[str, tuple[Pairs, list[bytes]]] = {
    "none": ([], [b"Cookie"]),
    "any": ([(b"vary", b"*")], [b"*"]),
    "encoding": ([(b"vary", b"Accept-Encoding")], [b"Accept-Encoding, Cookie"]),
    "ours in lower case": ([(b"vary", b"cookie")], [b"cookie"]),
    "ours among others": ([(b"Vary", b"Accept, COOKIE , Origin")], [b"Accept, COOKIE , Origin"]),
    "empty": ([(b"vary", b"")], [b"Cookie"]),
    "two headers": ([(b"vary", b"Accept"), (b"vary", b"Origin")], [b"Accept", b"Origin, Cookie"]),
    "two headers, ours in one": ([(b"vary", b"Cookie"), (b"vary", b"Origin")], [b"Cookie", b"Origin"]),
    "two headers, any in one": ([(b"vary", b"Origin"), (b"vary", b"*")], [b"Origin", b"*"]),
    "only similar": ([(b"vary", b"Cookies, X-Cookie")], [b"Cookies, X-Cookie, Cookie"]),
}


@pytest.mark.parametrize(("headers", "expected"), VARY.values(), ids=VARY)
def test_vary_names_cookie_exactly_once(headers: Pairs, expected: list[bytes]) -> None:
    assert values(guarded(headers), b"vary") == expected
    assert values(guarded(guarded(headers)), b"vary") == expected


CONTROL: dict[str, tuple[list[bytes], list[bytes]]] = {
    "none": ([], [b"private"]),
    "empty": ([b""], [b"private"]),
    "public": ([b"public, s-maxage=60"], [b"private"]),
    "max-age": ([b"max-age=60, must-revalidate"], [b"private, max-age=60, must-revalidate"]),
    "shouted": ([b"PUBLIC, S-MaxAge = 60, Max-Age=5"], [b"private, Max-Age=5"]),
    "private": ([b"private, max-age=60"], [b"private, max-age=60"]),
    "private, shouted": ([b"Private"], [b"Private"]),
    "no-store": ([b"no-store"], [b"no-store"]),
    "no-cache": ([b"no-cache"], [b"private, no-cache"]),
    "private for a field": ([b'private="x-shop", max-age=60'], [b'private, private="x-shop", max-age=60']),
    "two headers": ([b"public", b"max-age=60"], [b"private, max-age=60"]),
    "two headers, one private": ([b"max-age=60", b"private"], [b"max-age=60", b"private"]),
    "proxy-revalidate": ([b"proxy-revalidate, immutable"], [b"private, immutable"]),
}


@pytest.mark.parametrize(("given_", "expected"), CONTROL.values(), ids=CONTROL)
def test_cache_control_says_private_and_nothing_that_contradicts_it(
    given_: list[bytes], expected: list[bytes]
) -> None:
    headers = [(b"content-type", b"text/html"), *[(b"Cache-Control", value) for value in given_]]

    assert values(guarded(headers), b"cache-control") == expected
    assert guarded(guarded(headers)) == guarded(headers)
    assert (b"content-type", b"text/html") in guarded(headers)


@pytest.mark.parametrize(
    "name",
    [
        b"cdn-cache-control",
        b"CDN-Cache-Control",
        b"cloudflare-cdn-cache-control",
        b"netlify-cdn-cache-control",
        b"vercel-cdn-cache-control",
        b"surrogate-control",
    ],
)
@pytest.mark.parametrize("value", [b"max-age=600", b"public", b"private", b"no-store"])
def test_headers_that_only_cdns_obey_are_closed_too(name: bytes, value: bytes) -> None:
    headers = guarded([(name, value), (b"cache-control", b"private")])

    closed = value in (b"private", b"no-store")
    assert values(headers, name.lower()) == [value if closed else b"no-store"]


_names = st.sampled_from(
    [
        b"vary",
        b"Vary",
        b"cache-control",
        b"Cache-Control",
        b"cdn-cache-control",
        b"Edge-Control",
        b"x-shop",
        b"set-cookie",
    ]
)
_pieces = st.sampled_from(
    [
        b"public",
        b"private",
        b"no-store",
        b"max-age=5",
        b"s-maxage=5",
        b"*",
        b"cookie",
        b"Origin",
        b"",
        b" ",
        b"\xff",
    ]
)
_headers = st.lists(st.tuples(_names, st.lists(_pieces, max_size=4).map(b", ".join)), max_size=6)


@given(_headers)
def test_whatever_the_headers_a_guarded_page_is_closed_to_shared_caches(headers: Pairs) -> None:
    after = guarded(headers)

    control = b",".join(values(after, b"cache-control")).lower()
    directives = {piece.strip() for piece in control.split(b",")}
    assert directives & {b"private", b"no-store"}
    vary = {piece.strip().lower() for value in values(after, b"vary") for piece in value.split(b",")}
    assert vary & {b"*", b"cookie"}
    touched = (b"vary", b"cache-control", b"cdn-cache-control", b"edge-control")
    untouched = [pair for pair in headers if pair[0].lower() not in touched]
    assert [pair for pair in after if pair[0].lower() not in touched] == untouched
    assert guarded(after) == after


PUBLIC = [(b"Cache-Control", b"public, s-maxage=60"), (b"ETag", b'"1"'), (b"VARY", b"Accept-Encoding")]


@pytest.mark.parametrize("cookie", [None, "convert_visitor=forged; other=1"])
def test_a_static_file_without_records_keeps_its_headers_to_the_byte(
    convert: Convert, cookie: str | None
) -> None:
    start = {"type": "http.response.start", "status": 200, "headers": PUBLIC}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        current()
        await send(start)
        await send({"type": "http.response.body", "body": b"body {}"})

    answer = ask(convert.door(app), cookie=cookie)

    assert answer.messages[0] is start
    assert start["headers"] is PUBLIC
    assert convert.told(CacheGuarded) == []


READERS = {
    "experiments": lambda recorder: recorder.experiments,
    "goals": lambda recorder: recorder.goals,
    "visitor_id": lambda recorder: recorder.visitor_id,
    "token": lambda recorder: recorder.token(),
    "experiment": lambda recorder: recorder.experiment(11, 12),
    "goal": lambda recorder: recorder.goal(331),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_response_that_used_the_visitors_state_is_guarded_and_that_is_announced(
    convert: Convert, read: Any
) -> None:
    answer = ask(convert.door(page(read, headers=PUBLIC, status=203)))

    assert answer.headers("cache-control") == ["private"]
    assert answer.headers("vary") == ["Accept-Encoding, Cookie"]
    assert answer.headers("etag") == ['"1"']
    assert convert.told(CacheGuarded) == [CacheGuarded(status=203)]


def test_a_response_that_was_closed_anyway_announces_no_guarding(convert: Convert) -> None:
    answer = ask(
        convert.door(page(lambda recorder: recorder.goal(331), headers=[(b"cache-control", b"no-store")]))
    )

    assert answer.headers("cache-control") == ["no-store"]
    assert answer.headers("vary") == ["Cookie"]
    assert convert.told(CacheGuarded) == []


def test_without_the_guard_only_the_cookie_is_added(convert: Convert) -> None:
    door = convert.door(page(lambda recorder: recorder.goal(331), headers=PUBLIC), cache_guard=False)

    answer = ask(door)

    *others, (name, _) = answer.start["headers"]
    assert others == PUBLIC
    assert name == b"set-cookie"
    assert len(answer.cookies()) == 1
    assert convert.told(CacheGuarded) == []


class SharedCache:
    """A shared cache (RFC 9111) in front of a site; a careless one pays no attention to Vary."""

    def __init__(self, app: App, *, obeys_vary: bool) -> None:
        self._app = app
        self._obeys_vary = obeys_vary
        self._stored: dict[tuple[str, str | None], Answer] = {}
        self.served = 0

    def ask(self, *, path: str = "/", cookie: str | None = None) -> Answer:
        for key in ((path, None), (path, cookie)):
            if key in self._stored:
                self.served += 1
                return self._stored[key]
        answer = ask(self._app, path=path, cookie=cookie)
        control = {
            piece.strip().partition("=")[0] for piece in ",".join(answer.headers("cache-control")).split(",")
        }
        if control & {"public", "s-maxage", "max-age"} and not control & {"private", "no-store"}:
            varies = self._obeys_vary and "cookie" in ",".join(answer.headers("vary")).lower()
            self._stored[path, cookie if varies else None] = answer
        return answer


@pytest.mark.parametrize("obeys_vary", [True, False])
def test_the_second_visitor_never_gets_the_first_ones_cookie_or_page_from_a_shared_cache(
    convert: Convert, obeys_vary: bool
) -> None:
    visitors = iter(range(1, 100))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = b"the same for all"
        if scope["path"] == "/":
            variation = current().experiment(11, next(visitors))
            body = f"variation {variation}".encode()
        await respond(headers=[(b"cache-control", b"public, s-maxage=60")], body=body)(send)

    cache = SharedCache(convert.door(app), obeys_vary=obeys_vary)
    first, second = cache.ask(), cache.ask()
    again = cache.ask(cookie=first.cookie())

    assert (first.body, second.body, again.body) == (b"variation 1", b"variation 2", b"variation 1")
    assert first.cookie() != second.cookie()
    assert cache.served == 0
    assert [cache.ask(path="/style.css").body for _ in range(2)] == [b"the same for all"] * 2
    assert cache.served == 1, "what records nothing stays as cacheable as it was"


def test_a_shared_cache_would_mix_visitors_without_the_guard(convert: Convert) -> None:
    """That the model above can tell the difference."""
    headers = [(b"cache-control", b"public, s-maxage=60")]
    app = page(lambda recorder: recorder.experiment(11, 12), headers=headers)
    cache = SharedCache(ConvertMiddleware(app, tracker=convert.tracker(cache_guard=False)), obeys_vary=True)

    assert cache.ask().cookie() == cache.ask().cookie()
    assert cache.served == 1


@pytest.mark.parametrize(
    ("given_", "expected", "was_open"),
    [
        (b"60", b"0", True),
        (b"@1800000000", b"0", True),
        (b"", b"0", True),
        (b"0", b"0", False),
        (b" 0 ", b" 0 ", False),
    ],
)
def test_nginx_is_told_in_its_own_header_as_well(given_: bytes, expected: bytes, was_open: bool) -> None:
    headers = [(b"X-Accel-Expires", given_), (b"cache-control", b"private"), (b"vary", b"Cookie")]
    assert guard(headers, names_of(headers)) is was_open
    assert headers == [(b"X-Accel-Expires", expected), (b"cache-control", b"private"), (b"vary", b"Cookie")]


def test_a_header_for_nginx_alone_does_not_keep_the_others_out() -> None:
    assert guarded([(b"x-accel-expires", b"60")]) == [
        (b"x-accel-expires", b"0"),
        (b"vary", b"Cookie"),
        (b"cache-control", b"private"),
    ]
