"""A real uvicorn process that serves the site, and what it says."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import httpx

from examples.visitors import USER_AGENT
from tests.accounts import Account, accounts_in
from tests.discretion import assert_discreet

ROOT: Final = Path(__file__).resolve().parents[2]
_AT_START: Final = Path(__file__).parent / "at_start"
_PATIENCE: Final = 20.0  # seconds a process gets to start or to end


class Site:
    """The site in a process of its own, on any free port.

    Args:
        endpoint: Where its tracking requests go.
        arguments: More of uvicorn's command line.
        options: ``CONVERT_*`` variables without the prefix.
    """

    server: tuple[str, ...] = ("uvicorn", "tests.end_to_end.site:app", "--port", "0")
    up = "Application startup complete"
    where = r"Uvicorn running on (http://[0-9.]+:([0-9]+))"

    def __init__(self, endpoint: str, *arguments: str, **options: str) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("CONVERT_")}
        environment |= {f"CONVERT_{name.upper()}": value for name, value in options.items()}
        environment["CONVERT_ENDPOINT"] = endpoint
        environment["PYTHONPATH"] = str(_AT_START)
        command = [sys.executable, "-m", *self.server, *arguments]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that workers can be ended together with their parent
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """End it by force if need be; nothing that it said may tell a secret, and its accounts add up."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        if self._process.stderr is not None:
            self._process.stderr.close()
        if exception[0] is None:
            assert_discreet(self._lines)
            accounts_in(self.said)

    @property
    def accounts(self) -> list[Account]:
        """What its processes that have ended in good order say of their hits."""
        return accounts_in(self.said)

    @property
    def said(self) -> str:
        """Everything the process wrote to stderr so far."""
        return "".join(self._lines)

    def address(self) -> str:
        """Wait until the site is up and return its address."""
        self.until_said(self.up)
        found = self.until_said(self.where)
        deadline = time.monotonic() + _PATIENCE
        while True:  # where there are several workers, they listen a moment after they have started
            try:
                socket.create_connection(("127.0.0.1", int(found[2])), 1.0).close()
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, f"{found[1]} never listened: {self.said}"
                time.sleep(0.01)
            else:
                return found[1]

    def until_said(self, pattern: str) -> re.Match[str]:
        """Wait until stderr holds the pattern."""
        deadline = time.monotonic() + _PATIENCE
        while (found := re.search(pattern, self.said)) is None:
            assert self._process.poll() is None, f"the site has ended: {self.said}"
            assert time.monotonic() < deadline, f"{pattern} was never said: {self.said}"
            time.sleep(0.01)
        return found

    def stop(self) -> str:
        """Ask the process to end, as a supervisor does; wait for it and return what it said."""
        self._process.terminate()
        self._process.wait(_PATIENCE)
        self._reader.join()
        return self.said

    def kill(self) -> None:
        """End the process and its workers without a warning."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_PATIENCE)

    def visitor(self, **headers: str) -> httpx.Client:
        """Return a browser that keeps cookies."""
        headers = {"User-Agent": USER_AGENT, **headers}
        return httpx.Client(base_url=self.address(), headers=headers, trust_env=False, timeout=10.0)

    def _read(self) -> None:
        stream = self._process.stderr
        if stream is not None:
            self._lines.extend(iter(stream.readline, ""))


class PreloadedSite(Site):
    """The site in four worker processes of gunicorn, forked after the application was loaded."""

    server = (
        *("gunicorn", "tests.end_to_end.site:app", "--bind", "127.0.0.1:0", "--preload"),
        *("--workers", "4", "--worker-class", "uvicorn_worker.UvicornWorker"),
    )
    up = r"(?s)(Application startup complete.*){4}"
    where = r"Listening at: (http://[0-9.]+:([0-9]+))"
