"""Our cookie is found beside any other, set with possible attributes only, and deleted for good."""

from __future__ import annotations

import http.cookiejar
import urllib.request
from email.message import Message
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convert_middleware.cookie import CookieOptions, find, set_cookie
from convert_middleware.errors import SettingsError

if TYPE_CHECKING:
    from http.client import HTTPResponse

NAME = b"convert_visitor"
OURS = b"1.abc+/=.def"


@pytest.mark.parametrize(
    "header",
    [
        b"convert_visitor=" + OURS,
        b"a=1; convert_visitor=" + OURS + b"; b=2",
        b"a=1;convert_visitor=" + OURS + b";b=2",
        b"a=1;\tconvert_visitor = " + OURS + b" \t;b=2",
        b'convert_visitor="' + OURS + b'"; b=2',
        b'cart={"items": [1, 2], "name": "x=y"}; convert_visitor=' + OURS,
        b"nameless; convert_visitor=" + OURS,
        b"=nameless; convert_visitor=" + OURS,
        b"; ;; convert_visitor=" + OURS + b";;",
        b"a=b=c==; convert_visitor=" + OURS,
        b'q="unclosed; convert_visitor=' + OURS,
        b"q=\x00\x01\x1f\x7f; convert_visitor=" + OURS,
        b"gr\xfc\xdfe=\xe9\xff; convert_visitor=" + OURS,
        "名=値; ".encode() + b"convert_visitor=" + OURS,
        b"bad name[]=1, 2; convert_visitor=" + OURS,
        b"$Version=1; convert_visitor=" + OURS + b"; $Path=/",
        b"my_convert_visitor=wrong; convert_visitor=" + OURS + b"; convert_visitor_2=wrong",
        b"my convert_visitor=wrong; convert_visitor=" + OURS,
        b"Convert_Visitor=wrong; convert_visitor=" + OURS,
        b"x=convert_visitor; convert_visitor=" + OURS,
        b"convert_visitor; convert_visitor=" + OURS,
    ],
)
def test_our_cookie_is_found_beside_any_other(header: bytes) -> None:
    assert find(header, NAME) == [OURS]


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b";",
        b"=",
        b"convert_visitor",
        b"my_convert_visitor=1",
        b"a=convert_visitor=1",
        b"CONVERT_VISITOR=1",
    ],
)
def test_without_our_cookie_nothing_is_found(header: bytes) -> None:
    assert find(header, NAME) == []


@pytest.mark.parametrize(
    "values", [[b"host", b"parent"], [b"parent", b"host"], [b"same", b"same"], [b"", b"x"]]
)
def test_every_cookie_of_our_name_is_found_in_order(values: list[bytes]) -> None:
    header = b"; ".join([b"a=1", *[NAME + b"=" + value for value in values], b"b=2"])
    assert find(header, NAME) == values


def test_a_huge_header_costs_no_more_than_a_large_one() -> None:
    flood = b"; ".join([NAME + b"=%d" % number for number in range(1000)])
    assert find(flood, NAME) == [b"%d" % number for number in range(8)]
    assert find(b"a" * 2**20 + b"; convert_visitor=1", NAME) == []
    assert len(find(b"convert_visitor=" + b"a" * 2**20, NAME)[0]) < 64 * 1024


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_around_our_cookie_leave_it_readable(before: bytes, after: bytes) -> None:
    for value in find(before + after, NAME):
        assert b";" not in value
    assert OURS in find(before + b"; convert_visitor=" + OURS + b"; " + after, NAME)


@given(st.lists(st.sampled_from([b"n", b"nn", b"=", b";", b" ", b"\t", b'"', b"x", b"; "]), max_size=30))
def test_a_cookie_is_a_pair_between_semicolons_whose_key_is_the_name(pieces: list[bytes]) -> None:
    header = b"".join(pieces)
    pairs = [pair.partition(b"=") for pair in header.split(b";")]
    values = [value for key, equals, value in pairs if equals and key.strip(b" \t") == b"n"]

    assert find(header, b"n") == [value.strip(b" \t").strip(b'"') for value in values][:8]


@pytest.mark.parametrize(
    ("attribute", "options"),
    [
        ("name", {"name": ""}),
        ("name", {"name": "a b"}),
        ("name", {"name": "a;b"}),
        ("name", {"name": "a=b"}),
        ("name", {"name": "grüße"}),
        ("name", {"name": "a\n"}),
        ("name", {"name": "a" * 101}),
        ("name", {"name": b"convert"}),
        ("name", {"name": None}),
        ("name", {"name": "_conv_v"}),
        ("name", {"name": "_conv_s"}),
        ("name", {"name": "_conv_prevent_tracking"}),
        ("max_age", {"max_age": 0}),
        ("max_age", {"max_age": -1}),
        ("max_age", {"max_age": 401 * 86_400}),
        ("max_age", {"max_age": 1.5}),
        ("max_age", {"max_age": True}),
        ("max_age", {"max_age": "3600"}),
        ("max_age", {"max_age": None}),
        ("path", {"path": ""}),
        ("path", {"path": "shop"}),
        ("path", {"path": "/a;b"}),
        ("path", {"path": "/a\r\nSet-Cookie: x=1"}),
        ("path", {"path": "/é"}),
        ("path", {"path": None}),
        ("domain", {"domain": ""}),
        ("domain", {"domain": "a b"}),
        ("domain", {"domain": "example.com; Path=/"}),
        ("domain", {"domain": "example..com"}),
        ("domain", {"domain": "https://example.com"}),
        ("domain", {"domain": "example.com:8000"}),
        ("domain", {"domain": "127.0.0.1"}),
        ("domain", {"domain": "bücher.example"}),
        ("domain", {"domain": b"example.com"}),
        ("secure", {"secure": "yes"}),
        ("secure", {"secure": None}),
        ("secure", {"secure": 1}),
        ("samesite", {"samesite": "Lax"}),
        ("samesite", {"samesite": None}),
        ("samesite", {"samesite": []}),
        ("samesite", {"samesite": "none"}),
        ("samesite", {"samesite": "none", "secure": False}),
        ("partitioned", {"partitioned": True}),
        ("partitioned", {"partitioned": True, "secure": False}),
        ("partitioned", {"partitioned": 1, "secure": True}),
        ("sliding", {"sliding": "no"}),
        ("name", {"name": "__Secure-visitor"}),
        ("name", {"name": "__secure-visitor", "secure": False}),
        ("name", {"name": "__Host-visitor"}),
        ("name", {"name": "__Http-visitor"}),
        ("domain", {"name": "__Host-visitor", "secure": True, "domain": "example.com"}),
        ("path", {"name": "__HOST-visitor", "secure": True, "path": "/shop"}),
    ],
)
def test_an_impossible_cookie_is_refused_naming_the_attribute(
    attribute: str, options: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError, match=rf"^cookie\.{attribute} ") as caught:
        CookieOptions(**options)
    assert caught.value.option == f"cookie.{attribute}"


@pytest.mark.parametrize(
    ("options", "https", "attributes"),
    [
        ({}, False, "; Path=/; HttpOnly; SameSite=Lax"),
        ({}, True, "; Path=/; Secure; HttpOnly; SameSite=Lax"),
        ({"secure": False}, True, "; Path=/; HttpOnly; SameSite=Lax"),
        ({"secure": True}, False, "; Path=/; Secure; HttpOnly; SameSite=Lax"),
        (
            {"domain": ".example.com", "path": "/shop", "samesite": "strict"},
            False,
            "; Path=/shop; Domain=.example.com; HttpOnly; SameSite=Strict",
        ),
        (
            {"name": "__Host-v", "samesite": "none", "secure": True, "partitioned": True},
            True,
            "; Path=/; Secure; HttpOnly; SameSite=None; Partitioned",
        ),
    ],
)
def test_attributes_are_written_as_chosen_and_secure_follows_the_request(
    options: dict[str, Any], https: bool, attributes: str
) -> None:
    assert CookieOptions(**options).attributes(https) == attributes.encode()


EVERY_PLACE: list[dict[str, Any]] = [
    {},
    {"domain": "shop.example.com"},
    {"domain": "example.com"},
    {"domain": ".example.com", "path": "/shop"},
    {"secure": True},
    {"name": "__Host-visitor", "secure": True, "samesite": "none", "partitioned": True},
    {"name": "__Secure-visitor", "secure": True, "path": "/shop/"},
]


def headers(options: CookieOptions) -> tuple[str, str]:
    name, attributes = options.name.encode(), options.attributes(True)
    kept, gone = set_cookie(name, OURS, 3600, attributes), set_cookie(name, b"", 0, attributes)
    return kept.decode(), gone.decode()


@pytest.mark.parametrize("attributes", EVERY_PLACE)
def test_deletion_empties_the_standard_librarys_cookie_jar(attributes: dict[str, Any]) -> None:
    class Answer:
        def __init__(self, header: str) -> None:
            self._message = Message()
            self._message["Set-Cookie"] = header

        def info(self) -> Message:
            return self._message

    jar = http.cookiejar.CookieJar()
    request = urllib.request.Request("https://shop.example.com/shop/cart")
    kept, gone = headers(CookieOptions(**attributes))
    jar.extract_cookies(cast("HTTPResponse", Answer(kept)), request)
    assert [cookie.value for cookie in jar] == [OURS.decode()]
    jar.extract_cookies(cast("HTTPResponse", Answer(gone)), request)
    assert list(jar) == []


@pytest.mark.parametrize("attributes", EVERY_PLACE)
def test_deletion_empties_the_jar_of_a_client(attributes: dict[str, Any]) -> None:
    kept, gone = headers(CookieOptions(**attributes))
    sent: list[str | None] = []

    def shop(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers.get("cookie"))
        return httpx.Response(200, headers={"Set-Cookie": [kept, gone, gone][len(sent) - 1]})

    with httpx.Client(transport=httpx.MockTransport(shop)) as client:
        for _ in range(3):
            client.get("https://shop.example.com/shop/cart")
        assert not list(client.cookies.jar)
    name = CookieOptions(**attributes).name
    assert sent == [None, f"{name}={OURS.decode()}", None]


def test_a_cookie_that_is_set_lives_as_long_as_said() -> None:
    kept, gone = headers(CookieOptions())
    assert "; Max-Age=3600;" in kept
    assert "Expires" not in kept
    assert "; Max-Age=0;" in gone
    assert "; Expires=Thu, 01 Jan 1970 00:00:00 GMT" in gone
