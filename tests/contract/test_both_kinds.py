"""A door within a door of the other kind: one visitor, one account, whatever stands between them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest
from a2wsgi import ASGIMiddleware, WSGIMiddleware
from asgiref.sync import ThreadSensitiveContext
from asgiref.wsgi import WsgiToAsgi

from convert_middleware import ConvertMiddleware, ConvertWSGIMiddleware, Recorder, current
from convert_middleware.model import Exposure
from tests.asgi.conftest import Convert, warnings_of
from tests.asgi.drive import ask, respond
from tests.wsgi import drive as wsgi_drive

if TYPE_CHECKING:
    from convert_middleware import Tracker
    from tests.servers import TrackingServer

TWICE: Final = "ConvertMiddleware is installed twice; the inner one does nothing."
Record = Callable[[Recorder], object]


@pytest.fixture
def convert(tracking_server: TrackingServer, caplog: pytest.LogCaptureFixture) -> Iterator[Convert]:
    """Convert; afterwards every hit is accounted for."""
    caplog.set_level("DEBUG")
    convert = Convert(tracking_server)
    yield convert
    convert.check_accounts()


def asgi_page(record: Record, late: Record) -> Any:
    """Return an ASGI application that records before its response and while that is on its way."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["state"]["convert"] is current()
        record(current())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        late(current())
        await send({"type": "http.response.body", "body": b"ended"})

    return app


def wsgi_page(record: Record, late: Record) -> Any:
    """Return a WSGI application that does the same."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        assert environ["convert"] is current()
        record(current())
        start_response("200 OK", [])
        return pieces()

    def pieces() -> Iterator[bytes]:
        yield b"begun"
        late(current())
        yield b"ended"

    return app


@contextmanager
def by_a2wsgi(app: Any) -> Iterator[Any]:
    wrapped = WSGIMiddleware(app)
    yield wrapped
    wrapped.executor.shutdown()


@contextmanager
def by_asgiref(app: Any) -> Iterator[Any]:
    wrapper: Any = WsgiToAsgi

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        async with ThreadSensitiveContext():  # so that its thread ends with the request
            await wrapper(app)(scope, receive, send)

    yield wrapped


@contextmanager
def by_a2wsgi_the_other_way(app: Any) -> Iterator[Any]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield ASGIMiddleware(app, loop=loop)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@dataclass(frozen=True)
class Answer:
    """What a browser gets."""

    cookies: list[str]
    body: bytes


class Site:
    """An application with a door in a layer with a door of the other kind.

    Args:
        wrap: Makes one kind of application of the other.
        outside: The kind of the outer door.
    """

    def __init__(self, wrap: Any, outside: str, stack: ExitStack) -> None:
        self._wrap = wrap
        self._outside = outside
        self._stack = stack

    def open(
        self,
        outer: Tracker,
        inner: Tracker,
        record: Record,
        *,
        before: Record = lambda recorder: None,
        late: Record = lambda recorder: None,
    ) -> Callable[[str], Answer]:
        """Return what serves a request with this cookie.

        Args:
            outer: The outer door's.
            inner: The inner door's.
            record: Done by the page, behind both doors.
            before: Done between the doors.
            late: Done by the page when it has begun.
        """
        if self._outside == "asgi":
            app = self._within(ConvertWSGIMiddleware(wsgi_page(record, late), tracker=inner))

            async def asgi_layer(scope: Any, receive: Any, send: Any) -> None:
                before(scope["state"]["convert"])
                await app(scope, receive, send)

            asgi = ConvertMiddleware(asgi_layer, tracker=outer)
            return lambda cookie: self._asgi(asgi, cookie)

        app = self._within(ConvertMiddleware(asgi_page(record, late), tracker=inner))

        def wsgi_layer(environ: Any, start_response: Any) -> Any:
            before(environ["convert"])
            return app(environ, start_response)

        wsgi = ConvertWSGIMiddleware(wsgi_layer, tracker=outer)
        return lambda cookie: self._wsgi(wsgi, cookie)

    def _within(self, app: Any) -> Any:
        return self._stack.enter_context(self._wrap(app))

    def _asgi(self, site: Any, cookie: str) -> Answer:
        answer = ask(site, path="/old/caf\xe9", cookie=cookie or None)
        return Answer(answer.headers("set-cookie"), answer.body)

    def _wsgi(self, site: Any, cookie: str) -> Answer:
        answer = wsgi_drive.serve(site, cookie, PATH_INFO="/caf\xc3\xa9", SCRIPT_NAME="/new", REMOTE_PORT="5")
        return Answer(answer.header("set-cookie"), b"".join(answer.written))


@pytest.fixture(
    params=[(by_a2wsgi, "asgi"), (by_asgiref, "asgi"), (by_a2wsgi_the_other_way, "wsgi")],
    ids=["a2wsgi", "asgiref", "a2wsgi the other way"],
)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A site of both kinds, put together in each way in turn."""
    with ExitStack() as stack:
        wrap, outside = request.param
        yield Site(wrap, outside, stack)


def buy(convert: Recorder) -> object:
    return convert.experiment(11, 12), convert.goal(331)


def cookie_of(answer: Answer) -> str:
    (line,) = answer.cookies
    return line.partition(";")[0]


@pytest.mark.parametrize("shared", [True, False], ids=["one tracker", "a tracker each"])
def test_one_project_has_one_visitor_one_hit_one_cookie_and_one_warning(
    convert: Convert, site: Site, caplog: pytest.LogCaptureFixture, shared: bool
) -> None:
    outer = convert.tracker()
    inner = outer if shared else convert.tracker()
    visit = site.open(outer, inner, buy, before=lambda recorder: recorder.experiment(21, 22))

    first = visit("")
    assert first.body == b"begunended"
    (hit,) = convert.hits()
    assert set(hit.exposures) == {Exposure(11, 12, (331,)), Exposure(21, 22, (331,))}
    assert (hit.new_exposures, hit.goals, hit.new_goals) == (2, (331,), 1)

    assert visit(cookie_of(first)).cookies == []
    assert convert.hits() == []
    assert outer.stats().accepted == 1
    assert warnings_of(caplog) == [TWICE]


def test_a_goal_while_the_page_is_on_its_way_is_the_same_visitors(convert: Convert, site: Site) -> None:
    tracker = convert.tracker()
    visit = site.open(tracker, tracker, buy, late=lambda recorder: recorder.goal(332))

    cookie = cookie_of(visit(""))
    (hit,) = convert.hits()
    assert (hit.goals, hit.new_goals) == ((331, 332), 2)

    visit(cookie)
    assert convert.hits() == []


def test_two_projects_have_a_cookie_and_a_hit_each(
    convert: Convert, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    visit = site.open(
        convert.tracker(), convert.tracker(project_id="70"), buy, before=lambda recorder: recorder.goal(34)
    )

    cookies = visit("").cookies
    assert [line.partition("=")[0] for line in cookies] == ["convert_visitor_70", "convert_visitor"]
    assert sorted((hit.project_id, hit.goals) for hit in convert.hits()) == [(1, (34,)), (70, (331,))]

    assert visit("; ".join(line.partition(";")[0] for line in cookies)).cookies == []
    assert convert.hits() == []
    assert warnings_of(caplog) == ["Two projects share a cookie name; the inner one uses convert_visitor_70."]


class Inherited:
    """Requests to a WSGI application behind a door, in the context of one at an ASGI door beside it."""

    def __init__(self, convert: Convert) -> None:
        self._tracker = convert.tracker()
        page = wsgi_page(buy, lambda recorder: None)
        self._beside = ConvertWSGIMiddleware(page, tracker=self._tracker)

    def ask(self, **request: Any) -> wsgi_drive.Answer:
        """Ask the WSGI application for a page."""
        return wsgi_drive.serve(self._beside, PATH_INFO="/page", **request)

    def behind(self, app: Any) -> None:
        """Serve a request with this ASGI application."""
        ask(ConvertMiddleware(app, tracker=self._tracker), path="/page", sent={"user-agent": "one"})


SAME: Final = {"HTTP_USER_AGENT": "one"}


@pytest.mark.parametrize(
    "other",
    [
        {"HTTP_USER_AGENT": "another"},
        {**SAME, "HTTP_COOKIE": "somebody=else"},
        {**SAME, "QUERY_STRING": "page=2"},
        {**SAME, "SCRIPT_NAME": "/another"},
    ],
    ids=["agent", "cookie", "query", "path"],
)
def test_another_request_that_is_made_meanwhile_has_a_visitor_of_its_own(
    convert: Convert, other: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """As where a server starts requests in the context of one that it is still busy with."""
    inherited = Inherited(convert)
    answers: list[wsgi_drive.Answer] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        answers.append(inherited.ask(**other))
        await respond()(send)

    inherited.behind(app)
    assert len(answers[0].header("set-cookie")) == 1
    assert len(convert.hits()) == 1
    assert warnings_of(caplog) == []


def test_the_same_request_made_again_once_the_page_has_begun_has_a_visitor_of_its_own(
    convert: Convert, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a server starts the next request of a connection in the context of the one before."""
    inherited = Inherited(convert)
    answers: list[wsgi_drive.Answer] = []
    contexts: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        contexts.append(copy_context())
        await respond()(send)
        answers.append(inherited.ask(**SAME))

    inherited.behind(app)
    answers.append(contexts[0].run(inherited.ask, **SAME))
    assert [len(answer.header("set-cookie")) for answer in answers] == [1, 1]
    assert len(convert.hits()) == 2
    assert warnings_of(caplog) == []


def test_a_request_that_broke_off_before_its_page_began_is_over_as_well(convert: Convert) -> None:
    inherited = Inherited(convert)
    contexts: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        contexts.append(copy_context())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        inherited.behind(app)
    assert len(contexts[0].run(inherited.ask, **SAME).header("set-cookie")) == 1
    assert len(convert.hits()) == 1
