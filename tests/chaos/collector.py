"""A tracking server of changing moods, which keeps the log that counts."""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from tests.servers import (
    Behaviour,
    Seen,
    TrackingServer,
    after,
    answer,
    broken_head,
    close,
    garbage,
    reset,
    stall,
)

if TYPE_CHECKING:
    from random import Random

REFUSED, TAKEN, DEAD, DOUBT = "refused", "taken", "dead", "doubt"  # what the server did with a request
_NUMBER: Final = re.compile(r"[?&]g=(\d+)|order (\d+)")
_MOODS: Final = {  # shares of what is not answered 200 at once
    "well": {"busy": 0.03, "reset": 0.01, "slow": 0.01, "never": 0.02},
    "refusing": {"busy": 0.5, "later": 0.5},
    "resetting": {"reset": 0.2, "broken": 0.1, "garbage": 0.05},
    "stalling": {"stall": 0.15, "slow": 0.3, "busy": 0.1},
}
_OFTEN: Final = ("well", "well", "well", "refusing", "resetting", "stalling")


def number_of(target: str) -> int:
    """Return which hit a request brings."""
    found = _NUMBER.search(unquote(target))
    assert found is not None, f"a request of nobody's: {target}"
    return int(found[1] or found[2])


class Collector(TrackingServer):
    """Refuses, stalls and resets at random, and knows what it did with each request.

    Args:
        dice: Decides everything.
        patience: Seconds of the longest pause it makes before it resets; over 10 the client gives up first.
    """

    def __init__(self, dice: Random, patience: float) -> None:
        super().__init__(default=self._choose)
        self._dice = dice
        self._patience = patience
        self._mood, self._until = "well", 0.0
        self._log_lock = threading.Lock()
        self._log: dict[int, list[str]] = defaultdict(list)
        self._calm = False

    def calm(self) -> None:
        """From now on answer 200 at once."""
        self._calm = True

    def log(self) -> dict[int, list[str]]:
        """Return what was done with the requests of each hit, in the order they came."""
        with self._log_lock:
            return {number: list(done) for number, done in self._log.items()}

    def _choose(self, seen: Seen) -> Behaviour:
        done, behaviour = self._decide()
        with self._log_lock:
            self._log[number_of(seen.target)].append(done)
        return behaviour

    def _decide(self) -> tuple[str, Behaviour]:
        if self._calm:
            return TAKEN, answer(200)
        if (now := time.monotonic()) > self._until:
            self._mood, self._until = self._dice.choice(_OFTEN), now + self._dice.uniform(0.2, 1.0)
        dice = self._dice.random()
        for what, share in _MOODS[self._mood].items():
            dice -= share
            if dice < 0:
                return self._do(what)
        return TAKEN, answer(200)

    def _do(self, what: str) -> tuple[str, Behaviour]:
        pause = self._dice.uniform(0.05, self._patience)
        return {
            "busy": (REFUSED, answer(503)),
            "later": (REFUSED, answer(503, {"Retry-After": self._dice.choice("012")})),
            "never": (DEAD, answer(410)),
            "slow": (TAKEN, after(min(pause, 1.0))),
            "reset": (DOUBT, self._dice.choice([reset(), close()])),
            "broken": (DOUBT, broken_head()),
            "garbage": (DOUBT, garbage()),
            "stall": (DOUBT, stall() if pause > 10 else after(pause, reset())),
        }[what]
