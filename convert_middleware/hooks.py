"""Events, and announcing them without ever harming who announces.

A hook is any callable that takes one frozen event. Hooks see events and nothing else; events carry a visitor
only as a short hash. Time is handed in. This module decides how often something may be logged.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2s
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from decimal import Decimal
    from types import CodeType

LOG_PERIOD: Final = 60.0  # seconds between two log lines of one kind
MAX_FAILURES: Final = 10  # in a row, after which a hook is switched off

logger: Final = logging.getLogger("convert_middleware")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitorEvent(Event):
    """Something that happened to a visitor, named by a short hash of the visitor id."""

    visitor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureRecorded(VisitorEvent):
    """A visitor was presented an experiment for the first time, and the response was sent."""

    experiment_id: int
    variation_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalReached(VisitorEvent):
    """A visitor reached a goal for the first time."""

    goal_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionRecorded(VisitorEvent):
    """An order was recorded. Its id and value are not part of the repr, so that no log shows them."""

    goal_ids: tuple[int, ...]
    transaction_id: str = field(repr=False)
    value: Decimal = field(repr=False)
    products: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VariationConflict(VisitorEvent):
    """A handler asked for another variation than the one the visitor has; the first one stays."""

    experiment_id: int
    kept: int
    asked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitorForgotten(VisitorEvent):
    """A handler called ``forget()``: the cookie is deleted and nothing of this request is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TooLateForCookie(VisitorEvent):
    """A visitor without a cookie was recorded after the response had begun, which can set none any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateEvicted(VisitorEvent):
    """A cookie would have become too long; the oldest parts of the state were let go."""

    transactions: int
    experiments: int
    goals: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryLeftOut(VisitorEvent):
    """A request would be too long; this many old goals, triplets and goals of triplets were left out."""

    pieces: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentRejected(Event):
    """A handler recorded something impossible and ``strict`` is off."""

    argument: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieRejected(Event):
    """A browser sent a visitor cookie that is no valid state."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserPartsIgnored(Event):
    """The cookie of Convert's own script held so many parts that made no sense; the rest of it was read."""

    parts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestExcluded(Event):
    """A request asked for a visitor's state and is not counted; ``reason`` such as ``"gpc"`` says why."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitorWithdrew(VisitorEvent):
    """A visitor who was counted before denies consent: the cookie is deleted, what waits is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheGuarded(Event):
    """A response that is one visitor's own was open to shared caches and was made private."""

    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HitFlushed(VisitorEvent):
    """A hit was handed over for delivery."""

    new_exposures: int
    new_goals: int
    transaction: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HitDelivered(Event):
    """Convert took a hit; ``age`` is seconds since it was handed over."""

    attempts: int
    age: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HitRetried(Event):
    """An attempt failed and another one will follow after ``delay`` seconds."""

    reason: str
    attempts: int
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HitDropped(Event):
    """Hits were given up, counted under ``reason``, as many as ``number`` says; each is announced once.

    What has no room or is left at the end is found some moments later, many hits at a time.
    """

    reason: str
    number: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HitDead(Event):
    """Convert will never take a hit; ``reason`` says why, redacted."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxSetAside(Event):
    """The file in which hits waited was broken; it has the name ``file`` now, and a new one was begun."""

    file: str


Hook = Callable[[Event], object]


def visitor_hash(visitor_id: str) -> str:
    """Return the 8 hexadecimal digits that stand for a visitor in events."""
    return blake2s(visitor_id.encode(), digest_size=4).hexdigest()


class Announcer:
    """Calls the hooks in order, isolated from each other and from the caller, and logs within limits.

    Args:
        hooks: Callables; each may also have ``shutdown()`` and ``force_flush(timeout)``.
        clock: Returns seconds; only differences are used.
    """

    def __init__(self, hooks: Sequence[Hook], clock: Callable[[], float]) -> None:
        self._hooks = list(hooks)
        self._failures = dict.fromkeys(range(len(self._hooks)), 0)
        self._clock = clock
        self._logged: dict[str, tuple[float, int]] = {}  # kind -> when, how many left out since
        self._busy = threading.local()
        self.active = bool(self._hooks)

    def announce(self, event: Event) -> None:
        """Hand ``event`` to every hook; what a hook causes itself is not announced."""
        if not self.active:
            return
        with self._once("announcing") as first:
            if first:
                for number in list(self._failures):
                    self._call(number, lambda hook: hook(event))

    def force_flush(self, deadline: float) -> None:
        """Ask the hooks that buffer to hand everything on.

        Args:
            deadline: Of the clock; each hook gets the seconds that are left until then.
        """
        for number in list(self._failures):
            left = max(0.0, deadline - self._clock())
            self._call(number, partial(_flush, left))

    def shutdown(self) -> None:
        """Tell the hooks that no event follows, and say what was not logged."""
        for kind, (when, left_out) in list(self._logged.items()):
            if left_out:
                self._logged[kind] = when, 0
                with suppress(Exception):
                    logger.warning("%d log lines of the kind %r were left out.", left_out, kind)
        for number in list(self._failures):
            self._call(number, lambda hook: getattr(hook, "shutdown", _nothing)())

    def log(self, level: int, kind: str, message: str, *args: object) -> None:
        """Log a line, but at most one of its kind in a minute, and none that logging itself causes."""
        with self._once("logging") as first:
            if not first:
                return
            now = self._clock()
            last, left_out = self._logged.get(kind, (float("-inf"), 0))
            if now - last < LOG_PERIOD:
                self._logged[kind] = last, left_out + 1
                return
            self._logged[kind] = now, 0
            if left_out:
                message = f"{message} ({left_out} more of this kind since the last line)"
            with suppress(Exception):  # a handler or filter of the site's own may raise anything
                logger.log(level, message, *args)

    def _call(self, number: int, call: Callable[[Hook], object]) -> None:
        hook = self._hooks[number]
        try:
            call(hook)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise  # somebody at the keyboard means it; no other thread ever hears of that
            failures = self._failures[number] = self._failures.get(number, 0) + 1
            name = getattr(hook, "__qualname__", type(hook).__qualname__)
            self.log(
                logging.ERROR, f"hook {number}", "The hook %s raised %s in %s; it was ignored.",
                name, type(error).__name__, _place_of(error),
            )  # fmt: skip
            if failures >= MAX_FAILURES:
                self._failures.pop(number, None)
                self.active = bool(self._failures)
                self.log(
                    logging.ERROR, f"hook {number} off", "The hook %s failed %d times in a row; it is off.",
                    name, failures,
                )  # fmt: skip
        else:
            if number in self._failures:
                self._failures[number] = 0

    @contextmanager
    def _once(self, what: str) -> Iterator[bool]:
        """Yield whether this thread is not doing ``what`` already."""
        if getattr(self._busy, what, False):
            yield False
            return
        setattr(self._busy, what, True)
        try:
            yield True
        finally:
            setattr(self._busy, what, False)


def _place_of(error: BaseException) -> str:
    """Return file and line where an error was raised; its text may hold what no log may tell."""
    raised = error.__traceback__
    while raised is not None and raised.tb_next is not None:
        raised = raised.tb_next
    return "an unknown place" if raised is None else place_of(raised.tb_frame.f_code, raised.tb_lineno)


def place_of(code: CodeType, line: int) -> str:
    """Return a file's name, without its folder, and a line."""
    return f"{code.co_filename.rpartition('/')[2]}:{line}"


def _flush(timeout: float, hook: Hook) -> None:
    flush = getattr(hook, "force_flush", None)
    if flush is not None:
        flush(timeout)


def _nothing() -> None:
    """Stand in for a hook that has nothing to shut down."""
