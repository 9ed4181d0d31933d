"""What excludes a request, what does not, and which reason is told when there are several."""

from __future__ import annotations

from time import thread_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convert_middleware.browser import Exclusion, RequestFacts, exclusion, fields_of
from convert_middleware.cookie import find
from tests.browser_state.requests import request, wsgi_request

CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0"


def knows_robot(agent: bytes) -> bool:
    return b"robot" in agent


def test_an_ordinary_request_is_counted() -> None:
    ordinary = request(
        ("User-Agent", CHROME), ("Cookie", "a=1; _conv_v=vi:1"), ("Accept", "*/*"), query="q=1"
    )
    assert exclusion(ordinary, honour_dnt=True, is_bot=knows_robot) is None
    assert exclusion(request(), honour_dnt=True, is_bot=knows_robot) is None


@pytest.mark.parametrize(
    ("header", "value", "reason"),
    [
        ("Sec-GPC", "1", "gpc"),
        ("sec-gpc", " 1 ", "gpc"),
        ("SEC-GPC", "1, 1", "gpc"),
        ("Sec-GPC", "0", None),
        ("Sec-GPC", "", None),
        ("Sec-GPC", "11", None),
        ("Sec-GPC", "true", None),
        ("DNT", "1", "dnt"),
        ("DNT", "0", None),
        ("DNT", "unspecified", None),
        ("Sec-Purpose", "prefetch", "prefetch"),
        ("Sec-Purpose", "prefetch;prerender", "prerender"),
        ("Sec-Purpose", "Prefetch; Prerender", "prerender"),
        ("Sec-Purpose", "prefetch;anonymous-client-ip", "prefetch"),
        ("Sec-Purpose", "prefetch;prerender;anonymous-client-ip", "prerender"),
        ("Sec-Purpose", "prerender", "prerender"),
        ("Sec-Purpose", "prefetching", None),
        ("Sec-Purpose", "", None),
        ("Purpose", "prefetch", "prefetch"),
        ("Purpose", "preview", "prefetch"),
        ("X-Moz", "prefetch", "prefetch"),
        ("X-Purpose", "preview", "prefetch"),
        ("X-Purpose", "prefetch", "prefetch"),
        ("X-Purpose", "shopping", None),
        ("X-Moz", "preview", None),
        ("User-Agent", "robot/1.0", "bot"),
        ("Cookie", "a=1; _conv_prevent_tracking=true", "opt-out"),
        ("Cookie", 'a={"x": 1}; _conv_prevent_tracking="true"', "opt-out"),
        ("Cookie", "_conv_prevent_tracking=false", None),
        ("Cookie", "_conv_prevent_tracking=", None),
        ("Cookie", "my_conv_prevent_tracking=true", None),
    ],
)
def test_a_header_excludes_by_what_it_says(header: str, value: str, reason: str | None) -> None:
    assert exclusion(request((header, value)), honour_dnt=True, is_bot=knows_robot) == reason
    environ = {"HTTP_" + header.upper().replace("-", "_"): value}
    assert exclusion(wsgi_request(environ), honour_dnt=True, is_bot=knows_robot) == reason


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("convert_disable=true", "opt-out"),
        ("a=1&convert_disable=true&b=2", "opt-out"),
        ("_conv_prevent_tracking=true", "opt-out"),
        ("convert_preview=live&convert_exp=12345&convert_var=1", "preview"),
        ("convert_action=convert_vpreview&convert_e=11&convert_v=12", "preview"),
        ("a&convert_action=convert_vpreview", "preview"),
        ("convert_disable=false", None),
        ("convert_disable", None),
        ("convert_disable=truee", None),
        ("not_convert_disable=true", None),
        ("convert_preview=", None),
        ("convert_action=force&convert_exp=12345", None),
        ("convert_action=convert_vpreviews", None),
        ("_conv_eforce=11.12", None),
        ("q=convert_disable=true", None),
        ("q=conversion+rate", None),
        ("", None),
    ],
)
def test_converts_own_parameters_exclude_and_those_that_are_counted_do_not(
    query: str, reason: str | None
) -> None:
    assert exclusion(request(query=query)) == reason


def test_dnt_and_gpc_are_honoured_only_where_asked() -> None:
    both = request(("DNT", "1"), ("Sec-GPC", "1"))
    assert exclusion(both) is Exclusion.GPC
    assert exclusion(both, honour_gpc=False) is None
    assert exclusion(both, honour_gpc=False, honour_dnt=True) is Exclusion.DNT


def test_of_several_reasons_what_the_visitor_wants_is_told_first() -> None:
    headers = [
        ("Cookie", "_conv_prevent_tracking=true"),
        ("Sec-GPC", "1"),
        ("DNT", "1"),
        ("Sec-Purpose", "prefetch;prerender"),
        ("X-Moz", "prefetch"),
        ("User-Agent", "robot"),
    ]
    told = []
    while headers:
        told.append(exclusion(request(*headers), honour_dnt=True, is_bot=knows_robot))
        headers.pop(0)
    assert told == ["opt-out", "gpc", "dnt", "prerender", "prefetch", "bot"]


def test_bots_are_not_looked_for_where_nobody_knows_them_or_something_else_excludes() -> None:
    asked: list[bytes] = []

    def notes(agent: bytes) -> bool:
        asked.append(agent)
        return True

    assert exclusion(request(("User-Agent", "robot"))) is None
    assert exclusion(request(("User-Agent", "robot"), ("Sec-GPC", "1")), is_bot=notes) is Exclusion.GPC
    assert exclusion(request(("User-Agent", "")), is_bot=notes) is None
    assert asked == []


def test_only_what_a_visitor_says_denies_consent() -> None:
    assert {reason for reason in Exclusion if reason.denies} == {"gpc", "dnt", "consent denied"}


def test_a_header_in_several_lines_is_read_as_one() -> None:
    get = fields_of([(b"Cookie", b"a=1"), (b"cookie", b"b=2"), (b"X", b"1"), (b"x", b"2"), (b"Y", b"3")]).get
    assert (get(b"cookie"), get(b"x"), get(b"y"), get(b"z")) == (b"a=1; b=2", b"1, 2", b"3", None)


def test_headers_and_cookies_are_looked_up_by_name() -> None:
    asked = request(
        ("X-Consent", "grün"), ("Cookie", 'consent=yes%21; other="q"; consent=no; bad=\udcff'[:-1])
    )
    assert asked.header("x-CONSENT") == "grün".encode().decode("latin-1")
    assert asked.header("missing") is None
    assert (asked.cookie("consent"), asked.cookie("other"), asked.cookie("missing")) == ("yes%21", "q", None)
    assert request().cookie("consent") is None


@given(
    st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=80)), max_size=8), st.binary(max_size=80)
)
def test_any_headers_and_query_are_answered(headers: list[tuple[bytes, bytes]], query: bytes) -> None:
    asked = RequestFacts(method="GET", path="/", query=query, get=fields_of(headers).get, find=find)
    assert exclusion(asked, honour_dnt=True, is_bot=knows_robot) in (None, *Exclusion)


@pytest.mark.parametrize(
    "text", [b"1" * 2**20, b"," * 2**20, b"conv&" * 2**18, b"convert_disable=" * 2**16, b"; a" * 2**18]
)
def test_a_huge_header_or_query_costs_no_more_than_a_long_one(text: bytes) -> None:
    names = [b"sec-gpc", b"dnt", b"sec-purpose", b"purpose", b"x-moz", b"x-purpose"]
    asked = RequestFacts(
        method="GET", path="/", query=text, get=fields_of([(name, text) for name in names]).get, find=find
    )
    begun = thread_time()
    assert exclusion(asked, honour_dnt=True) is None
    assert thread_time() - begun < 0.05
