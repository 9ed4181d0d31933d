"""A door within a door of the other kind, as where an ASGI site mounts a WSGI application.

Doors of one kind find each other in the scope or the environ, but what stands between the kinds makes a new
one: all that is sure to reach the inner door is the context. Others inherit that as well, such as the next
request on a connection, so the request has to be the same, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from convert_middleware.browser import fields_of
from convert_middleware.page import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from convert_middleware.recorder import Recorder


class Asked(NamedTuple):
    """What tells a request from others, and passes unchanged whatever stands between two doors."""

    path: str
    query: bytes
    cookie: bytes
    agent: bytes

    @classmethod
    def of(cls, path: str, query: bytes, headers: Iterable[tuple[bytes, bytes]]) -> Asked:
        """Return it of a request.

        Args:
            path: Its whole path, percent-decoded.
            query: Its query string as it came.
            headers: Its headers.
        """
        fields = fields_of(headers)
        # Several lines of Cookie are joined with a comma by some, and with a semicolon here.
        cookie = fields.get(b"cookie", b"").replace(b"; ", b",")
        return cls(path, query, cookie, fields.get(b"user-agent", b""))


class DoorPage(Page):
    """The page of a request behind a door, as a door of the other kind finds it."""

    __slots__ = ()

    @property
    def door(self) -> tuple[int, bytes]:
        """Project and cookie name of the door."""
        raise NotImplementedError

    @property
    def asked(self) -> Asked:
        """The request."""
        raise NotImplementedError


def door_around(
    recorder: Recorder, own: type[DoorPage], asked: Callable[[], Asked]
) -> tuple[tuple[int, bytes], ...]:
    """Return project and cookie name of a door of the other kind if this request is on its way through it.

    Args:
        recorder: Which the context has.
        own: The pages of the door that wants to know.
        asked: Returns the request as that door has it.
    """
    page = recorder._page  # noqa: SLF001 - handlers have no business there, doors do
    if not isinstance(page, DoorPage) or isinstance(page, own) or page.begun or page.ended:
        return ()
    return (page.door,) if page.asked == asked() else ()
