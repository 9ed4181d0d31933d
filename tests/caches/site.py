"""One small site behind each door, all of it open to shared caches by its own headers."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, Final

from convert_middleware import ConvertMiddleware, ConvertWSGIMiddleware, current

if TYPE_CHECKING:
    from collections.abc import Iterable

SECRET: Final = "the shop's own secret, long enough"
_PUBLIC: Final = ("Cache-Control", "public, s-maxage=60, max-age=60")
_HEADERS: Final = {
    "/": [_PUBLIC],
    "/encoded": [_PUBLIC, ("Vary", "Accept-Encoding")],
    "/for-nginx": [("X-Accel-Expires", "60")],
    "/silent": [],
    "/style.css": [_PUBLIC, ("ETag", '"1"'), ("X-Own", "as it is")],
}
_numbers = count(1)


def _respond(path: str) -> tuple[list[tuple[str, str]], bytes]:
    """Return a page that is each visitor's own, or the one that is everybody's."""
    body = "body {}" if path == "/style.css" else f"variation {current().experiment(11, next(_numbers))}"
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), *_HEADERS[path]]
    return headers, body.encode()


async def _asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])  # it has no lifespan
    headers, body = _respond(scope["path"])
    pairs = [(key.encode(), value.encode()) for key, value in headers]
    await send({"type": "http.response.start", "status": 200, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


def _wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    headers, body = _respond(environ["PATH_INFO"])
    start_response("200 OK", headers)
    return [body]


asgi = ConvertMiddleware(_asgi, project_id="1", customer_id="2", secret_key=SECRET)
wsgi = ConvertWSGIMiddleware(_wsgi, project_id="1", customer_id="2", secret_key=SECRET)
