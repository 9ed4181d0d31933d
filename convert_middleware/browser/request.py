"""A request as far as it decides whether its visitor is counted, whichever door it came through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Get = Callable[[bytes], bytes | None]  # the value of a header, by its lower-case name
Find = Callable[[bytes, bytes], Sequence[bytes]]  # the values of a cookie: Cookie header, name


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFacts:
    """What the callables of the options ``consent`` and ``exclude`` see of a request.

    Attributes:
        method: ``"GET"``, ``"POST"`` and so on; ``"GET"`` for a WebSocket.
        path: The path, percent-decoded, without query.
        query: The query string as it came, without ``?``.
        get: Returns a header's value by its lower-case name, as :func:`fields_of` has it.
        find: Returns the values of a cookie in a Cookie header, in order.
    """

    method: str
    path: str
    query: bytes
    get: Get
    find: Find

    def header(self, name: str) -> str | None:
        """Return the value of a header, or None.

        Args:
            name: Its name, in any case.
        """
        value = self.get(name.lower().encode())
        return None if value is None else value.decode("latin-1")

    def cookie(self, name: str) -> str | None:
        """Return the value of a cookie as the browser sent it, not percent-decoded, or None.

        Args:
            name: Its name; of several of that name, the first counts, which has the longest path.
        """
        values = self.cookies(name.encode())
        return values[0].decode(errors="replace") if values else None

    def cookies(self, name: bytes) -> Sequence[bytes]:
        """Return the values of all cookies of a name."""
        header = self.get(b"cookie")
        return self.find(header, name) if header else ()


def fields_of(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the values of headers by their lower-case names.

    Lines of one name are joined: those of Cookie with ``;`` (RFC 9113, section 8.2.3), all others with a
    comma (RFC 9110, section 5.3).
    """
    lines = headers if isinstance(headers, (list, tuple)) else list(headers)
    fields = dict(lines)
    if len(fields) == len(lines) and b"".join(fields).islower():
        return fields
    collected: dict[bytes, list[bytes]] = {}
    for key, value in lines:
        collected.setdefault(key.lower(), []).append(value)
    return {name: (b"; " if name == b"cookie" else b", ").join(values) for name, values in collected.items()}
