"""Real processes with an outbox in a file, driven line by line."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

PATIENCE: Final = 30.0  # seconds a process gets to end
_START: Final = """
import asyncio, os, resource, signal, sys, time
from convert_middleware.delivery import Entry, Worth
from convert_middleware.delivery.sqlite import SqliteOutbox
from convert_middleware.errors import OutboxError

PATH = sys.argv[1]
loop = asyncio.new_event_loop()

def run(coroutine):
    return loop.run_until_complete(coroutine)

def hits(first, number):
    return [Entry(f"hit {n} " + "x" * 300, Worth.GOAL, time.time()) for n in range(first, first + number)]

def say(*words):
    print(*words, flush=True)
"""


@dataclass(frozen=True, slots=True)
class Child:
    """A process under way."""

    process: subprocess.Popen[str]

    def line(self) -> str:
        """Return the next line it says; empty when it ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, line: str = "") -> None:
        """Send it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """End it without giving it a chance to notice."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def rest(self) -> list[str]:
        """Return what it says until it ends, which it must do well."""
        assert self.process.stdout is not None
        lines = self.process.stdout.read().splitlines()
        assert self.process.wait(PATIENCE) == 0
        return lines


@contextmanager
def child(path: object, script: str) -> Iterator[Child]:
    """Run a script with ``PATH``, ``hits(first, number)``, ``run`` and ``say`` at hand."""
    with subprocess.Popen(
        [sys.executable, "-c", _START + textwrap.dedent(script), str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield Child(process)
        finally:
            process.kill()
