"""The processes that chaos is let loose on, and the visitors who keep them busy."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple, Self
from urllib.parse import urlsplit

from examples.visitors import USER_AGENT
from tests.chaos.told import Told, read
from tests.cli.programs import Working, worker
from tests.end_to_end.process import Site

if TYPE_CHECKING:
    from random import Random

_THINKING: Final = 0.01  # seconds between two requests of a visitor
_ANSWER: Final = 5.0  # seconds a visitor waits


class ChaosSite(Site):
    """The site of this package."""

    server = ("uvicorn", "tests.chaos.site:app", "--port", "0", "--log-level", "info", "--no-access-log")

    @property
    def pid(self) -> int:
        """The process that starts the others."""
        return self._process.pid

    @property
    def lines(self) -> list[str]:
        """What was said so far."""
        return list(self._lines)


class Crowd:
    """Sites and workers on one outbox.

    Args:
        outbox: URL of the outbox.
        endpoint: Where hits go.
        sites: How many sites there are.
        processes: How many processes each has.
        workers: How many workers send for them; none: they send themselves.
    """

    def __init__(self, outbox: str, endpoint: str, *, sites: int, processes: int, workers: int) -> None:
        self._outbox, self._endpoint = outbox, endpoint
        self._stack = ExitStack()
        self.dead: dict[int, float] = {}  # processes that were killed, and when, on the monotonic clock
        self._workers: list[Working] = []
        self._gone: list[Working] = []
        self._number = workers
        self._processes = processes
        options = {"outbox": outbox, "drain_timeout": "15"} | ({"deliver": "false"} if workers else {})
        self._sites = [ChaosSite(endpoint, "--workers", str(processes), **options) for _ in range(sites)]

    def __enter__(self) -> Self:
        for site in self._sites:
            site.up = rf"(?s)(Application startup complete.*){{{self._processes}}}"
            self._stack.enter_context(site)
        self.tend()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def addresses(self) -> list[str]:
        """Wait for the sites and return where they are."""
        return [site.address() for site in self._sites]

    def tend(self) -> None:
        """Start workers in place of those that were killed; sites start their processes anew themselves."""
        self._gone += [each for each in self._workers if each.process.poll() is not None]
        self._workers = [each for each in self._workers if each.process.poll() is None]
        while len(self._workers) < self._number:
            arguments = ("--outbox", self._outbox, "--endpoint", self._endpoint, "--json", "--report", "0.5")
            self._workers.append(self._stack.enter_context(worker(*arguments)))

    def kill_one(self, dice: Random) -> bool:
        """Kill one of the processes that record or send, unless it is the last one of its kind."""
        kinds = [[each.process.pid for each in self._workers if each.process.poll() is None]]
        for site in self._sites:
            begun = set(read(site.lines).begun) - set(self.dead)
            kinds.append([pid for pid in sorted(begun) if _belongs(pid, site.pid)])
        victims = [pid for kind in kinds if len(kind) > 1 for pid in kind]
        if victims:
            victim = dice.choice(victims)
            self.dead[victim] = time.monotonic()
            os.kill(victim, signal.SIGKILL)
        return bool(victims)

    def stop(self) -> None:
        """End everything in good order."""
        for site in self._sites:
            site.stop()
        for each in self._workers:
            each.signal(signal.SIGTERM)
            each.end()

    def told(self) -> Told:
        """Return what the sites told, and add what the workers reported last."""
        told = read([line for site in self._sites for line in site.lines])
        for each in (*self._gone, *self._workers):
            reports = [record for record in each.records if "delivered" in record]
            if reports:
                last = reports[-1]
                told.ends.update(delivered=last["delivered"], dead=last["dead"])
                told.ends.update(last["dropped"])
        return told


def _belongs(pid: int, site: int) -> bool:
    """Tell whether a process is alive and of this site."""
    try:
        return os.getpgid(pid) == site
    except ProcessLookupError:
        return False


class Recorded(NamedTuple):
    """A page that was answered 200: the hit it recorded, in which process, and when it was answered."""

    number: int
    pid: int
    at: float


class Visitors:
    """Ask for one page after the other until told to end, each a new visitor."""

    def __init__(self, addresses: list[str], number: int = 6) -> None:
        self.log: list[Recorded] = []
        self._numbers = count(1)
        self._ended = threading.Event()
        places = [urlsplit(address).netloc for address in addresses]
        self._threads = [
            threading.Thread(target=self._visit, args=(places[each % len(places)],)) for each in range(number)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _visit(self, place: str) -> None:
        while not self._ended.wait(_THINKING):
            number = next(self._numbers)
            line = http.client.HTTPConnection(place, timeout=_ANSWER)
            try:
                line.request("GET", f"/{number}", headers={"User-Agent": USER_AGENT})
                answer = line.getresponse()
                pid, new = answer.read().decode().split()
                if answer.status == 200 and new == "True":
                    self.log.append(Recorded(number, int(pid), time.monotonic()))
            except (OSError, ValueError, http.client.HTTPException):
                continue  # its process was killed, or none has taken the place yet
            finally:
                line.close()
