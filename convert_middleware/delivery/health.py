"""How the server does: whether it is down, when it is tried again, and how long it asked everybody to wait.

It is told what came of each attempt and makes none. Time and chance are handed in.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from convert_middleware.delivery.policy import Result, Waits

if TYPE_CHECKING:
    from collections.abc import Callable

    from convert_middleware.delivery.policy import Outcome, Policy
    from convert_middleware.hooks import Announcer


class Health:
    """What attempts tell of the server. Times are in seconds since the epoch.

    Args:
        policy: How many failures in a row mean that it is down, and how long to wait then.
        announcer: Whom to tell when it goes down and comes back.
        dice: Returns random numbers from 0 to 1, for jitter.

    Attributes:
        failed: Failures ever counted.
        probe_at: When a server that is down may be tried again.
        longest: Seconds that a pause takes at most; cut when the end is near.
    """

    def __init__(self, policy: Policy, announcer: Announcer, dice: Callable[[], float]) -> None:
        self._policy = policy
        self._announcer = announcer
        self._dice = dice
        self._failures = 0  # in a row
        self._waits = Waits()
        self.failed = 0
        self.probe_at = 0.0
        self.longest = math.inf

    @property
    def down(self) -> bool:
        """Whether one attempt at a time has to do."""
        return self._failures >= self._policy.trip_after

    def move(self, seconds: float) -> None:
        """Take note that the clock was set to another time, so much later."""
        self.probe_at += seconds
        self._waits.move(seconds)

    def waited(self, begin: float, end: float) -> float:
        """Return for how many of these seconds the server asked everybody to wait."""
        return self._waits.between(begin, end)

    def note(self, outcome: Outcome, attempts: int, now: float, *, news: bool) -> None:
        """Count failures in a row, and tell when the server goes down and comes back.

        Args:
            outcome: What came of an attempt.
            attempts: How often that hit was tried.
            now: Seconds since the epoch.
            news: Whether no other attempt failed since this one began.
        """
        was_down = self.down
        asked = self._policy.pause(0, outcome.retry_after, self._dice())  # with what spreads the return
        if outcome.result in (Result.DELIVERED, Result.REJECTED):
            self._failures = 0
            if was_down:
                self._waits.end(now)
                self._announcer.log(logging.WARNING, "up", "The tracking server answers again.")
            return
        if attempts > 1 and not was_down and outcome.result in (Result.REFUSED, Result.AMBIGUOUS):
            return  # a hit that fails again and again says nothing of the others
        if was_down and not news:  # a burst that fails together is one moment of trouble, not many probes
            self.probe_at = max(self.probe_at, now + min(asked, self.longest))
            self._waits.ask(now, asked)
            return
        self._failures += 1
        self.failed += 1
        if outcome.result is Result.UNAUTHORISED:
            self._failures = max(self._failures, self._policy.trip_after)
        if not self.down:
            return
        delay = self._policy.backoff(self._failures - self._policy.trip_after + 1, self._dice())
        self.probe_at = now + min(delay + asked, self.longest)
        self._waits.ask(now, asked)
        if outcome.result is Result.UNAUTHORISED:
            message = "The tracking server answers %s: check project_id and customer_id. Hits wait meanwhile."
            self._announcer.log(logging.ERROR, "unauthorised", message, outcome.reason)
        elif not was_down:
            message = "The tracking server is down (%s); hits wait."
            self._announcer.log(logging.WARNING, "down", message, outcome.reason)
