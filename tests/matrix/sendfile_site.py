"""A WSGI site whose file leaves through the server's own wrapper; it says so when ``sendfile`` was called."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any

from convert_middleware import ConvertWSGIMiddleware, current
from tests.matrix.servers import FILE

if TYPE_CHECKING:
    from collections.abc import Iterable

logging.basicConfig(level=logging.INFO)
_sendfile = socket.socket.sendfile


def sendfile(self: socket.socket, file: Any, offset: int = 0, count: int | None = None) -> int:
    logging.getLogger(__name__).info("sendfile was called")
    return _sendfile(self, file, offset, count)


socket.socket.sendfile = sendfile  # type: ignore[method-assign]  # heard of outside


def site(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/plain":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"nothing is recorded here"]
    current().goal(33)
    start_response("200 OK", [("Content-Length", str(FILE.stat().st_size))])
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](FILE.open("rb"))
    return wrapped


app = ConvertWSGIMiddleware(site, project_id="1", customer_id="2")
