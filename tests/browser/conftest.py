"""A real Chromium, a small shop in a real server, and Convert behind it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from tests.asgi.conftest import Convert
from tests.browser.shop import Shop
from tests.chromium import SWITCHES, chromium_path
from tests.servers import TrackingServer

if TYPE_CHECKING:  # collected, and deselected, where Playwright is not installed
    import ssl

    from playwright.sync_api import Browser, Playwright

    from tests.servers import Authority


@pytest.fixture(scope="module")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    """A browser that keeps pages for the back button, as it does outside of tests."""
    browser = playwright.chromium.launch(
        executable_path=chromium_path(),
        args=SWITCHES,
        ignore_default_args=["--disable-back-forward-cache"],
    )
    yield browser
    browser.close()


@contextmanager
def served(app: Any, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve an application in a thread and yield its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", ws="none")
    config.load()
    config.ssl = tls
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def convert() -> Iterator[Convert]:
    """Convert; afterwards every hit is accounted for."""
    with TrackingServer() as server:
        convert = Convert(server)
        yield convert
        convert.check_accounts()


@pytest.fixture
def open_shop(convert: Convert, authority: Authority) -> Iterator[Callable[..., Shop]]:
    """Open shops, with options of ours; over https where told so."""
    with ExitStack() as stack:

        def open_(*, https: bool = False, **options: Any) -> Shop:
            shop = Shop(convert.tracker(**options))
            shop.url = stack.enter_context(served(shop.app, authority.server() if https else None))
            return shop

        yield open_
