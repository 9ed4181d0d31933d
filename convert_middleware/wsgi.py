"""The WSGI door: ConvertWSGIMiddleware around any WSGI application (PEP 3333).

It knows the interface between servers and applications and nothing of counting. Everything of a request lives
in objects of its own; what the application returns passes untouched but for our headers.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sized
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, Unpack

from convert_middleware.errors import SettingsError, shown
from convert_middleware.nesting import Asked, DoorPage, door_around
from convert_middleware.recorder import Recorder, around, enter, leave
from convert_middleware.response import PRESENTS_NOTHING, Headers, begin_response, cookie_name
from convert_middleware.settings import Options, Settings
from convert_middleware.tracker import Tracker

if TYPE_CHECKING:
    from types import TracebackType

    from convert_middleware.page import Loaded
    from convert_middleware.response import Saved

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

Environ = dict[str, Any]
Write = Callable[[bytes], object]
R = TypeVar("R")

_INSTALLED: Final = "convert_middleware.doors"  # (project, cookie name) of the doors passed so far
_HEADER: Final = "HTTP_"
_FILE_WRAPPER: Final = "wsgi.file_wrapper"


class StartResponse(Protocol):
    """What a server hands to an application to begin its response with."""

    def __call__(  # noqa: D102 - said above
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /
    ) -> Write: ...


App = Callable[[Environ, StartResponse], Iterable[bytes]]


class ConvertWSGIMiddleware:
    """Tracks what the handlers of a WSGI application record.

    The recorder is ``environ["convert"]`` and :func:`~convert_middleware.current`.

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

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        installed: tuple[tuple[int, bytes], ...] = environ.get(_INSTALLED, ())
        name: bytes | None = self._cookie_name
        if not installed and (outer := around(None)) is not None:
            installed = door_around(outer, _Page, lambda: Asked.of(*_asked(environ)[1:]))
            if installed:
                environ["convert"] = outer
        if installed:
            name = cookie_name(self.tracker, installed)
        if name is None:
            return self.app(environ, start_response)
        passed = environ.get(_INSTALLED, ())
        environ[_INSTALLED] = (*installed, (self._project_id, name))
        outer = around(None) if installed else None
        exchange = _Exchange(self.tracker, environ, start_response, name, outer)
        # Who calls the application again, with the same environ, passes the door again.
        exchange.at_end = partial(environ.__setitem__, _INSTALLED, passed)
        return exchange.run(self.app, environ)


class _Exchange:
    """One request and its response."""

    __slots__ = (
        "_environ",
        "_may_show",
        "_may_withdraw",
        "_name",
        "_outer",
        "_page",
        "_presents",
        "_recorder",
        "_saved",
        "_secure",
        "_start_response",
        "_started",
        "_tracker",
        "at_end",
    )

    def __init__(
        self,
        tracker: Tracker,
        environ: Environ,
        start_response: StartResponse,
        name: bytes,
        outer: Recorder | None,
    ) -> None:
        self._name = name
        self._environ = environ
        self._outer = outer  # another project's, whose handlers have it wherever ours do not run
        self._tracker = tracker
        self._start_response = start_response
        self._presents = self._may_show = environ.get("REQUEST_METHOD") not in PRESENTS_NOTHING
        self._secure = environ.get("wsgi.url_scheme") == "https"
        cookie = environ.get("HTTP_COOKIE")
        self._may_withdraw = (
            isinstance(cookie, str)
            and name.decode() in cookie
            and (tracker.asks_consent or _says_no(environ, tracker.signals))
        )
        # Read when somebody asks for state; by then the application may have changed its environ.
        self._page = _Page(tracker, name, environ.copy())
        self._recorder = environ["convert"] = Recorder(self._page)
        self._started = False
        self._saved: Saved | None = None
        self.at_end: Callable[[], None] | None = None

    def run(self, app: App, environ: Environ) -> Iterable[bytes]:
        """Call the application and return what it returned, watched if it can be."""
        wrapper = environ.get(_FILE_WRAPPER)
        if wrapper is not None and not isinstance(wrapper, type):
            environ[_FILE_WRAPPER] = wrapper = _FileWrapper(wrapper)
        try:
            body = self.inside(app, environ, self.start)
        except BaseException:
            self.complete(shown=False)
            raise
        if wrapper is not None and _is_from(wrapper, body):
            self.complete(shown=True)  # the server knows it and sends it in its own way
            return body
        return _SizedBody(self, body) if hasattr(body, "__len__") else _Body(self, body)

    def inside(self, function: Callable[..., R], *arguments: Any) -> R:
        """Call something of the application where ``current()`` is this request's recorder.

        Not in a context of its own: what the application sets in its context has to stay there.
        """
        token = enter(self._recorder)
        if self._outer is not None:
            self._environ["convert"] = self._recorder
        try:
            return function(*arguments)
        finally:
            leave(token)
            if self._outer is not None:
                self._environ["convert"] = self._outer

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None) -> Write:
        """Begin the response with our headers."""
        saved: Saved | None = None
        page = self._page
        self._started = True
        code = int(status[:3]) if status[:3].isdigit() else 0
        self._presents = self._may_show and code != 304  # it may start anew and be another one
        used = page.used
        if self._may_withdraw and not used:
            page.visitor  # noqa: B018 - who withdraws need not meet a page that records something
            used = page.withdrawn
        if used:
            if not self._presents:
                page.withhold()
            given: Headers = [(_bytes(key), _bytes(value)) for key, value in headers]
            ours, saved = begin_response(
                self._tracker, page, self._name, given, status=code, secure=self._secure
            )
            headers = _as_text(ours, given, headers)
        page.begun = True
        if exc_info is None:
            write = self._start_response(status, headers)
        else:
            write = self._start_response(status, headers, exc_info)
        self._saved = saved  # unless the application starts again before anything went out
        return partial(self._write, write)

    def _write(self, write: Write, data: bytes) -> None:
        write(data)
        self.show()

    def show(self) -> None:
        """Take note that something of the body is on its way to the visitor."""
        self._page.shown = self._presents
        if self._saved is not None:
            self._page.saved(*self._saved)
            self._saved = None
        if self._page.ahead:
            self._tracker.remember(self._page)

    def complete(self, *, shown: bool) -> None:
        """Take note that the response is over.

        Args:
            shown: Whether it reached the visitor, as far as anybody knows.
        """
        page = self._page
        if self.at_end is not None:
            self.at_end()
            self.at_end = None
        if shown and self._started:
            self.show()
        page.ended = True  # first, so that what a thread records from here on leaves by itself
        if page.dirty:
            page.dirty = False
            if not page.shown:
                page.withhold()
            self._tracker.send_news(page)


class _Page(DoorPage):
    """The page of one request."""

    __slots__ = ("_environ", "_name", "_tracker")

    def __init__(self, tracker: Tracker, name: bytes, environ: Environ) -> None:
        super().__init__(tracker)
        self._tracker = tracker
        self._name = name
        self._environ = environ

    def meet(self) -> Loaded:
        """See :class:`~convert_middleware.page.Page`."""
        return self._tracker.meet(self._name, *_asked(self._environ))

    @property
    def door(self) -> tuple[int, bytes]:
        """See :class:`~convert_middleware.nesting.DoorPage`."""
        return self._tracker.project_id, self._name

    @property
    def asked(self) -> Asked:
        """See :class:`~convert_middleware.nesting.DoorPage`."""
        return Asked.of(*_asked(self._environ)[1:])


class _FileWrapper:
    """A server's function that wraps a file, as uWSGI has it: what it returns has no type to be known by."""

    __slots__ = ("_wrap", "made")

    def __init__(self, wrap: Callable[..., object]) -> None:
        self._wrap = wrap
        self.made: list[object] = []  # for this request

    def __call__(self, *arguments: Any) -> object:
        made = self._wrap(*arguments)
        self.made.append(made)
        return made


def _is_from(wrapper: type | _FileWrapper, body: object) -> bool:
    """Tell whether a body is a file that the server wrapped, so that it looks for that very object."""
    if isinstance(wrapper, type):
        return isinstance(body, wrapper)
    made, wrapper.made = wrapper.made, []  # so that a file lives no longer than without us
    return any(body is each for each in made)


class _Body:
    """What the application returned, watched on its way; no generator, so that nothing runs ahead of it."""

    __slots__ = ("_body", "_chunks", "_exchange", "_failed", "_inside", "_over")

    def __init__(self, exchange: _Exchange, body: Iterable[bytes]) -> None:
        self._exchange = exchange
        self._body = body
        # A plain list runs nothing of the application.
        self._inside: Callable[..., Any] = _call if type(body) is list else exchange.inside
        self._chunks: Iterator[bytes] | None = None
        self._failed = self._over = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._chunks is None:
                self._chunks = self._inside(iter, self._body)
            chunk: bytes = self._inside(next, self._chunks)
        except StopIteration:
            raise
        except BaseException:
            self._failed = True
            raise
        if chunk:
            self._exchange.show()
        return chunk

    def close(self) -> None:
        """Close what the application returned; the response is over."""
        close = getattr(self._body, "close", None)
        try:
            if close is not None:
                self._inside(close)
        finally:
            self._complete()

    def __del__(self) -> None:  # of a server that does not close
        if not self._over:
            self._complete()

    def _complete(self) -> None:
        self._over = True
        self._exchange.complete(shown=not self._failed)


def _call(function: Callable[..., R], *arguments: Any) -> R:
    """Call what needs no recorder around it."""
    return function(*arguments)


class _SizedBody(_Body):
    """The same of a list, whose length servers use, and which may be read more than once."""

    __slots__ = ()

    def __iter__(self) -> Iterator[bytes]:
        self._chunks = None
        return self

    def __len__(self) -> int:
        assert isinstance(self._body, Sized)  # noqa: S101 - it was looked at
        return len(self._body)


def _says_no(environ: Environ, signals: Container[bytes]) -> bool:
    """Tell whether the browser sent one of these headers with a ``1``."""
    return (environ.get("HTTP_SEC_GPC") == "1" and b"sec-gpc" in signals) or (
        environ.get("HTTP_DNT") == "1" and b"dnt" in signals
    )


def _as_text(ours: Headers, given: Headers, theirs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return headers as text; what the application gave passes as the object it is."""
    number = len(given)
    if ours[:number] == given:  # as when nothing of it had to be changed
        return [*theirs, *[(key.decode("latin-1"), value.decode("latin-1")) for key, value in ours[number:]]]
    passed = dict(zip(given, theirs, strict=True))
    return [
        passed.get((key, value)) or (key.decode("latin-1"), value.decode("latin-1")) for key, value in ours
    ]


def _asked(environ: Environ) -> tuple[str, str, bytes, Iterable[tuple[bytes, bytes]]]:
    """Return a request's method, path, query and headers."""
    headers = [(_field(key), _bytes(value)) for key, value in environ.items() if key.startswith(_HEADER)]
    path = _bytes(environ.get("SCRIPT_NAME", "")) + _bytes(environ.get("PATH_INFO", ""))
    query = _bytes(environ.get("QUERY_STRING", ""))
    return environ.get("REQUEST_METHOD", "GET"), path.decode(errors="replace"), query, headers


@lru_cache(maxsize=256)  # browsers send few different ones
def _field(key: str) -> bytes:
    """Return a header's name as it came, by its name in the environ."""
    return _bytes(key.removeprefix(_HEADER).replace("_", "-").lower())


def _bytes(value: object) -> bytes:
    """Return the bytes that stand in a text of latin-1; layers around us put other things there, too."""
    return value.encode("latin-1", "replace") if isinstance(value, str) else b""
