"""How fast time passes for a process on this machine: on a busy one slower than on the clock."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from typing import Final, Self

_BEAT: Final = 0.005  # seconds


class Pulse:
    """A thread that only sleeps, and notes when it got to run."""

    def __init__(self) -> None:
        self._beats: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def before(self, moment: float, seconds: float) -> float:
        """Return the moment from which on a process had ``seconds`` to run.

        Args:
            moment: On the monotonic clock.
            seconds: As many as a process has on a machine with nothing else to do.
        """
        first = bisect_left(self._beats, moment) - round(seconds / _BEAT)
        return min(moment - seconds, self._beats[max(0, first)]) if self._beats else moment - seconds

    def _run(self) -> None:
        while not self._ended.wait(_BEAT):
            self._beats.append(time.monotonic())
