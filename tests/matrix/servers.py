"""The servers: how each is started, and what becomes of what waits when it is told to end."""

from __future__ import annotations

import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from examples.frameworks import ASGI, WSGI
from tests.end_to_end.process import Site
from tests.frameworks.process import SECRET

FILE: Final = Path(__file__)  # what the sites of these tests send as a file
_PATIENCE: Final = 30.0  # seconds for a server to answer


@dataclass(frozen=True)
class Server:
    """A server.

    Attributes:
        name: What people call it, and how it is run.
        package: What is installed.
        command: What follows ``python -m``; ``{app}`` and ``{port}`` are replaced.
        frameworks: The examples it runs.
        delivers: Whether exit handlers or lifespan deliver what waits in memory when SIGTERM comes; None:
            they do as a rule.
        accepts_with_headers: Whether the headers with which an application accepts a WebSocket are sent.
    """

    name: str
    package: str
    command: str
    frameworks: tuple[str, ...]
    delivers: bool | None = True
    accepts_with_headers: bool = True


# Those that need asyncio cannot run where the server brings another loop.
NOT_TRIO: Final = {
    "quart_site": "Quart needs asyncio; quart-trio is another framework",
    "django_asgi_site": "Django's asgiref needs asyncio",
    "falcon_asgi_site": "Falcon needs asyncio",
    "blacksheep_site": "BlackSheep needs asyncio",
}

SERVERS: Final = (
    Server("uvicorn, asyncio", "uvicorn", "uvicorn {app} --port {port} --loop asyncio", ASGI),
    Server("uvicorn, uvloop", "uvicorn", "uvicorn {app} --port {port} --loop uvloop", ASGI),
    Server("hypercorn, asyncio", "hypercorn", "hypercorn {app} --bind 127.0.0.1:{port} -k asyncio", ASGI),
    Server(
        "hypercorn, trio",
        "hypercorn",
        "hypercorn {app} --bind 127.0.0.1:{port} -k trio",
        tuple(name for name in ASGI if name not in NOT_TRIO),
    ),
    Server(
        "granian, ASGI",
        "granian",
        "granian --interface asgi --port {port} {app}",
        ASGI,
        accepts_with_headers=False,
    ),
    Server("daphne", "daphne", "daphne -b 127.0.0.1 -p {port} {app}", ASGI, accepts_with_headers=False),
    Server("gunicorn, sync", "gunicorn", "gunicorn {app} --bind 127.0.0.1:{port}", WSGI),
    Server("gunicorn, gthread", "gunicorn", "gunicorn {app} --bind 127.0.0.1:{port} --threads 4", WSGI),
    Server("gunicorn, gevent", "gunicorn", "gunicorn {app} --bind 127.0.0.1:{port} -k gevent", WSGI),
    Server("waitress", "waitress", "waitress --listen=127.0.0.1:{port} {app}", WSGI, delivers=False),
    Server("wsgiref", "", "tests.matrix.wsgiref_server {port} {app}", WSGI, delivers=False),
    Server(
        "uWSGI",
        "pyuwsgi",
        "tests.matrix.uwsgi_server --http 127.0.0.1:{port} --http-keepalive --http-auto-chunked "
        "--module {app} --master --enable-threads --die-on-term",
        WSGI,
        delivers=None,  # its workers leave from a signal handler, whatever Python is doing
    ),
    Server("granian, WSGI", "granian", "granian --interface wsgi --port {port} {app}", WSGI, delivers=False),
)


class Running(Site):
    """An application in one of them.

    Args:
        server: The server.
        app: Where the application is, as ``module:attribute``.
        endpoint: Where its tracking requests go.
    """

    def __init__(self, server: Server, app: str, endpoint: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.server = tuple(server.command.format(app=app, port=self._port).split())
        super().__init__(endpoint, secret_key=SECRET)

    def address(self) -> str:
        """Wait until the site answers and return its address."""
        address = f"http://127.0.0.1:{self._port}"
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                httpx.get(f"{address}/plain", trust_env=False, timeout=5.0)
            except httpx.TransportError:
                assert self._process.poll() is None, f"the server has ended: {self.said}"
                assert time.monotonic() < deadline, f"it never answered: {self.said}"
                time.sleep(0.02)
            else:
                return address


def example(name: str) -> str:
    """Return where the application of an example is."""
    return f"examples.frameworks.{name}:app"


PAIRS: Final = tuple((server, name) for server in SERVERS for name in server.frameworks)
PYTHON: Final = f"{sys.implementation.name} {sys.version.split()[0]}"
