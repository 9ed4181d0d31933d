"""One small site behind either door, and what a browser sees of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from convert_middleware import ConvertMiddleware, ConvertWSGIMiddleware, Recorder, Tracker
from tests.asgi.drive import ask, respond
from tests.wsgi.drive import serve

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from convert_middleware.asgi import Receive, Scope, Send
    from convert_middleware.wsgi import Environ, StartResponse

CONSENT: Final = "cookie_choice"  # the cookie in which the sites of these tests keep what was chosen


@dataclass(frozen=True)
class Answer:
    """What a browser gets, headers in order and their names in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: str

    @property
    def cookies(self) -> list[str]:
        return [value for key, value in self.headers if key == "set-cookie"]

    @property
    def cookie(self) -> str:
        """The visitor cookie as the browser sends it from now on."""
        (line,) = self.cookies
        return line.partition(";")[0]


@dataclass(frozen=True)
class Request:
    """What a browser asks for."""

    cookie: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    query: str = ""
    path: str = "/"
    method: str = "GET"
    scheme: str = "http"


class Record(Protocol):
    """What a page does with its recorder; its body is what comes of it."""

    def __call__(self, convert: Recorder, /) -> object: ...


class Door(Protocol):
    """Serves a request behind a door of this kind."""

    def __call__(self, tracker: Tracker, record: Record, request: Request, /) -> Answer: ...


def asgi(tracker: Tracker, record: Record, request: Request) -> Answer:
    """Serve a request behind the ASGI door."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(body=str(record(scope["state"]["convert"])).encode())(send)

    answer = ask(
        ConvertMiddleware(app, tracker=tracker),
        cookie=request.cookie or None,
        sent=dict(request.headers),
        query_string=request.query.encode(),
        path=request.path,
        method=request.method,
        scheme=request.scheme,
    )
    headers = [(key.decode().lower(), value.decode("latin-1")) for key, value in answer.start["headers"]]
    return Answer(answer.status, headers, answer.body.decode())


def wsgi(tracker: Tracker, record: Record, request: Request) -> Answer:
    """Serve a request behind the WSGI door."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        body = str(record(environ["convert"])).encode()
        start_response("200 OK", [("content-type", "text/plain")])
        return [body]

    sent: Mapping[str, Any] = {
        f"HTTP_{key.upper().replace('-', '_')}": value for key, value in request.headers
    }
    answer = serve(
        ConvertWSGIMiddleware(app, tracker=tracker),
        request.cookie,
        QUERY_STRING=request.query,
        PATH_INFO=request.path.encode().decode("latin-1"),  # WSGI has bytes as text
        REQUEST_METHOD=request.method,
        **{"wsgi.url_scheme": request.scheme, **sent},
    )
    headers = [(key.lower(), value) for key, value in answer.headers]
    return Answer(int(answer.status[:3]), headers, b"".join(answer.written).decode())


DOORS: Final[dict[str, Callable[[Tracker, Record, Request], Answer]]] = {"asgi": asgi, "wsgi": wsgi}
