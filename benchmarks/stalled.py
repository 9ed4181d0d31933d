"""A tracking server that takes connections and never answers, and a tracker that waits for it."""

from __future__ import annotations

import logging
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from convert_middleware import Settings, Tracker
from convert_middleware.delivery.worker import LANES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from convert_middleware import Stats
    from convert_middleware.delivery import Counts

_PATIENCE: Final = 10.0  # seconds delivery gets to start


@contextmanager
def stalled_server() -> Iterator[str]:
    """Yield its endpoint. The system takes the connections; nobody reads what arrives."""
    logger = logging.getLogger("convert_middleware")
    disabled, logger.disabled = logger.disabled, True  # it says, rightly, that the server is down
    try:
        with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/track/"
    finally:
        logger.disabled = disabled


def wait_for_lanes(counts: Callable[[], Counts | Stats]) -> None:
    """Wait until delivery has begun and has nothing more to do than to wait for the server."""
    deadline = time.monotonic() + _PATIENCE
    while counts().in_flight < LANES:
        if time.monotonic() > deadline:
            raise RuntimeError("delivery did not start")
        time.sleep(0.01)


@contextmanager
def stalled_tracker(secret: str) -> Iterator[Tracker]:
    """Yield a tracker whose hits all wait, so that its delivery thread sleeps."""
    with stalled_server() as endpoint:
        tracker = Tracker(
            Settings(project_id=10025986, customer_id=100123, secret_key=secret, endpoint=endpoint)
        )
        try:
            yield tracker
        finally:
            tracker.close(0)
