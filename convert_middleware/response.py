"""The start of a response, whichever door it leaves through: the visitor's cookie and who may keep the page.

Headers are lists of byte pairs as ASGI has them; it knows nothing of messages and servers.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from convert_middleware.cookie import set_cookie
from convert_middleware.hooks import CacheGuarded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from convert_middleware.page import Page
    from convert_middleware.tracker import Tracker
    from convert_middleware.visitor import Visitor

Headers = list[tuple[bytes, bytes]]
Saved = tuple["Visitor", bytes | None]  # a state, and the cookie if it holds just that

PRESENTS_NOTHING: Final = frozenset({"HEAD", "OPTIONS"})  # methods whose responses nobody looks at


def begin_response(
    tracker: Tracker,
    page: Page,
    name: bytes,
    given: Headers,
    *,
    status: int,
    secure: bool,
    keepable: bool = True,
) -> tuple[Headers, Saved | None]:
    """Return the headers with ours, and what is in the visitor's cookie if it is there; never raises.

    Args:
        tracker: The engine.
        page: The request's page, which somebody used.
        name: Of the visitor's cookie.
        given: The application's headers; not changed.
        status: The response's status.
        secure: Whether the request came encrypted.
        keepable: Whether a cache could keep the response at all.
    """
    headers = given.copy()
    try:
        names = names_of(headers)
        if keepable and tracker.guards_caches and guard(headers, names):
            tracker.announcer.announce(CacheGuarded(status=status))
        visitor = page.to_save()
        gone = page.deletes
        if visitor is not None and tracker.withdrew(visitor):  # in another tab, while this page was made
            visitor, gone = None, True
        if visitor is None and not gone:
            return headers, None
        if b"set-cookie" in names and _sets(headers, name):
            _say_that_it_is_taken(tracker, name)
            return headers, None
        text, max_age, whole = tracker.write_cookie(visitor) if visitor is not None else (b"", 0, False)
        attributes = tracker.cookie_attributes[secure]
        headers.append((b"set-cookie", set_cookie(name, text, max_age, attributes)))
    except Exception as error:  # noqa: BLE001 - the site comes first; the loss is said
        tracker.announcer.log(
            logging.ERROR, "headers", "The visitor cookie could not be set: %s.", type(error).__name__
        )
        return headers, None
    return headers, None if visitor is None else (visitor, text if whole else None)


def _sets(headers: Headers, name: bytes) -> bool:
    """Tell whether the application sets a cookie of that name itself."""
    return any(key.lower() == b"set-cookie" and value.startswith(name + b"=") for key, value in headers)


def _say_that_it_is_taken(tracker: Tracker, name: bytes) -> None:
    tracker.announcer.log(
        logging.WARNING,
        "own cookie",
        "The application sets the cookie %s itself, so the visitor's state was not saved; "
        "call forget() to delete it, or choose another cookie name.",
        name.decode(),
    )


def cookie_name(tracker: Tracker, installed: Iterable[tuple[int, bytes]]) -> bytes | None:
    """Return the name that a door's cookie has, None if a door of this project was passed already.

    Args:
        tracker: The door's engine.
        installed: Project and cookie name of the doors that the request passed.
    """
    name, project_id, warn = tracker.settings.cookie.name.encode(), tracker.project_id, tracker.announcer.log
    if any(project == project_id for project, _ in installed):
        warn(logging.WARNING, "twice", "ConvertMiddleware is installed twice; the inner one does nothing.")
        return None
    if any(name == other for _, other in installed):
        name = b"%b_%d" % (name, project_id)
        message = "Two projects share a cookie name; the inner one uses %s."
        warn(logging.WARNING, "name", message, name.decode())
    return name


_OPEN: Final = frozenset({b"public", b"s-maxage", b"proxy-revalidate"})
_CLOSED: Final = frozenset({b"private", b"no-store"})
_GUARD: Final = ((b"vary", b"Cookie"), (b"cache-control", b"private"))
# What some caches obey instead: RFC 9213's targeted fields such as CDN-Cache-Control, and those of their own.
_FOR_CDNS: Final = (b"-cache-control", b"surrogate-control", b"edge-control")
_FOR_NGINX: Final = b"x-accel-expires"  # nginx' proxy_cache_valid obeys it before all others; 0: do not keep


def names_of(headers: Headers) -> bytes:
    """Return the headers' names in lower case, line by line."""
    return b"\n".join([key for key, _ in headers]).lower()


def guard(headers: Headers, names: bytes) -> bool:
    """Keep a response that is one visitor's own out of shared caches; return whether it was open to them.

    ``Vary`` gets ``Cookie``; unless ``Cache-Control`` says ``private`` or ``no-store``, it gets ``private``
    and loses what contradicts that (RFC 9111, section 5.2.2).

    Args:
        headers: The response's headers; changed in place.
        names: See :func:`names_of`.
    """
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
