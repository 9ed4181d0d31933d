"""Any application in a real server, in a process of its own."""

from __future__ import annotations

from functools import partial
from typing import Final

from examples.frameworks import ASGI, WSGI
from tests.end_to_end.process import Site

SECRET = "a-key-for-the-examples-only"


class AsgiSite(Site):
    """An ASGI application in uvicorn.

    Args:
        app: Where it is, as ``module:attribute``.
        endpoint: Where its tracking requests go.
    """

    def __init__(self, app: str, endpoint: str) -> None:
        self.server = ("uvicorn", app, "--port", "0")
        super().__init__(endpoint, secret_key=SECRET)


class WsgiSite(Site):
    """A WSGI application in waitress.

    Args:
        app: Where it is, as ``module:attribute``.
        endpoint: Where its tracking requests go.
    """

    up = "Serving on"
    where = r"Serving on (http://[0-9.]+:([0-9]+))"

    def __init__(self, app: str, endpoint: str) -> None:
        self.server = ("tests.frameworks.waitress_server", app)
        super().__init__(endpoint, secret_key=SECRET)


EVERY_EXAMPLE: Final = {
    name: partial(site, f"examples.frameworks.{name}:app")
    for names, site in ((ASGI, AsgiSite), (WSGI, WsgiSite))
    for name in names
}
