"""The ASGI door: ConvertMiddleware around any ASGI application.

It knows the ASGI messages and nothing of counting. Everything of a request lives in an object of its own; the
messages of the application pass untouched but for our headers on the one that starts the response.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Unpack

from convert_middleware.cookie import set_cookie
from convert_middleware.errors import SettingsError
from convert_middleware.hooks import CacheGuarded
from convert_middleware.recorder import Page, Recorder, enter, leave
from convert_middleware.settings import Options, Settings
from convert_middleware.tracker import Tracker

if TYPE_CHECKING:
    from contextvars import Token

    from convert_middleware.visitor import Visitor

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_INSTALLED: Final = (
    "convert_middleware"  # key of the scope: (project, cookie name) of the doors passed so far
)
_STARTS: Final = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
_SECURE: Final = frozenset({"https", "wss"})
_INFORMATIONAL: Final = frozenset(range(100, 200))
_PRESENTS_NOTHING: Final = frozenset({"HEAD", "OPTIONS"})
# What ends a response, and the key that says that more of the same follows.
_ENDS: Final = {
    "http.response.body": "more_body",
    "http.response.zerocopysend": "more_body",
    "http.response.pathsend": None,
    "http.response.trailers": "more_trailers",
    "websocket.http.response.body": "more_body",
    "websocket.close": None,
}


class ConvertMiddleware:
    """Tracks what the handlers of an ASGI application record.

    Args:
        app: The application.
        tracker: A tracker to share with other doors; no further option may be given then.
        options: See :class:`~convert_middleware.settings.Settings`; what is not given is read from the
            environment.

    Raises:
        SettingsError: An option is missing or impossible.
    """

    def __init__(self, app: App, *, tracker: Tracker | None = None, **options: Unpack[Options]) -> None:
        if tracker is not None and options:
            raise SettingsError(next(iter(options)), "cannot be given together with tracker=: it has its own")
        self.app = app
        self.tracker = Tracker(Settings.from_env(**options)) if tracker is None else tracker
        self._owns_tracker = tracker is None
        self._cookie_name = self.tracker.settings.cookie.name.encode()
        self._project_id = self.tracker.project_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind = scope["type"]
        if kind == "lifespan":
            await self.app(scope, receive, self._with_lifespan(send))
            return
        if kind not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        installed: tuple[tuple[int, bytes], ...] = scope.get(_INSTALLED, ())
        name = self._cookie_name
        if installed:
            if any(project == self._project_id for project, _ in installed):
                self._warn("twice", "ConvertMiddleware is installed twice; the inner one does nothing.")
                await self.app(scope, receive, send)
                return
            if any(name == other for _, other in installed):
                name = b"%b_%d" % (name, self._project_id)
                self._warn("name", "Two projects share a cookie name; the inner one uses %s.", name.decode())
        scope[_INSTALLED] = (*installed, (self._project_id, name))
        exchange = _Exchange(self.tracker, scope, send, name)
        try:
            await self.app(scope, receive, exchange.send)
        finally:
            exchange.finish()
            scope[_INSTALLED] = installed

    def _warn(self, kind: str, message: str, *args: object) -> None:
        self.tracker.announcer.log(logging.WARNING, kind, message, *args)

    def _with_lifespan(self, send: Send) -> Send:
        """Start delivery when the application has started, drain before it is done."""

        async def forward(message: Message) -> None:
            kind = message["type"]
            if kind == "lifespan.startup.complete":
                self.tracker.start()
            elif kind in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                import anyio.to_thread  # comes with Starlette and httpx; only lifespan needs it

                wait = self.tracker.drain if self._owns_tracker else self.tracker.flush
                await anyio.to_thread.run_sync(wait)
            await send(message)

        return forward


class _Exchange:
    """One request and its response, or one WebSocket."""

    __slots__ = (
        "_headers",
        "_name",
        "_page",
        "_presents",
        "_scope",
        "_send",
        "_started",
        "_token",
        "_tracker",
        "_trailers",
    )

    def __init__(self, tracker: Tracker, scope: Scope, send: Send, name: bytes) -> None:
        self._tracker = tracker
        self._scope = scope
        self._send = send
        self._name = name
        self._started = self._trailers = False
        self._presents = scope.get("method") not in _PRESENTS_NOTHING
        # The page gets the headers and not the scope: that one leads back to the page, and so to a cycle.
        self._headers: Iterable[tuple[bytes, bytes]] = scope.get("headers") or ()
        load = partial(
            tracker.meet,
            name,
            scope.get("method", "GET"),
            scope.get("path", ""),
            scope.get("query_string", b""),
            self._headers,
        )
        self._page = Page(tracker, load)
        recorder = Recorder(self._page)
        _put(scope, recorder)
        self._token: Token[Recorder] = enter(recorder)

    async def send(self, message: Message) -> None:
        """Pass a message on to the server."""
        kind = message["type"]
        if kind in _STARTS and not self._started:
            status = message.get("status", 0)
            if status in _INFORMATIONAL:  # the response is still to come
                await self._send(message)
                return
            self._started = True
            message, saved = self._start(kind, status, message)
            await self._send(message)
            page = self._page
            page.shown = self._presents
            if saved is not None:
                page.saved(saved)
            return
        await self._send(message)
        if kind in _ENDS:
            more = _ENDS[kind]
            if self._trailers and kind != "http.response.trailers":
                return
            if more is None or not message.get(more, False):
                self._complete()

    def finish(self) -> None:
        """Take note that the application has returned; nothing is awaited, whatever happened before."""
        self._page.ended = True  # first, so that what a thread records from here on leaves by itself
        self._complete()
        try:
            leave(self._token)
        except ValueError:  # the application was closed from another context, where there is nothing to undo
            return

    def _start(self, kind: str, status: int, message: Message) -> tuple[Message, Visitor | None]:
        """Return the message that starts the response with our headers, and the state in its cookie."""
        page = self._page
        saved: Visitor | None = None
        if status == 304:
            self._presents = False
        self._trailers = bool(message.get("trailers", False))
        if self._tracker.asks_consent and not page.used and self._came_known():
            page.visitor  # noqa: B018 - who withdraws need not meet a page that records something
        if page.used:
            headers: Headers = list(message.get("headers") or ())  # read once: it may be a generator
            message = {**message, "headers": headers}
            if not self._presents:
                page.withhold()
            try:
                saved = page.to_save()
                message["headers"] = self._with_our_headers(kind, status, headers, saved)
            except Exception as error:  # noqa: BLE001 - the site comes first; the loss is said
                saved = None
                self._tracker.announcer.log(
                    logging.ERROR, "headers", "The visitor cookie could not be set: %s.", type(error).__name__
                )
        return message, saved

    def _came_known(self) -> bool:
        """Tell whether the browser sent a cookie of ours."""
        return any(
            len(key) == 6 and key.lower() == b"cookie" and self._name in value for key, value in self._headers
        )

    def _complete(self) -> None:
        page = self._page
        if page.dirty:
            page.dirty = False
            if not page.shown:
                page.withhold()
            self._tracker.send_news(page)

    def _with_our_headers(self, kind: str, status: int, given: Headers, saved: Visitor | None) -> Headers:
        headers = given.copy()
        if saved is not None or self._page.deletes:
            self._set_cookie(headers, saved)
        if kind != "websocket.accept" and self._tracker.settings.cache_guard and guard(headers):
            self._tracker.announcer.announce(CacheGuarded(status=status))
        return headers

    def _set_cookie(self, headers: Headers, saved: Visitor | None) -> None:
        """Add our Set-Cookie header, unless the application has set a cookie of that name itself."""
        name = self._name
        if any(value.startswith(name + b"=") and key.lower() == b"set-cookie" for key, value in headers):
            self._tracker.announcer.log(
                logging.WARNING,
                "own cookie",
                "The application sets the cookie %s itself, so the visitor's state was not saved; "
                "call forget() to delete it, or choose another cookie name.",
                name.decode(),
            )
            return
        text, max_age = self._tracker.write_cookie(saved) if saved is not None else (b"", 0)
        attributes = self._tracker.cookie_attributes[self._scope.get("scheme") in _SECURE]
        headers.append((b"set-cookie", set_cookie(name, text, max_age, attributes)))


def _put(scope: Scope, recorder: Recorder) -> None:
    """Make the recorder ``request.state.convert``."""
    state = scope.get("state")
    if state is None:
        scope["state"] = {"convert": recorder}
        return
    try:
        # A server may share one state between requests, so another request's recorder may be there already.
        if state.setdefault("convert", recorder) is recorder:
            return
    except (AttributeError, TypeError):  # read-only, or no mapping at all
        if not isinstance(state, Mapping):
            return  # the server's own affair; current() works all the same
    scope["state"] = {**state, "convert": recorder}


_OPEN: Final = frozenset({b"public", b"s-maxage", b"proxy-revalidate"})
_CLOSED: Final = frozenset({b"private", b"no-store"})
_GUARD: Final = ((b"vary", b"Cookie"), (b"cache-control", b"private"))
_FOR_CDNS: Final = (b"cdn-cache-control", b"surrogate-control")  # RFC 9213 lets caches obey these instead
_FOR_NGINX: Final = b"x-accel-expires"  # nginx' proxy_cache_valid obeys it before all others; 0: do not keep


def guard(headers: Headers) -> bool:
    """Keep a response that is one visitor's own out of shared caches; return whether it was open to them.

    ``Vary`` gets ``Cookie``; unless ``Cache-Control`` says ``private`` or ``no-store``, it gets ``private``
    and loses what contradicts that (RFC 9111, section 5.2.2).

    Args:
        headers: The response's headers; changed in place.
    """
    names = b"\n".join([key for key, _ in headers]).lower()
    # Nothing here that speaks of caches.
    if b"vary" not in names and b"e-control" not in names and _FOR_NGINX not in names:
        headers += _GUARD
        return False
    vary = [number for number, (key, _) in enumerate(headers) if key.lower() == b"vary"]
    if not any(part in (b"*", b"cookie") for number in vary for part in _parts(headers[number][1])):
        if vary:
            key, value = headers[vary[-1]]
            headers[vary[-1]] = key, value + b", Cookie" if value.strip() else b"Cookie"
        else:
            headers.append((b"vary", b"Cookie"))

    was_open = False
    for number, (key, value) in enumerate(headers):
        if key.lower().endswith(_FOR_CDNS) and not _closed(value):
            headers[number] = key, b"no-store"
            was_open = True
        elif key.lower() == _FOR_NGINX and value.strip() != b"0":
            headers[number] = key, b"0"
            was_open = True
    control = [value for key, value in headers if key.lower() == b"cache-control"]
    if any(_closed(value) for value in control):
        return was_open
    kept = [piece.strip() for value in control for piece in value.split(b",")]
    kept = [piece for piece in kept if piece and _directive(piece) not in _OPEN]
    headers[:] = [header for header in headers if header[0].lower() != b"cache-control"]
    headers.append((b"cache-control", b", ".join([b"private", *kept])))
    return was_open or bool(control)


def _parts(value: bytes) -> Iterable[bytes]:
    return [piece.strip().lower() for piece in value.split(b",")]


def _directive(piece: bytes) -> bytes:
    return piece.partition(b"=")[0].strip().lower()


def _closed(value: bytes) -> bool:
    """Tell whether shared caches may not keep it; ``private="field"`` speaks of that field only."""
    return any(part in _CLOSED for part in _parts(value))
