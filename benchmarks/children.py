"""Child processes that measure or are measured: started on a core of their own, ended for certain.

A child speaks JSON, one value a line, over its standard input and output. It ends when its input ends, so
none is left behind even if this process is killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ROOT: Final = Path(__file__).resolve().parent.parent
_PATIENCE: Final = 10.0  # seconds a child gets to end by itself


def installed(names: Iterable[str]) -> list[str]:
    """Return the names without those that need a library which is not there."""
    kept = list(names)
    for library in ("httpx2", "pyreqwest"):
        if find_spec(library) is None:
            print(f"{library} is not installed, so nothing is measured with it", file=sys.stderr)
            kept = [name for name in kept if library not in name]
    return kept


def cores() -> tuple[int, int] | None:
    """Return two cores, the first for what is measured and the other for the world outside.

    None where there is only one, or where the system cannot pin processes: then nothing is pinned.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    available = sorted(os.sched_getaffinity(0))
    return (available[0], available[1]) if len(available) > 1 else None


class Child:
    """A running child."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._input: IO[str] = _there(process.stdin)
        self._output: IO[str] = _there(process.stdout)

    def ask(self, question: Any = None) -> Any:
        """Send a line and return the answer; without a question, wait for the first line."""
        if question is not None:
            self._input.write(json.dumps(question) + "\n")
            self._input.flush()
        line = self._output.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended too early")
        return json.loads(line)

    def end(self) -> None:
        """End the child; one that does not end by itself is killed."""
        self._input.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()


@contextmanager
def child(module: str, *arguments: object, core: int | None = None) -> Iterator[Child]:
    """Run a module of this package as a child and end it afterwards.

    Args:
        module: Its name within the package.
        arguments: Its command line.
        core: The core it is pinned to; None: any.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CONVERT_")}
    process = subprocess.Popen(
        command,
        cwd=_ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    running = Child(process)
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        yield running
    finally:
        running.end()


def say(value: Any) -> None:
    """In a child: answer the parent."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _there(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise RuntimeError("the child has no pipe")
    return stream
