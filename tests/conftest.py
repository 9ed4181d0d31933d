"""What every test stands on: a server that misbehaves on demand, and a house that is clean afterwards."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import settings

from tests.discretion import assert_discreet, overheard
from tests.servers import Authority, TrackingServer

if TYPE_CHECKING:  # installed where there is a browser
    from playwright.sync_api import Playwright

_FILES: Final = Path("/proc/self/fd")  # only Linux tells
_LEAVING: Final = 3.0  # seconds that threads and processes get to end after a test

settings.register_profile("default", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=200, deadline=None, derandomize=False, print_blob=True)


def pytest_configure(config: pytest.Config) -> None:
    """Take the thorough profile where CI says so, unless the command line names one; hear of SIGINT."""
    if not config.getoption("--hypothesis-profile", None):
        settings.load_profile("ci" if os.environ.get("CI") else "default")
    # A shell has what it starts in the background ignore SIGINT, and programs that tests start inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """After each test no thread of ours or that keeps a process alive is left, no child, no open file."""
    before = _threads(), _children(), _open_files()
    yield
    deadline = time.monotonic() + _LEAVING
    while left := _left_behind(*before):
        assert time.monotonic() < deadline, f"left behind: {left}"
        gc.collect()  # what only a cycle keeps, such as that of an expected error with its frames
        time.sleep(0.01)  # an end cannot be waited for without reaping what is not ours


@pytest.fixture
def nothing_is_told() -> Iterator[None]:
    """After the test no line of any logger, down to DEBUG, has told a secret."""
    with overheard() as lines:
        yield
    assert_discreet(lines)


@pytest.fixture
def tracking_server() -> Iterator[TrackingServer]:
    """A server that answers 200 until it is told otherwise."""
    with TrackingServer() as server:
        yield server


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """What drives Chromium; a thread has room for one, because its event loop seems to run meanwhile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A certificate authority with a file of its own."""
    return Authority(tmp_path)


def _left_behind(threads: set[object], children: set[object], files: set[object]) -> set[object]:
    open_now = _open_files()
    more = open_now - files if len(open_now) > len(files) else set()
    return (_threads() - threads) | (_children() - children) | more


def _threads() -> set[object]:
    return {each for each in threading.enumerate() if not each.daemon or each.name == "convert_middleware"}


def _open_files() -> set[object]:
    """Return the sockets and files; pipes and the like are opened once a process by some libraries."""
    found: set[object] = set()
    for path in _FILES.glob("*"):
        try:
            what = str(path.readlink())
        except OSError:  # that of the search itself
            continue
        if what.startswith(("socket:", "/")):
            found.add(f"file {path.name}: {what}")
    return found


def _children() -> set[object]:
    lists = Path("/proc/self/task").glob("*/children")  # only Linux tells; elsewhere there is nothing to read
    found: set[object] = set()
    for path in lists:
        try:
            found |= {f"process {number}" for number in path.read_text().split()}
        except OSError:  # the thread has just ended
            continue
    return found
