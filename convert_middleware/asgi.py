"""The ASGI door: ConvertMiddleware around any ASGI application.

It knows the ASGI messages and nothing of counting. Everything of a request lives in an object of its own; the
messages of the application pass untouched but for our headers on the one that starts the response.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Unpack

from convert_middleware.errors import SettingsError, shown
from convert_middleware.nesting import Asked, DoorPage, door_around
from convert_middleware.recorder import Recorder, around, enter, leave
from convert_middleware.response import PRESENTS_NOTHING, Headers, begin_response, cookie_name
from convert_middleware.settings import Options, Settings
from convert_middleware.tracker import Tracker

if TYPE_CHECKING:
    from contextvars import Token

    from convert_middleware.page import Loaded
    from convert_middleware.response import Saved

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
        if not (tracker is None or isinstance(tracker, Tracker)):
            raise SettingsError("tracker", f"must be a Tracker, not {shown(tracker)}")
        if tracker is not None and options:
            raise SettingsError(next(iter(options)), "cannot be given together with tracker=: it has its own")
        self.app = app
        self.tracker = Tracker(Settings.from_env(**options)) if tracker is None else tracker
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
        if not installed and (outer := around(None)) is not None:
            installed = door_around(outer, _Exchange, partial(_asked, scope))
            if installed:
                _put(scope, outer)
        if installed:
            other = cookie_name(self.tracker, installed)
            if other is None:
                await self.app(scope, receive, send)
                return
            name = other
        scope[_INSTALLED] = (*installed, (self._project_id, name))
        outer = around(None) if installed else None
        exchange = _Exchange(self.tracker, scope, name)
        try:
            await self.app(scope, receive, partial(exchange.pass_on, send))
        finally:
            exchange.finish()
            scope[_INSTALLED] = installed
            if outer is not None:  # another project's, and its handlers may go on
                _put(scope, outer)

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
        except Exception as error:
            if knows:
                raise
            self.tracker.announcer.log(
                logging.WARNING,
                "lifespan",
                "The application raised %s before it took note of its lifespan, and is taken to have none.",
                type(error).__name__,
            )
        if not knows:
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})

    def _with_lifespan(self, send: Send) -> Send:
        """Start delivery when the application has started, drain before it is done."""
        serves = False

        async def forward(message: Message) -> None:
            nonlocal serves
            kind = message["type"]
            if kind == "lifespan.startup.complete" and not serves:
                serves = True
                self.tracker.begin_service()
            elif kind in ("lifespan.shutdown.complete", "lifespan.shutdown.failed") and serves:
                import anyio.to_thread  # only lifespan needs it

                serves = False
                await anyio.to_thread.run_sync(self.tracker.end_service)
            await send(message)

        return forward


class _Exchange(DoorPage):
    """One request and its response, or one WebSocket.

    It is in the scope, so it keeps neither that nor the server's ``send``, which leads there as well: a cycle
    for every request would be the garbage collector's to find, and every page would wait for that.
    """

    __slots__ = ("_asked", "_name", "_presents", "_secure", "_token", "_tracker", "_trailers")

    def __init__(self, tracker: Tracker, scope: Scope, name: bytes) -> None:
        super().__init__(tracker)
        self._tracker = tracker
        self._name = name
        self._trailers = False
        get = scope.get
        method = get("method", "GET")  # a WebSocket has none
        self._presents = method not in PRESENTS_NOTHING
        self._secure = get("scheme") in _SECURE
        self._asked: tuple[str, str, bytes, Iterable[tuple[bytes, bytes]]] = (
            method,
            get("path", ""),
            get("query_string", b""),
            get("headers") or (),
        )
        recorder = Recorder(self)
        _put(scope, recorder)
        self._token: Token[Recorder] = enter(recorder)

    def meet(self) -> Loaded:
        """See :class:`~convert_middleware.page.Page`."""
        return self._tracker.meet(self._name, *self._asked)

    @property
    def door(self) -> tuple[int, bytes]:
        """See :class:`~convert_middleware.nesting.DoorPage`."""
        return self._tracker.project_id, self._name

    @property
    def asked(self) -> Asked:
        """See :class:`~convert_middleware.nesting.DoorPage`."""
        return Asked.of(*self._asked[1:])

    async def pass_on(self, send: Send, message: Message) -> None:
        """Pass a message on to the server.

        Args:
            send: The server's.
            message: The application's.
        """
        kind = message["type"]
        if kind in _STARTS and not self.begun:
            status = message.get("status", 0)
            if status in _INFORMATIONAL:  # the response is still to come
                await send(message)
                return
            message, saved = self._start(kind, status, message)
            self.begun = True
            await send(message)
            self.shown = self._presents
            if saved is not None:
                self.saved(*saved)
            return
        last = kind in _ENDS and self._ends(kind, message)
        if last and self.ahead:
            self._tracker.remember(self)
        await send(message)
        if last and self.dirty:
            self._complete()

    def finish(self) -> None:
        """Take note that the application has returned; nothing is awaited, whatever happened before."""
        self.ended = True  # first, so that what a thread records from here on leaves by itself
        if self.dirty:
            self._complete()
        try:
            leave(self._token)
        except ValueError:  # the application was closed from another context, where there is nothing to undo
            return

    def _ends(self, kind: str, message: Message) -> bool:
        """Tell whether nothing more of the response follows a message."""
        if self._trailers and kind != "http.response.trailers":
            return False
        more = _ENDS[kind]
        return more is None or not message.get(more, False)

    def _start(self, kind: str, status: int, message: Message) -> tuple[Message, Saved | None]:
        """Return the message that starts the response with our headers, and the state in its cookie."""
        if status == 304:
            self._presents = False
        if message.get("trailers", False):
            self._trailers = True
        used = self.used
        if not used and self._may_withdraw():
            self.visitor  # noqa: B018 - who withdraws need not meet a page that records something
            used = self.withdrawn
        if not used:
            return message, None
        headers: Headers = list(message.get("headers") or ())  # read once: it may be a generator
        if not self._presents:
            self.withhold()
        headers, saved = begin_response(
            self._tracker,
            self,
            self._name,
            headers,
            status=status,
            secure=self._secure,
            keepable=kind != "websocket.accept",
        )
        return {**message, "headers": headers}, saved

    def _may_withdraw(self) -> bool:
        """Tell whether the browser sent a cookie of ours, and perhaps with a no."""
        tracker, headers = self._tracker, self._asked[3]
        if not tracker.asks_consent:
            signals = tracker.signals
            for key, value in headers:
                if value == b"1" and key.lower() in signals:
                    break
            else:
                return False
        return any(
            len(key) == 6 and key.lower() == b"cookie" and self._name in value for key, value in headers
        )

    def _complete(self) -> None:
        self.dirty = False
        if not self.shown:
            self.withhold()
        self._tracker.send_news(self)


def _asked(scope: Scope) -> Asked:
    """Return what tells a request from others."""
    return Asked.of(scope.get("path", ""), scope.get("query_string", b""), scope.get("headers") or ())


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
