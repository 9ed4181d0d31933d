"""Driving an ASGI or WSGI application without a server and without a loop, and timing it.

Nothing here waits for anything, so a coroutine ends with its first step. What is measured is the CPU time of
this thread alone; preparing requests and collecting garbage stand outside.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from functools import partial
from time import thread_time_ns
from typing import Any, Final

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Any]  # a coroutine function
Environ = dict[str, Any]
WSGIApp = Callable[[Environ, Any], Iterable[bytes]]
Serve = Callable[[Sequence[Any]], None]  # serves so many prepared requests
Headers = Sequence[tuple[bytes, bytes]]

_HEADERS: Final = (
    (b"host", b"shop.example"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"accept-language", b"en-GB,en;q=0.5"),
    (b"accept-encoding", b"gzip, deflate, br"),
)
_ANSWER_HEADERS: Final = ((b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"5"))


def request(cookie: bytes) -> Scope:
    """Return the scope of a page request as a server makes it, with this Cookie header."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50_000),
        "scheme": "http",
        "root_path": "",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [*_HEADERS, (b"cookie", cookie)] if cookie else list(_HEADERS),
        "state": {},
    }


def environ(cookie: bytes) -> Environ:
    """Return the same request as a WSGI server makes it."""
    made: Environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in (*_HEADERS, (b"cookie", cookie)) if cookie else _HEADERS:
        made[f"HTTP_{name.decode().upper().replace('-', '_')}"] = value.decode("latin-1")
    return made


async def answer(send: Send) -> None:
    """Send a small page."""
    await send({"type": "http.response.start", "status": 200, "headers": list(_ANSWER_HEADERS)})
    await send({"type": "http.response.body", "body": b"hello"})


async def bare(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer and do nothing else."""
    await answer(send)


def answer_wsgi(start_response: Any) -> list[bytes]:
    """Send the same page."""
    headers = [("content-type", "text/plain; charset=utf-8"), ("content-length", "5")]
    start_response("200 OK", headers)
    return [b"hello"]


def bare_wsgi(_environ: Environ, start_response: Any) -> list[bytes]:
    """Answer and do nothing else."""
    return answer_wsgi(start_response)


def headers_of_answer(app: App, scope: Scope) -> list[tuple[bytes, bytes]]:
    """Return the headers with which ``app`` answers."""
    found: list[tuple[bytes, bytes]] = []

    async def keep(message: Message) -> None:
        found.extend(message.get("headers", ()))

    _run(app, [scope], keep)
    return found


def asgi(app: App) -> Serve:
    """Return what serves requests with an ASGI application."""
    return partial(_run, app, send=_drop)


def wsgi(app: WSGIApp) -> Serve:
    """Return what serves requests with a WSGI application, as a server does it."""

    def serve(environs: Sequence[Environ]) -> None:
        for each in environs:
            body = app(each, _start_response)
            for _ in body:
                pass
            close = getattr(body, "close", None)
            if close is not None:
                close()

    return serve


def cpu_times(
    apps: Mapping[str, Serve],
    requests: Mapping[str, Callable[[], Sequence[Any]]],
    rounds: int,
    settle: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, list[float]]:
    """Return microseconds of CPU time for a request of each application, one figure a round.

    Args:
        apps: What serves each application's requests, by name; each round times all of them, beginning with
            another one each time.
        requests: For each the requests of a round, made anew outside of what is timed.
        rounds: How many rounds.
        settle: For an application that leaves work for later, what does this work; timed with its requests.
    """
    settle = settle or {}
    times: dict[str, list[float]] = {name: [] for name in apps}
    names = list(apps)
    gc.collect()
    gc.freeze()
    try:
        for number in range(rounds):
            first = number % len(names)
            for name in (*names[first:], *names[:first]):
                scopes = requests[name]()
                gc.collect()
                gc.disable()
                start = thread_time_ns()
                apps[name](scopes)
                settle.get(name, _nothing)()
                took = thread_time_ns() - start
                gc.enable()
                times[name].append(took / len(scopes) / 1000)
    finally:
        gc.enable()
        gc.unfreeze()
    return times


def added(times: Mapping[str, Sequence[float]], name: str, bare: str = "bare") -> list[float]:
    """Return what ``name`` adds to ``bare``, round by round."""
    return [mine - alone for mine, alone in zip(times[name], times[bare], strict=True)]


def _start_response(_status: str, _headers: list[tuple[str, str]], _exc_info: object = None) -> object:
    return _nothing


def _run(app: App, scopes: Sequence[Scope], send: Send) -> None:
    for scope in scopes:
        try:
            app(scope, _receive, send).send(None)
        except StopIteration:
            continue
        raise RuntimeError("the application waits for something, so it cannot be measured like this")


def _nothing() -> None:
    """Leave nothing for later."""


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _drop(_message: Message) -> None:
    pass
