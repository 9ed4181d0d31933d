"""A server as PEP 3333 wants it, in a few lines: one request, every step visible."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults

from convert_middleware import ConvertWSGIMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterable

    from convert_middleware.wsgi import App
    from tests.asgi.conftest import Convert


@dataclass
class Answer:
    """What came back."""

    status: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    written: list[bytes] = field(default_factory=list)
    starts: int = 0
    body: Iterable[bytes] = ()

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]

    def cookie(self) -> str:
        """The visitor cookie that the browser has from now on."""
        (line,) = self.header("set-cookie")
        return line.partition(";")[0]


def door(convert: Convert, app: App, **options: Any) -> ConvertWSGIMiddleware:
    return ConvertWSGIMiddleware(app, tracker=convert.tracker(**options))


def environ(cookie: str = "", **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "QUERY_STRING": "", **more}
    if cookie:
        made["HTTP_COOKIE"] = cookie
    setup_testing_defaults(made)
    return made


def call(app: Any, cookie: str = "", **more: Any) -> Answer:
    """Call an application and return what it returned, not iterated yet."""
    answer = Answer()

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
        if exc_info is not None and answer.written:
            raise exc_info[1]
        answer.status, answer.headers = status, headers
        answer.starts += 1
        return answer.written.append

    answer.body = app(environ(cookie, **more), start_response)
    return answer


def serve(app: Any, cookie: str = "", **more: Any) -> Answer:
    """Serve a request to its end."""
    answer = call(app, cookie, **more)
    try:
        answer.written += [chunk for chunk in answer.body if chunk]
    finally:
        close = getattr(answer.body, "close", None)
        if close is not None:
            close()
    return answer
