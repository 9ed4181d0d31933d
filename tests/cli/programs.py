"""The command in processes of its own, and hits for it to send."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from convert_middleware.delivery import Entry, Worth
from convert_middleware.delivery.sqlite import SqliteOutbox
from convert_middleware.delivery.upkeep import Status, open_upkeep

PATIENCE: Final = 20.0  # seconds for a process to do or say something
ROOT: Final = Path(__file__).resolve().parents[2]
_COMMAND: Final = (sys.executable, "-m", "convert_middleware")


def environment(**options: str) -> dict[str, str]:
    """Return the environment of this process, with ``CONVERT_*`` variables of these names only."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("CONVERT_")}
    return kept | {f"CONVERT_{name.upper()}": text for name, text in options.items()} | {"COLUMNS": "200"}


def command(*arguments: str, given: str = "", **options: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    Args:
        arguments: What follows the program's name.
        given: Its standard input.
        options: ``CONVERT_*`` variables without the prefix.
    """
    return subprocess.run(
        [*_COMMAND, *arguments],
        input=given,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(**options),
        timeout=PATIENCE,
        check=False,
    )


def asked(*arguments: str, **options: str) -> Any:
    """Run a command that must do well and return the JSON it writes."""
    done = command(*arguments, "--json", **options)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def status_of(outbox: str) -> Status:
    """Return the status of an outbox without a process of its own."""

    async def story() -> Status:
        upkeep = open_upkeep(outbox)
        try:
            return await upkeep.status()
        finally:
            await upkeep.close()

    return asyncio.run(story())


class Working:
    """A worker under way."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.complaints = ""  # what it logged, after its end
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition, as long as the process lives."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, f"it has ended: {self.lines[-5:]}"
            assert time.monotonic() < deadline, f"it never came: {self.lines[-5:]}"
            time.sleep(0.01)  # what another process does cannot be waited for otherwise

    def until_said(self, word: str) -> None:
        """Wait until it says a word."""
        self.until(lambda: any(word in line for line in self.lines))

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for its end and return its exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self.process.stderr is not None
        self.complaints = self.process.stderr.read()
        return code

    @property
    def records(self) -> list[Any]:
        """What it said in JSON."""
        return [json.loads(line) for line in self.lines]


@contextmanager
def worker(*arguments: str, **options: str) -> Iterator[Working]:
    """Run a worker that has started to look for hits."""
    with subprocess.Popen(
        [*_COMMAND, "worker", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(**options),
    ) as process:
        try:
            working = Working(process)
            working.until_said("started")
            yield working
        finally:
            process.kill()
            process.wait(PATIENCE)


def hits(numbers: range, project: int = 1) -> list[Entry]:
    """Return hits that tell of a goal each."""
    return [Entry(f"c=2&p={project}&g={n}&ga=1", Worth.GOAL, time.time()) for n in numbers]


def fill(path: Path, entries: list[Entry], *, dead: str = "") -> None:
    """Put hits into an outbox, as a site does; with a reason as dead letters."""

    async def story() -> None:
        outbox = SqliteOutbox(path)
        await outbox.put(entries)
        for entry in await outbox.take(len(entries), time.time()) if dead else ():
            entry.attempts += 1
            await outbox.bury(entry, dead)
        await outbox.close()

    asyncio.run(story())
