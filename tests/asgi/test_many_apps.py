"""Many applications in one process, as a test run builds them."""

from __future__ import annotations

import gc
import os
import threading
import warnings
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from convert_middleware import ConvertMiddleware, MemoryOutbox
from tests.delivery.conftest import until

from .conftest import warnings_of
from .drive import ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from .conftest import Convert

FILES = Path("/proc/self/fd")


async def home(request: Request) -> PlainTextResponse:
    request.state.convert.goal(331)
    return PlainTextResponse("home")


def site(convert: Convert) -> Starlette:
    """Return the shop as its own test suite makes it: new for every test, never closed."""
    app = Starlette(routes=[Route("/", home)])
    app.add_middleware(ConvertMiddleware, **convert.options(outbox=MemoryOutbox(), hooks=[]))
    return app


def open_files() -> int:
    return len(os.listdir(FILES)) if FILES.exists() else 0  # noqa: PTH208 - as few files open as possible


@pytest.fixture
def doors() -> Callable[[], int]:
    """Return what counts the doors that are alive, without those of other tests."""

    def alive() -> list[Any]:
        return [each for each in gc.get_objects() if type(each) is ConvertMiddleware]

    others = weakref.WeakSet(alive())
    return lambda: sum(each not in others for each in alive())


def test_a_thousand_apps_that_are_built_start_and_leave_nothing(
    convert: Convert, doors: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    threads = threading.active_count()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gone = []
        for _ in range(1000):
            app = site(convert)
            app.build_middleware_stack()
            gone.append(weakref.ref(app))
            del app
        assert threading.active_count() <= threads
        gc.collect()
    assert not any(reference() for reference in gone)
    assert doors() == 0
    assert warnings_of(caplog) == []


def test_apps_that_nobody_closes_deliver_and_leave_no_thread_and_no_file(
    convert: Convert, doors: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    ask(site(convert))  # what is loaded once for all is loaded
    gc.collect()
    until(lambda: doors() == 0)
    convert.server.until(lambda: convert.server.open == 0)
    threads, files = threading.active_count(), open_files()

    for _ in range(50):
        answer = ask(site(convert))
        assert len(answer.cookies()) == 1
    gc.collect()

    until(lambda: len(convert.server.targets) == 51)
    until(lambda: threading.active_count() <= threads)
    convert.server.until(lambda: convert.server.open == 0)
    until(lambda: open_files() <= files)
    assert doors() == 0
    assert warnings_of(caplog) == []
