"""The Starlette application: tracking endpoint, JSON under ``/api``, the page.

Whatever is asked wrongly gets a JSON error that names field, value and rule.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from convert_middleware.collector.collector import Collector
from convert_middleware.collector.events import Position, stream, whole
from convert_middleware.collector.faults import Fault
from convert_middleware.collector.sentence import Names
from convert_middleware.collector.store import Outcome, Store
from convert_middleware.collector.tracking import Tracking
from convert_middleware.errors import ArgumentError, shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from starlette.requests import Request

MOST_LISTED: Final = 1000
_LISTED: Final = 100  # unless asked otherwise
_MOST_BODY: Final = 64 * 1024  # bytes of a JSON body
_SCRIPTS: Final = ("page", "dom", "stream", "report", "chart", "faults")
_PAGE: Final = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript") for name in _SCRIPTS},
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_PAGE_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def create_collector(
    database: str = ":memory:", names: Names | Mapping[str, Mapping[str, str]] | None = None
) -> Starlette:
    """Return the collector as an ASGI application; ``app.state.collector`` is its :class:`Collector`.

    Args:
        database: SQLite file to keep requests in, created when missing, or ``":memory:"``.
        names: Names for ids, as ``{"experiments": {"11": "Landing"}, "variations": {…}, "goals": {…}}``.

    Raises:
        SettingsError: The file is not usable or the names have another shape.
    """
    collector = Collector(Store(database), names if isinstance(names, Names) else Names(names))
    api = _Api(collector)
    tracking = Tracking(collector)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        collector.closing = False
        try:
            yield
        finally:
            collector.closing = True
            collector.flush()

    app = Starlette(
        routes=[
            Route("/track/", tracking),
            Route("/track/{project}/", tracking),
            Route("/api/hits", api.hits, methods=["GET", "DELETE"]),
            Route("/api/malformed", api.malformed, methods=["GET"]),
            Route("/api/bots", api.bots, methods=["GET"]),
            Route("/api/summary", api.summary, methods=["GET"]),
            Route("/api/faults", api.faults, methods=["GET", "PUT"]),
            Route("/api/events", api.events, methods=["GET"]),
            Route("/health", api.health, methods=["GET"]),
            *[Route(path, _file(*source), methods=["GET"]) for path, source in _PAGE.items()],
        ],
        exception_handlers={HTTPException: _http_error, ArgumentError: _wrong, sqlite3.Error: _no_database},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.collector = collector
    return app


class _Api:
    """The answers under ``/api``."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def hits(self, request: Request) -> Response:
        if request.method == "DELETE":
            _parameters(request)
            self._collector.clear()
            return JSONResponse({"cleared": True, "epoch": self._collector.epoch})
        return self._listed(request, "hit", "hits")

    async def malformed(self, request: Request) -> Response:
        return self._listed(request, "malformed", "malformed")

    async def bots(self, request: Request) -> Response:
        return self._listed(request, "bot", "bots")

    def _listed(self, request: Request, outcome: Outcome, name: str) -> Response:
        given = _parameters(request, "after", "limit")
        after = whole("after", given["after"], 0, 2**63 - 1) if "after" in given else None
        limit = whole("limit", given["limit"], 1, MOST_LISTED) if "limit" in given else _LISTED
        collector = self._collector
        records = collector.page((outcome,), after, limit)
        listed = [collector.as_json(record) for record in records]
        return JSONResponse({name: listed, "last_id": collector.last_id, "epoch": collector.epoch})

    async def summary(self, request: Request) -> Response:
        _parameters(request)
        return JSONResponse(self._collector.summary())

    async def faults(self, request: Request) -> Response:
        _parameters(request)
        if request.method == "PUT":
            self._collector.faults.set(Fault.from_json(await _json(request)))
        return JSONResponse(self._collector.faults.as_json())

    async def events(self, request: Request) -> Response:
        given = _parameters(request, "recent")
        position = Position.read(request.headers.get("last-event-id"), given.get("recent"))
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        events = stream(self._collector, position)
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def health(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok", "requests": self._collector.last_id})


def _file(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    content = files("convert_middleware.collector").joinpath("static", name).read_bytes()

    async def serve(_request: Request) -> Response:
        return Response(content, media_type=media_type, headers=_PAGE_HEADERS)

    return serve


def _parameters(request: Request, *known: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise ArgumentError(name, value, f"is no parameter here: {', '.join(known) or 'none'} expected")
        if name in given:
            raise ArgumentError(name, value, "is given twice")
        given[name] = value
    return given


async def _json(request: Request) -> Any:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BODY:
            raise ArgumentError("body", f"{len(body)} bytes", f"is too long: at most {_MOST_BODY} bytes")
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        text = bytes(body[:200]).decode("utf-8", "backslashreplace")
        raise ArgumentError("body", text, f"is no JSON text ({error})") from error


def _error(status: int, parameter: str, text: str, reason: str, message: str) -> JSONResponse:
    error = {"parameter": parameter, "text": text, "reason": reason, "message": message}
    # What was asked may hold a lone surrogate, which no answer can.
    told = {name: said.encode(errors="backslashreplace").decode() for name, said in error.items()}
    return JSONResponse({"error": told}, status)


def _wrong(_request: Request, error: Exception) -> Response:
    if not isinstance(error, ArgumentError):
        raise error
    return _error(400, error.argument, shown(error.value), error.reason, str(error))


def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    path = request.url.path
    if error.status_code == 405:
        reason = f"is not allowed here: {(error.headers or {}).get('Allow', 'GET')} expected"
        answer = _error(405, "method", request.method, reason, f"{request.method} {path} {reason}.")
    else:
        reason = (
            "is no address of the collector: /track/ takes tracking requests, / is the page, /api the data"
        )
        answer = _error(error.status_code, "path", path, reason, f"{shown(path)} {reason}.")
    answer.headers.update(error.headers or {})
    return answer


def _no_database(_request: Request, error: Exception) -> Response:
    reason = f"cannot be read now: {error}"
    return _error(503, "database", "", reason, f"The collector's database {reason}.")
