"""How the collector misbehaves when it is told to: one fault at a time, checked when it is set.

It decides which request is hit by the fault; carrying it out is the tracking endpoint's work.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from random import Random
from threading import Lock
from typing import Any, Final

from convert_middleware.errors import ArgumentError, ArgumentTypeError

MODES: Final = ("answer", "reset", "refuse", "stall", "garbage", "bot", "captive")
_WITH_STATUS: Final = ("answer", "captive")
_MOST_DELAY: Final = 60_000  # ms
_MOST_COUNT: Final = 10**9
NO_BODY: Final = (204, 205, 304)  # statuses that have none


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What to do with the requests that are hit; without arguments: nothing unusual.

    Attributes:
        delay_ms: Milliseconds to wait before anything else, 0 to 60 000.
        status: Status to answer with, 200 to 599, in the modes ``answer`` and ``captive``.
        retry_after: Seconds as text, or ``"date"`` for an HTTP date two seconds ahead; needs a status.
        mode: ``answer`` normally · ``reset`` the connection after reading the request · ``refuse``: like
            reset, but nothing is ever recorded · ``stall``: never answer · ``garbage``: answer with
            something that is not HTTP · ``bot``: 200 whose body says BOT · ``captive``: a login page.
        probability: Share of requests that are hit, 0 to 1.
        count: Number of requests after which everything is normal again; none: until changed.
        record: Whether the request is kept all the same. Left out: yes if the answer is a success.
        seed: For the same sequence of hit and spared requests every time.
    """

    delay_ms: int = 0
    status: int | None = None
    retry_after: str | None = None
    mode: str = "answer"
    probability: float = 1.0
    count: int | None = None
    record: bool | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        _whole("delay_ms", self.delay_ms, 0, _MOST_DELAY)
        if self.mode not in MODES:
            raise ArgumentError("mode", self.mode, f"is unknown: one of {', '.join(MODES)} was expected")
        if self.status is not None:
            _whole("status", self.status, 200, 599)
            if self.status in NO_BODY and self.mode == "captive":
                raise ArgumentError("status", self.status, "has no body, and mode 'captive' needs one")
            if self.mode not in _WITH_STATUS:
                raise ArgumentError(
                    "status", self.status, f"cannot be chosen in mode {self.mode!r}: use null"
                )
        self._check_retry_after()
        if isinstance(self.probability, bool) or not isinstance(self.probability, int | float):
            raise ArgumentTypeError("probability", self.probability, "is no number from 0 to 1")
        if not 0 <= self.probability <= 1:
            raise ArgumentError("probability", self.probability, "is out of range: 0 to 1 was expected")
        if self.count is not None:
            _whole("count", self.count, 1, _MOST_COUNT)
        if self.seed is not None:
            _whole("seed", self.seed, -(2**63), 2**63 - 1)
        if self.record is None:
            object.__setattr__(self, "record", self.succeeds)
        elif not isinstance(self.record, bool):
            raise ArgumentTypeError("record", self.record, "is neither true nor false")
        elif self.record and self.mode == "refuse":
            raise ArgumentError(
                "record", self.record, "contradicts mode 'refuse': nothing arrives to be kept"
            )

    def _check_retry_after(self) -> None:
        value = self.retry_after
        if value is None:
            return
        if not isinstance(value, str):
            raise ArgumentTypeError("retry_after", value, "is no text: '2', 'date' or null was expected")
        if not (0 < len(value) <= 100 and value.isascii() and value.isprintable()):
            raise ArgumentError("retry_after", value, "must be 1 to 100 printable ASCII characters")
        if self.status is None:
            raise ArgumentError("retry_after", value, "needs a status, such as 503")

    @property
    def succeeds(self) -> bool:
        """Whether the client gets to read a success."""
        return self.mode == "answer" and (self.status is None or self.status < 300)

    @property
    def changes_anything(self) -> bool:
        """Whether a request that is hit fares differently."""
        return bool(self.delay_ms) or self.status is not None or self.mode != "answer" or not self.record

    @classmethod
    def from_json(cls, given: object) -> Fault:
        """Return the fault that a JSON object describes; what it leaves out has its default.

        Raises:
            ArgumentError: A key is unknown or a value impossible.
        """
        if not isinstance(given, dict):
            raise ArgumentTypeError("body", given, "is no JSON object")
        for key in given:
            if key not in _KEYS:
                raise ArgumentError(str(key), given[key], f"is no known key: only {', '.join(_KEYS)}")
        return cls(**given)


_KEYS: Final = tuple(field.name for field in fields(Fault))


def _whole(argument: str, value: object, least: int, most: int) -> None:
    if type(value) is not int:
        raise ArgumentTypeError(argument, value, "is no whole number")
    if not least <= value <= most:
        raise ArgumentError(argument, value, f"is out of range: {least} to {most} was expected")


class Faults:
    """The fault in force, the dice, and how many requests it still sees."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.changes = 0  # rises with everything that as_json() shows
        self.set(Fault())

    def set(self, fault: Fault) -> None:
        """Let ``fault`` be in force from the next request on."""
        with self._lock:
            self._fault = fault
            self._remaining = fault.count
            self._affected = 0
            self.changes += 1
            self._dice = Random(fault.seed)  # noqa: S311 - repeatable faults, not secrets

    def draw(self) -> Fault | None:
        """Return what happens to the next request, ``None`` for nothing unusual."""
        if not self._fault.changes_anything:
            return None
        with self._lock:
            fault = self._fault
            self.changes += 1
            if self._remaining is not None:
                self._remaining -= 1
                if not self._remaining:
                    self._fault, self._remaining = Fault(), None
            if self._dice.random() >= fault.probability:
                return None
            self._affected += 1
            return fault

    def as_json(self) -> dict[str, Any]:
        """Return the fault in force and what came of it.

        ``active``: whether it does anything; ``remaining``: requests until it ends; ``affected``: requests
        it has hit since it, or the one before it that ran out, was set.
        """
        with self._lock:
            fault = self._fault
            return asdict(fault) | {
                "active": fault.changes_anything,
                "remaining": self._remaining,
                "affected": self._affected,
            }
