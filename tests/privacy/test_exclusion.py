"""Who is not counted: the page works as ever, and nothing of it is stored or sent, whatever the reason."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pytest

from convert_middleware.hooks import RequestExcluded, VisitorWithdrew
from tests.asgi.conftest import warnings_of

if TYPE_CHECKING:
    from convert_middleware import Recorder
    from convert_middleware.browser import RequestFacts
    from tests.privacy.conftest import Browser, Sites

FIREFOX: Final = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
GOOGLEBOT: Final = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


def raising(request: RequestFacts) -> bool:
    """Fail as a site's own callable may, with a secret in the message."""
    raise LookupError(request.header("cookie"))


def asynchronous(request: RequestFacts) -> object:
    """Return what nobody awaited."""

    async def look_up() -> bool:
        return request.cookie("choice") == "all"

    return look_up()


def says(answer: Any) -> Any:
    """Return a callable that gives this answer whatever the request."""
    return lambda request: answer


@dataclass(frozen=True)
class Case:
    """A reason not to count a request, how a site comes to it, and how the site switches it off."""

    name: str
    reason: str
    options: dict[str, Any] = field(default_factory=dict)
    headers: tuple[tuple[str, str], ...] = ()
    cookie: str = ""
    query: str = ""
    off: dict[str, Any] | None = None  # None: it is the visitor's or Convert's word and has no switch
    warns: str = ""

    def __str__(self) -> str:
        return self.name

    def request(self) -> dict[str, Any]:
        return {"headers": self.headers, "cookie": self.cookie, "query": self.query}


ALL: Final[dict[str, Any]] = {"consent": None}
WRONG: Final = r"consent {}; that counts as denied\."
NEEDED: Final = "'granted', 'denied', 'unknown', True, False or None is needed"
CASES: Final = [
    Case("consent denied", "consent denied", {"consent": says("denied")}, off=ALL),
    Case("consent false", "consent denied", {"consent": says(False)}, off=ALL),
    Case("consent unknown", "consent unknown", {"consent": says("unknown")}, off=ALL),
    Case("consent none", "consent unknown", {"consent": says(None)}, off=ALL),
    Case(
        "consent raises",
        "consent denied",
        {"consent": raising},
        off=ALL,
        warns=WRONG.format("raised LookupError"),
    ),
    Case(
        "consent number",
        "consent denied",
        {"consent": says(1)},
        off=ALL,
        warns=WRONG.format(f"returned int; {NEEDED}"),
    ),
    Case(
        "consent word",
        "consent denied",
        {"consent": says("yes")},
        off=ALL,
        warns=WRONG.format("returned a text that is not 'granted', 'denied' or 'unknown'"),
    ),
    Case(
        "consent asynchronous",
        "consent denied",
        {"consent": asynchronous},
        off=ALL,
        warns=WRONG.format("is asynchronous; a plain function is needed"),
    ),
    Case("gpc", "gpc", headers=(("Sec-GPC", "1"),), off={"honour_gpc": False}),
    Case("dnt", "dnt", {"honour_dnt": True}, headers=(("DNT", "1"),), off={"honour_dnt": False}),
    Case("prefetch", "prefetch", headers=(("Sec-Purpose", "prefetch"),)),
    Case("prerender", "prerender", headers=(("Sec-Purpose", "prefetch;prerender"),)),
    Case("old prefetch", "prefetch", headers=(("Purpose", "prefetch"),)),
    Case("older prefetch", "prefetch", headers=(("X-Moz", "prefetch"),)),
    Case("bot", "bot", headers=(("User-Agent", GOOGLEBOT),), off={"exclude_bots": False}),
    Case("opt-out cookie", "opt-out", cookie="_conv_prevent_tracking=true"),
    Case("opt-out cookie among others", "opt-out", cookie='a={"b": 1}; _conv_prevent_tracking=true; c'),
    Case("opt-out query", "opt-out", query="convert_disable=true"),
    Case("preview", "preview", query="convert_action=convert_vpreview&convert_e=11&convert_v=12"),
    Case("live preview", "preview", query="utm=1&convert_preview=live"),
    Case("rule", "rule", {"exclude": says(True)}, off={"exclude": None}),
    Case(
        "rule finds something", "rule", {"exclude": lambda r: r.header("X-Ours")}, (("X-Ours", "1"),), off={}
    ),
    Case(
        "rule raises",
        "rule",
        {"exclude": raising},
        off={"exclude": None},
        warns=r"exclude raised LookupError; the request is not counted\.",
    ),
    Case(
        "rule asynchronous",
        "rule",
        {"exclude": asynchronous},
        off={"exclude": None},
        warns=r"exclude is asynchronous; a plain function is needed; the request is not counted\.",
    ),
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def everything(convert: Recorder) -> str:
    """Record one of each."""
    variation = convert.experiment(11, 12)
    first = convert.goal(331)
    paid = convert.revenue(35, transaction_id="ab12345", value="1599.99", products=10)
    return f"{variation} {first} {paid} {dict(convert.experiments)} {convert.goals}"


PAGE: Final = "12 True True {11: 12} (331,)"


def stays_out(browser: Browser, reason: str, *, times: int = 1) -> None:
    """Hold that nothing left, and that each request was counted and announced once."""
    stats = browser.tracker.stats()
    assert stats.excluded == {reason: times}
    assert stats.accepted == stats.refused == 0
    assert browser.convert.told(RequestExcluded) == [RequestExcluded(reason=reason)] * times
    assert browser.convert.hits() == []


@every_case
def test_a_page_that_is_not_counted_works_and_leaves_nothing(
    case: Case, sites: Sites, caplog: pytest.LogCaptureFixture
) -> None:
    browser = sites.open(**case.options)
    answer = browser.get(everything, **case.request())
    assert (answer.status, answer.body) == (200, PAGE)
    assert answer.cookies == []
    stays_out(browser, case.reason)
    assert all(isinstance(event, RequestExcluded) for event in browser.convert.events)
    told = warnings_of(caplog)
    assert len(told) == bool(case.warns)
    assert all(re.fullmatch(case.warns, line) for line in told)


@every_case
def test_a_page_that_records_nothing_is_neither_counted_nor_excluded(case: Case, sites: Sites) -> None:
    browser = sites.open(**case.options)
    answer = browser.get(lambda convert: "hello", **case.request())
    assert answer.headers == [("content-type", "text/plain")]
    assert browser.tracker.stats().excluded == {}
    assert browser.convert.events == []


@every_case
def test_who_is_not_counted_is_nobody_again_on_the_next_page(case: Case, sites: Sites) -> None:
    browser = sites.open(**case.options)
    ids = [browser.get(lambda convert: convert.visitor_id, **case.request()).body for _ in range(2)]
    assert ids[0] != ids[1]
    assert [browser.get(everything, **case.request()).body for _ in range(2)] == [PAGE, PAGE]
    stays_out(browser, case.reason, times=4)


@every_case
def test_a_known_visitor_who_is_not_counted_keeps_the_variation(case: Case, sites: Sites) -> None:
    counted = sites.open()
    cookie = counted.get(lambda convert: convert.experiment(11, 12)).cookie
    assert len(counted.convert.hits()) == 1
    browser = sites.open(**case.options)
    request = {**case.request(), "cookie": f"{case.cookie}; {cookie}" if case.cookie else cookie}
    answer = browser.get(lambda convert: convert.experiment(11, 13), **request)
    denied = case.reason in ("gpc", "dnt", "consent denied")
    assert answer.body == ("13" if denied else "12")  # who denies is not even recognised
    assert len(browser.convert.told(VisitorWithdrew)) == denied
    assert len(answer.cookies) == denied
    assert browser.convert.hits() == []


@pytest.mark.parametrize("case", [case for case in CASES if case.off is not None], ids=str)
def test_what_is_switched_off_excludes_nobody(case: Case, sites: Sites) -> None:
    assert case.off is not None
    options = {**case.options, **case.off} if case.off else {}
    browser = sites.open(**options)
    answer = browser.get(everything, **case.request())
    assert answer.body == PAGE
    assert len(answer.cookies) == 1
    assert browser.tracker.stats().excluded == {}
    (hit,) = browser.convert.hits()
    assert (hit.new_exposures, hit.new_goals, hit.transaction is not None) == (1, 1, True)


@pytest.mark.parametrize(
    "request_",
    [
        {"headers": (("Sec-GPC", "0"), ("DNT", "1"), ("User-Agent", FIREFOX))},
        {"headers": (("Sec-Purpose", "navigate"), ("Purpose", "shopping"))},
        {"cookie": "_conv_prevent_tracking=false; _conv_v=vi:1"},
        {"query": "q=convert_disable=true&convert_preview="},
        {"query": "convert_action=force", "path": "/convert_disable=true"},
    ],
)
def test_what_merely_looks_like_a_reason_excludes_nobody(request_: dict[str, Any], sites: Sites) -> None:
    browser = sites.open(consent=says("granted"), exclude=says(False))
    assert len(browser.get(everything, **request_).cookies) == 1
    assert browser.tracker.stats().excluded == {}
    assert len(browser.convert.hits()) == 1


def test_of_several_reasons_one_is_counted(sites: Sites) -> None:
    browser = sites.open(consent=says("denied"), honour_dnt=True)
    browser.get(
        everything, headers=(("Sec-GPC", "1"), ("DNT", "1"), ("X-Moz", "prefetch"), ("User-Agent", GOOGLEBOT))
    )
    stays_out(browser, "gpc")


def test_site_callables_see_the_whole_request(sites: Sites) -> None:
    seen: list[object] = []

    def look(request: RequestFacts) -> bool:
        seen.append((request.method, request.path, request.query))
        seen.append((request.header("X-Shop"), request.cookie("choice"), request.cookie("none")))
        return True

    browser = sites.open(consent=look)
    browser.get(
        everything,
        method="POST",
        path="/käse",
        query="a=%20",
        headers=(("X-Shop", "1"),),
        cookie="choice=all; choice=none",
    )
    assert seen == [("POST", "/käse", b"a=%20"), ("1", "all", None)]
