"""Two worlds that differ in their door only: what happens in one has to happen in the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final

from convert_middleware import ConvertMiddleware, ConvertWSGIMiddleware, Recorder, Tracker
from convert_middleware.cookie import MAX_AGE, CookieCodec, RejectedError
from convert_middleware.hooks import Event, HitDelivered, VisitorEvent, visitor_hash
from tests.asgi import drive as asgi_drive
from tests.asgi.conftest import SECRET, Convert
from tests.wsgi import drive as wsgi_drive

if TYPE_CHECKING:
    from convert_middleware.model import Hit
    from tests.servers import TrackingServer

Headers = list[tuple[str, str]]
Record = Callable[[Recorder], object]
CODEC: Final = CookieCodec([SECRET], MAX_AGE)
PLAIN: Final = (("content-type", "text/plain"),)
_TOKEN: Final = re.compile(r"1\.[\w=-]{16,}\.[\w=-]{40,}")


def nothing(recorder: Recorder) -> None:
    """Record nothing."""


@dataclass(frozen=True)
class Page:
    """What a handler does: record, begin a response, then send pieces and do more in between.

    Attributes:
        record: Done before the response begins.
        body: Pieces to send, and what is done between them.
        outer: Done between two doors, on the outer one's recorder.
    """

    record: Record = nothing
    status: int = 200
    headers: tuple[tuple[str, str], ...] = PLAIN
    body: tuple[bytes | Record, ...] = (b"page",)
    outer: Record = nothing


@dataclass
class Answer:
    """What came of a request.

    Attributes:
        got: What the records returned.
        raised: The name of the exception that reached the server.
    """

    status: int = 0
    headers: Headers = field(default_factory=list)
    body: list[bytes] = field(default_factory=list)
    got: list[object] = field(default_factory=list)
    raised: str = ""

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    @property
    def cookies(self) -> list[str]:
        return self.header("set-cookie")


@dataclass(frozen=True)
class Request:
    """What a browser asks for; it goes away after so many pieces of the body."""

    cookie: str = ""
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    stays_for: int | None = None
    scheme: str = "http"


Serve = Callable[[list[Tracker], Page, Request], Answer]


def asgi(trackers: list[Tracker], page: Page, request: Request) -> Answer:
    """Serve a request through ASGI doors, the outermost first; through none if there are none."""
    answer = Answer()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        recorder = scope["state"].get("convert")  # none without a door
        answer.got.append(page.record(recorder))
        headers = [(key.encode(), value.encode("latin-1")) for key, value in page.headers]
        await send({"type": "http.response.start", "status": page.status, "headers": headers})
        for piece in page.body:
            if isinstance(piece, bytes):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            else:
                answer.got.append(piece(recorder))
        await send({"type": "http.response.body", "body": b""})

    async def outermost(scope: Any, receive: Any, send: Any) -> None:
        async def to_server(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = [
                    (key.decode().lower(), value.decode("latin-1")) for key, value in message["headers"]
                ]
            elif len(answer.body) == request.stays_for:
                raise OSError("the browser is gone")
            elif message["body"]:
                answer.body.append(message["body"])

        try:
            await site(scope, receive, to_server)
        except OSError:  # a server makes no noise about it
            return
        except Exception as error:  # noqa: BLE001 - whatever the page raised is part of the story
            answer.raised = type(error).__name__

    def between(inner: Any) -> Any:
        async def layer(scope: Any, receive: Any, send: Any) -> None:
            page.outer(scope["state"]["convert"])
            await inner(scope, receive, send)

        return layer

    site: Any = app
    for number, tracker in enumerate(reversed(trackers)):
        site = ConvertMiddleware(between(site) if number else site, tracker=tracker)
    asgi_drive.ask(
        outermost,
        method=request.method,
        cookie=request.cookie or None,
        sent=dict(request.headers),
        scheme=request.scheme,
    )
    return answer


def wsgi(trackers: list[Tracker], page: Page, request: Request) -> Answer:
    """Serve a request through WSGI doors, the outermost first; through none if there are none."""
    answer = Answer()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        recorder = environ.get("convert")
        answer.got.append(page.record(recorder))
        start_response(f"{page.status} Status", list(page.headers))
        return pieces(recorder)

    def pieces(recorder: Recorder) -> Iterator[bytes]:
        for piece in page.body:
            if isinstance(piece, bytes):
                yield piece
            else:
                answer.got.append(piece(recorder))

    def between(inner: Any) -> Any:
        def layer(environ: Any, start_response: Any) -> Any:
            page.outer(environ["convert"])
            return inner(environ, start_response)

        return layer

    site: Any = app
    for number, tracker in enumerate(reversed(trackers)):
        site = ConvertWSGIMiddleware(between(site) if number else site, tracker=tracker)
    sent = {f"HTTP_{key.upper().replace('-', '_')}": value for key, value in request.headers}
    more = {"REQUEST_METHOD": request.method, "wsgi.url_scheme": request.scheme, **sent}
    began: wsgi_drive.Answer | None = None
    try:
        began = wsgi_drive.call(site, request.cookie, **more)
        body = iter(began.body)
        while len(answer.body) != request.stays_for and (chunk := next(body, None)) is not None:
            answer.body.append(chunk)
    except Exception as error:  # noqa: BLE001 - whatever the page raised is part of the story
        answer.raised = type(error).__name__
    if began is not None:
        began.body.close()  # type: ignore[attr-defined]  # every body here has it
        answer.status = int(began.status[:3])
        answer.headers = [(key.lower(), value) for key, value in began.headers]
    return answer


class World:
    """One kind of door, one browser in front and Convert behind."""

    def __init__(self, serve: Serve, server: TrackingServer, doors: tuple[dict[str, Any], ...]) -> None:
        self.convert = Convert(server)
        self._serve = serve
        self._trackers = [self.convert.tracker(**options) for options in doors or ({},)]
        self.jar: list[str] = []  # every cookie that the browser got, the newest last
        self._known: list[str] = []
        self._told = 0
        self._token = ""

    def ask(self, page: Page, cookie: str | Callable[[list[str]], str] | None, request: Request) -> Answer:
        """Ask for a page; the browser sends its newest cookie unless told otherwise."""
        if cookie is None:
            cookie = self.jar[-1] if self.jar else ""
        sent = cookie if isinstance(cookie, str) else cookie(self.jar)
        answer = self._serve(self._trackers, page, replace(request, cookie=sent))
        self.jar += [line.partition(";")[0] for line in answer.cookies]
        for got in answer.got:
            if isinstance(got, str) and _TOKEN.fullmatch(got):
                self._token = got
        return replace(answer, got=[self.plain(got) for got in answer.got])

    def resume(self, record: Record) -> object:
        """Record for the visitor of the last token."""
        with self._trackers[0].resume(self._token) as recorder:
            return self.plain(record(recorder))

    def shown(self, answer: Answer) -> Answer:
        """Return the answer with visitors named by a number and cookies read."""
        headers: list[tuple[str, str]] = []
        for key, value in answer.headers:
            pair, _, attributes = value.partition(";")
            name, _, text = pair.partition("=")
            headers.append((key, f"{name}={self._read(text)};{attributes}" if key == "set-cookie" else value))
        return replace(answer, headers=headers)

    def plain(self, value: object) -> object:
        """Return what a record returned, in words that are the same in every world."""
        if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{32}", value):
            return self._number(visitor_hash(value), learn=True)
        return "a token" if isinstance(value, str) and _TOKEN.fullmatch(value) else value

    def happened(self) -> tuple[list[Hit], list[str]]:
        """Return the hits and the events since the last call."""
        hits = sorted(self.convert.hits(), key=lambda hit: hit.project_id)  # each project has its own thread
        events, self._told = self.convert.events[self._told :], len(self.convert.events)
        return hits, sorted(map(self._say, [each for each in events if not isinstance(each, HitDelivered)]))

    def _read(self, text: str) -> object:
        try:
            visitor, _ = CODEC.read(text.encode(), self.convert.clock.now)
        except RejectedError:
            return text
        number = self._number(visitor_hash(visitor.visitor_id), learn=True)
        return visitor._replace(visitor_id=number)

    def _say(self, event: Event) -> str:
        told = {one.name: getattr(event, one.name) for one in fields(event)}
        if isinstance(event, VisitorEvent):
            told["visitor"] = self._number(event.visitor)
        return f"{type(event).__name__} {told}"

    def _number(self, visitor: str, *, learn: bool = False) -> str:
        if learn and visitor not in self._known:
            self._known.append(visitor)
        return f"visitor {self._known.index(visitor)}" if visitor in self._known else "somebody"


class Both:
    """Both worlds at once; each step comes out the same in them, or the test fails."""

    def __init__(self, servers: tuple[TrackingServer, TrackingServer]) -> None:
        self._servers = servers
        self.worlds: list[World] = []
        self.events: list[str] = []  # before the last call of :meth:`hits`

    def open(self, *doors: dict[str, Any]) -> None:
        """Open a site in each world with the options of these doors, the outermost first."""
        self.worlds = [
            World(serve, server, doors) for serve, server in zip((asgi, wsgi), self._servers, strict=True)
        ]

    def ask(
        self,
        page: Page,
        *,
        cookie: str | Callable[[list[str]], str] | None = None,
        **request: Any,
    ) -> Answer:
        """Ask for a page in both worlds and return what came of it; without a site one is opened."""
        if not self.worlds:
            self.open()
        answers = [world.ask(page, cookie, Request(**request)) for world in self.worlds]
        one, other = (world.shown(answer) for world, answer in zip(self.worlds, answers, strict=True))
        assert one == other
        return one

    def resume(self, record: Record) -> object:
        """Record in both worlds for the visitor of the last token."""
        one, other = (world.resume(record) for world in self.worlds)
        assert one == other
        return one

    def hits(self) -> list[Hit]:
        """Return the hits since the last call; the events were the same as well."""
        one, other = (world.happened() for world in self.worlds)
        assert one == other
        self.events = one[1]
        return one[0]

    def told(self, name: str) -> list[str]:
        """Return the events of that name that came before the last call of :meth:`hits`."""
        return [event for event in self.events if event.startswith(f"{name} ")]

    def sleep(self, seconds: float) -> None:
        """Let time pass in both worlds."""
        for world in self.worlds:
            world.convert.clock.sleep(seconds)

    def check_accounts(self) -> None:
        """Hold both worlds to the conservation law."""
        for world in self.worlds:
            world.convert.check_accounts()
