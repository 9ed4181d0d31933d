"""Doors within doors, and our door among other people's middleware in every order."""

from __future__ import annotations

import gzip
from itertools import permutations
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from convert_middleware import ConvertMiddleware, CookieOptions, Recorder, current
from convert_middleware.model import Exposure

from .conftest import Convert, warnings_of
from .drive import Answer, App, Receive, Scope, Send, ask, http_scope, one_request, page, respond

if TYPE_CHECKING:
    from starlette.middleware.base import RequestResponseEndpoint
    from starlette.requests import Request

PAGE = "welcome to the shop " * 100  # long enough to be compressed


async def buy(request: Request) -> Response:
    request.session["basket"] = "full"
    convert = request.state.convert
    assert convert is current()
    assert convert.experiment(11, 12) == 12
    convert.goal(331)
    convert.revenue(35, transaction_id="ab12345", value="1599.99", products=10)
    return PlainTextResponse(PAGE)


async def look_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    response = await call_next(request)
    response.headers["x-looked"] = "on"
    return response


OURS = "convert"
STACK: dict[str, Middleware] = {
    "base": Middleware(BaseHTTPMiddleware, dispatch=look_on),
    "gzip": Middleware(GZipMiddleware),
    "cors": Middleware(CORSMiddleware, allow_origins=["https://a.example"], allow_credentials=True),
    "session": Middleware(SessionMiddleware, secret_key="the session's own"),
}
BROWSER = {"accept-encoding": "gzip", "origin": "https://a.example"}


@pytest.mark.parametrize("order", list(permutations([OURS, *STACK])), ids="-".join)
def test_in_every_order_of_middleware_there_is_one_hit_and_one_cookie(
    convert: Convert, order: tuple[str, ...]
) -> None:
    stack = {**STACK, OURS: Middleware(ConvertMiddleware, tracker=convert.tracker())}
    site = Starlette(routes=[Route("/", buy)], middleware=[stack[name] for name in order])

    first = ask(site, sent=BROWSER)
    second = ask(site, sent=BROWSER, cookie="; ".join([first.cookie(), first.cookie("session")]))

    for answer in (first, second):
        assert gzip.decompress(answer.body).decode() == PAGE
        assert answer.headers("x-looked") == ["on"]
        assert answer.headers("access-control-allow-origin") == ["https://a.example"]
        varies = [piece.strip().lower() for piece in ",".join(answer.headers("vary")).split(",")]
        outside = order.index("session") < order.index(
            OURS
        )  # it adds its own without a look at what is there
        assert varies.count("cookie") == 1 + outside
        assert varies.count("accept-encoding") == 1
        assert "private" in answer.headers("cache-control")[0]
    assert len(first.cookies()) == len(first.cookies("session")) == 1
    assert second.cookies() == []
    (hit,) = convert.hits()
    assert hit.exposures == (Exposure(11, 12, (331,)),)
    assert (hit.new_exposures, hit.goals, hit.new_goals) == (1, (331,), 1)
    assert hit.transaction is not None


def mounted(inner: App, outer: App) -> App:
    """Return an application that calls ``inner`` under /sub, with a copied scope as a Mount does."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/sub"):
            await inner({**scope, "root_path": "/sub"}, receive, send)
        else:
            await outer(scope, receive, send)

    return app


def test_a_door_in_a_mounted_application_makes_one_hit_one_cookie_and_one_warning(
    convert: Convert, caplog: pytest.LogCaptureFixture
) -> None:
    async def endpoint(request: Request) -> Response:
        request.state.convert.experiment(11, 12)
        current().goal(331)
        return PlainTextResponse(PAGE)

    inner = convert.door(Starlette(routes=[Route("/buy", endpoint)]))
    site = convert.door(Starlette(routes=[Mount("/sub", app=inner)]))

    first = ask(site, path="/sub/buy")
    second = ask(site, path="/sub/buy", cookie=first.cookie())

    assert len(first.headers("set-cookie")) == 1
    assert second.headers("set-cookie") == []
    assert [hit.exposures for hit in convert.hits()] == [(Exposure(11, 12, (331,)),)]
    assert inner.tracker.stats().accepted == 0
    assert warnings_of(caplog) == ["ConvertMiddleware is installed twice; the inner one does nothing."]


def test_a_door_added_twice_to_one_application_counts_once(
    convert: Convert, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = convert.tracker()
    door: App = page(lambda recorder: recorder.goal(331))
    for _ in range(3):
        door = ConvertMiddleware(door, tracker=tracker)

    answer = ask(door)

    assert len(answer.cookies()) == 1
    assert [hit.new_goals for hit in convert.hits()] == [1]
    assert len(warnings_of(caplog)) == 1


def test_when_the_inner_project_has_returned_the_outer_ones_handlers_have_theirs_again(
    convert: Convert,
) -> None:
    async def shop(_scope: Scope, _receive: Receive, _send: Send) -> None:
        current().goal(33)
        raise KeyError

    async def sorry(request: Request, _error: Exception) -> Response:
        assert request.state.convert.goal(12)
        return PlainTextResponse("sorry", 500)

    inner = convert.door(shop, project_id="70")
    site = Starlette(routes=[Mount("/sub", app=inner)], exception_handlers={KeyError: sorry})

    answer = ask(convert.door(site), path="/sub/")

    assert [(hit.project_id, hit.goals) for hit in convert.hits()] == [(70, (33,)), (1, (12,))]
    assert len(answer.cookies()) == 1


def test_two_projects_on_purpose_make_two_hits_and_two_cookies(
    convert: Convert, caplog: pytest.LogCaptureFixture
) -> None:
    recorders: list[Recorder] = []

    async def below(scope: Scope, receive: Receive, send: Send) -> None:
        recorders.append(scope["state"]["convert"])
        assert scope["state"]["convert"] is current()
        current().goal(7)
        await respond()(send)

    inner = convert.door(below, project_id="70")

    async def between(scope: Scope, receive: Receive, send: Send) -> None:
        own = scope["state"]["convert"]
        recorders.append(own)
        current().goal(331)
        await inner(scope, receive, send)
        assert current() is own, "the outer project is current again"

    site = convert.door(between)

    first = ask(site)
    both = "; ".join([first.cookie(), first.cookie("convert_visitor_70")])
    second = ask(site, cookie=both)

    assert recorders[0] is not recorders[1]
    assert len(first.headers("set-cookie")) == 2
    assert second.headers("set-cookie") == []
    assert sorted((hit.project_id, hit.goals) for hit in convert.hits()) == [(1, (331,)), (70, (7,))]
    assert warnings_of(caplog) == ["Two projects share a cookie name; the inner one uses convert_visitor_70."]


def test_two_projects_with_cookies_of_their_own_need_no_warning(
    convert: Convert, caplog: pytest.LogCaptureFixture
) -> None:
    inner = convert.door(
        page(lambda recorder: recorder.goal(7)), project_id="70", cookie=CookieOptions(name="other")
    )
    site = convert.door(mounted(inner, page(lambda recorder: recorder.goal(331))))

    assert len(ask(site, path="/sub").cookies("other")) == 1
    assert len(ask(site, path="/").cookies()) == 1
    assert sorted((hit.project_id, hit.goals) for hit in convert.hits()) == [(1, (331,)), (70, (7,))]
    assert warnings_of(caplog) == []


def test_a_scope_that_is_used_again_after_the_request_is_served_again(convert: Convert) -> None:
    """A server may keep one scope per connection; a door that has been left does not count as passed."""
    door = convert.door(page(lambda recorder: recorder.goal(331)))
    scope = http_scope()
    answers = [Answer(), Answer()]

    async def connection() -> None:
        for answer in answers:
            await door(scope, one_request(), answer.take)

    anyio.run(connection)

    assert [len(answer.cookies()) for answer in answers] == [1, 1]
    assert [hit.new_goals for hit in convert.hits()] == [1, 1]


def test_an_outer_layer_that_calls_the_site_twice_for_one_request_counts_once(convert: Convert) -> None:
    """Like a middleware that retries: both calls pass the door with the same scope."""
    site = convert.door(page(lambda recorder: recorder.goal(331)))
    first = ask(site).cookie()

    async def retrying(scope: Scope, receive: Receive, send: Send) -> None:
        async def nowhere(message: Any) -> None:
            """Swallow the first try."""

        await site(scope, receive, nowhere)
        await site(scope, receive, send)

    answer = ask(retrying, cookie=first)

    assert answer.status == 200
    assert [hit.new_goals for hit in convert.hits()] == [1]
