"""The ASGI door: ConvertMiddleware around any ASGI application.

It knows the ASGI messages and nothing of counting. Everything of a request lives in an object of its own; the
messages of the application pass untouched but for our headers on the one that starts the response.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Unpack

from convert_middleware.errors import SettingsError
from convert_middleware.page import Page
from convert_middleware.recorder import Recorder, enter, leave
from convert_middleware.response import PRESENTS_NOTHING, Headers, begin_response, cookie_name
from convert_middleware.settings import Options, Settings
from convert_middleware.tracker import Tracker

if TYPE_CHECKING:
    from contextvars import Token

    from convert_middleware.visitor import Visitor

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
# Frameworks that are typed each have scopes and messages of their own, none of which is a plain mapping.
App = Callable[[Any, Any, Any], Awaitable[None]]

_INSTALLED: Final = (
    "convert_middleware"  # key of the scope: (project, cookie name) of the doors passed so far
)
_STARTS: Final = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
_SECURE: Final = frozenset({"https", "wss"})
_INFORMATIONAL: Final = frozenset(range(100, 200))
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

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._live(scope, receive, self._with_lifespan(send))
            return
        if kind not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        installed: tuple[tuple[int, bytes], ...] = scope.get(_INSTALLED, ())
        name = self._cookie_name
        if installed:
            other = cookie_name(self.tracker, installed)
            if other is None:
                await self.app(scope, receive, send)
                return
            name = other
        scope[_INSTALLED] = (*installed, (self._project_id, name))
        exchange = _Exchange(self.tracker, scope, send, name)
        try:
            await self.app(scope, receive, exchange.send)
        finally:
            exchange.finish()
            scope[_INSTALLED] = installed

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Live through the application's lifespan, or in its place if it has none, as Django.

        Only so delivery ends in order everywhere: after a signal a server may end without exit handlers.
        """
        knows = False

        async def listen() -> Message:
            nonlocal knows
            knows = True
            return await receive()

        async def tell(message: Message) -> None:
            nonlocal knows
            knows = True
            await send(message)

        try:
            await self.app(scope, listen, tell)
        except Exception:
            if knows:
                raise
        if not knows:
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})

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
        self._presents = scope.get("method") not in PRESENTS_NOTHING
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
            page = self._page
            page.begun = True
            await self._send(message)
            page.shown = self._presents
            if saved is not None:
                page.saved(saved)
            return
        last = kind in _ENDS and self._ends(kind, message)
        if last and self._page.ahead:
            self._tracker.remember(self._page)
        await self._send(message)
        if last:
            self._complete()

    def finish(self) -> None:
        """Take note that the application has returned; nothing is awaited, whatever happened before."""
        self._page.ended = True  # first, so that what a thread records from here on leaves by itself
        self._complete()
        try:
            leave(self._token)
        except ValueError:  # the application was closed from another context, where there is nothing to undo
            return

    def _ends(self, kind: str, message: Message) -> bool:
        """Tell whether nothing more of the response follows a message."""
        more = _ENDS[kind]
        if self._trailers and kind != "http.response.trailers":
            return False
        return more is None or not message.get(more, False)

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
            if not self._presents:
                page.withhold()
            headers, saved = begin_response(
                self._tracker,
                page,
                self._name,
                headers,
                status=status,
                secure=self._scope.get("scheme") in _SECURE,
                keepable=kind != "websocket.accept",
            )
            message = {**message, "headers": headers}
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
