"""What is done after an attempt: rules, then a table, then a decision.

A request that certainly was not processed may be sent again; one that may have been must not be, because the
server cannot recognise a repeat (PROTOCOL, "What a repeated or lost request does"). The policy returns a
decision and carries nothing out; time and chance are handed in.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from enum import StrEnum
from typing import Final, Literal

MAX_AGE: Final = 3600.0  # seconds; the request has no time stamp, so late hits are booked when they arrive
MAX_RETRY_AFTER: Final = 3600.0  # seconds
SPREAD: Final = 0.1  # of what a server asks us to wait: those whom it told the same come back one by one
MAX_WAITED: Final = 86_400.0  # seconds a server may ask us to wait in all, on top of the age budget
MAX_WAITS: Final = 1_000  # times that the server asked everybody to wait which are remembered


class Result(StrEnum):
    """How an attempt ended."""

    DELIVERED = "delivered"
    NOT_SENT = "not_sent"  # no byte of the request left
    REFUSED = "refused"  # answered, and by all likelihood not recorded
    UNAUTHORISED = "unauthorised"  # answered 401, 403 or 407: a matter of configuration, for everybody
    AMBIGUOUS = "ambiguous"  # the request left and what became of it is unknown
    REJECTED = "rejected"  # answered: never


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt.

    Attributes:
        result: How it ended.
        reason: What happened, in a few words and without anything of the request.
        retry_after: Seconds the server asked us to wait, if it did.
    """

    result: Result
    reason: str
    retry_after: float | None = None


class Action(StrEnum):
    """What is done with a hit."""

    SETTLE = "settle"
    RETRY = "retry"
    DROP = "drop"
    BURY = "bury"


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done with a hit, why, and for a retry after how many seconds."""

    action: Action
    reason: str
    delay: float = 0.0


_STATUS: Final = {
    401: Result.UNAUTHORISED,
    403: Result.UNAUTHORISED,
    407: Result.UNAUTHORISED,  # by a proxy
    408: Result.REFUSED,
    425: Result.REFUSED,
    429: Result.REFUSED,
    500: Result.REFUSED,
    502: Result.REFUSED,
    503: Result.REFUSED,
    504: Result.AMBIGUOUS,
}


def result_of_status(status: int) -> Result:
    """Return what a response's status says: 2xx alone is success (PROTOCOL, section 1, gap 7)."""
    if 200 <= status < 300:
        return Result.DELIVERED
    return _STATUS.get(status, Result.AMBIGUOUS if status >= 500 else Result.REJECTED)


def retry_after(value: str, now: float) -> float | None:
    """Return the seconds that a Retry-After header asks for, 0 to 3 600; None if it makes no sense.

    Args:
        value: The header: seconds or an HTTP date (RFC 9110, section 10.2.3).
        now: Seconds since the epoch.
    """
    text = value.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:18])
    else:
        parsed = parsedate_tz(text)
        if parsed is None:
            return None
        try:
            seconds = mktime_tz(parsed) - now
        except (OverflowError, ValueError):
            return None
    if math.isnan(seconds):
        return None
    return max(0.0, min(seconds, MAX_RETRY_AFTER))


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When to try again.

    Attributes:
        on_ambiguous: "drop": what may have been counted is never sent again; "retry": it is.
        first_delay: Upper limit of the first wait in seconds; doubled with every attempt.
        max_delay: Upper limit of any wait of ours in seconds.
        max_age: Seconds after which a hit is given up.
        trip_after: Failures in a row after which the server counts as down.
    """

    on_ambiguous: Literal["drop", "retry"] = "drop"
    first_delay: float = 0.5
    max_delay: float = 60.0
    max_age: float = MAX_AGE
    trip_after: int = 3

    def decide(self, outcome: Outcome, attempts: int, age: float, dice: float) -> Decision:
        """Return what to do with a hit.

        Args:
            outcome: Of the attempt just made.
            attempts: How many were made, this one included.
            age: Seconds since the hit was accepted, without those the server asked us to wait.
            dice: A random number from 0 to 1: full jitter.
        """
        result, reason = outcome.result, outcome.reason
        if result is Result.DELIVERED:
            return Decision(Action.SETTLE, reason)
        if result is Result.REJECTED:
            return Decision(Action.BURY, reason)
        if result is Result.AMBIGUOUS and self.on_ambiguous == "drop":
            return Decision(Action.DROP, "ambiguous")
        if self.expired(age):
            return Decision(Action.DROP, "expired")
        return Decision(Action.RETRY, reason, self.pause(attempts, outcome.retry_after, dice))

    def expired(self, age: float) -> bool:
        """Tell whether a hit of this age is given up."""
        return age > self.max_age

    def pause(self, failures: int, retry_after: float | None, dice: float) -> float:
        """Return the seconds to wait after so many failures in a row, at least those the server asked for.

        Args:
            failures: How many; 0: only the server's wish counts.
            retry_after: Seconds the server asked us to wait, if it did.
            dice: A random number from 0 to 1.
        """
        ours = self.backoff(failures, dice) if failures else 0.0
        return ours + (retry_after or 0.0) * (1.0 + SPREAD * dice)

    def backoff(self, failures: int, dice: float) -> float:
        """Return the seconds to wait after so many failures in a row: exponential, full jitter, capped."""
        return dice * min(self.max_delay, self.first_delay * 2.0 ** min(failures - 1, 30))


class Waits:
    """When the server asked everybody to wait: time that counts against no hit's age.

    It was asked of one hit, and all others wait behind that one's next attempt. Times are in seconds since
    the epoch.
    """

    def __init__(self) -> None:
        self._begins: list[float] = []
        self._ends: list[float] = []
        self._before: list[float] = []  # seconds in all spans before this one

    def ask(self, now: float, seconds: float) -> None:
        """Take note that the server asked for so many seconds from ``now`` on."""
        if self._ends and now <= self._ends[-1]:
            self._ends[-1] = max(self._ends[-1], now + seconds)
        elif seconds > 0:
            self._before.append(self._until(now))
            self._begins.append(now)
            self._ends.append(now + seconds)
            if len(self._begins) > MAX_WAITS:
                del self._begins[0], self._ends[0], self._before[0]

    def end(self, now: float) -> None:
        """Take note that the server answers again, earlier perhaps than it said."""
        if self._ends:
            self._ends[-1] = max(self._begins[-1], min(self._ends[-1], now))

    def move(self, seconds: float) -> None:
        """Take note that the clock by which all this was noted is set to another time, so much later."""
        self._begins = [begin + seconds for begin in self._begins]
        self._ends = [end + seconds for end in self._ends]

    def between(self, begin: float, end: float) -> float:
        """Return for how many of these seconds everybody was asked to wait."""
        return self._until(end) - self._until(begin) if self._begins else 0.0

    def _until(self, moment: float) -> float:
        place = bisect_right(self._begins, moment) - 1
        if place < 0:
            return self._before[0] if self._before else 0.0
        return self._before[place] + min(moment, self._ends[place]) - self._begins[place]
