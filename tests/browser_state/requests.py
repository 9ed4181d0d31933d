"""Requests as the doors hand them in."""

from __future__ import annotations

from convert_middleware.browser import RequestFacts, fields_of
from convert_middleware.cookie import find


def request(*headers: tuple[str, str], query: str = "", path: str = "/") -> RequestFacts:
    """Return a request with these headers."""
    raw = [(name.encode(), value.encode()) for name, value in headers]
    return RequestFacts(method="GET", path=path, query=query.encode(), get=fields_of(raw).get, find=find)


def wsgi_request(environ: dict[str, str]) -> RequestFacts:
    """Return a request of a WSGI environment."""

    def get(name: bytes) -> bytes | None:
        value = environ.get("HTTP_" + name.decode("latin-1").upper().replace("-", "_"))
        return None if value is None else value.encode("latin-1")

    return RequestFacts(method="GET", path="/", query=b"", get=get, find=find)
