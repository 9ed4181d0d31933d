"""What Convert's own script in the browser has counted, as its cookie ``_conv_v`` tells.

The cookie is the visitor's to forge. It is read in time proportional to its bounded length, whatever it holds
raises nothing, and what is odd in it is ignored and counted. It is never written.
Source: PROTOCOL, section 2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from convert_middleware.model import MAX_ID, Exposure

if TYPE_CHECKING:
    from collections.abc import Iterable

VISITOR_COOKIE: Final = b"_conv_v"

BYTES_READ: Final = 4096  # of one cookie; browsers store no longer ones (RFC 6265, section 6.1)
COOKIES_READ: Final = 2  # of this name in one request: the host's and its parent domain's
# More than 4 096 bytes hold with ids of eight digits; today's have nine and ten.
MAX_EXPERIMENTS: Final = 150
MAX_GOALS: Final = 400

_NOT_INCLUDED: Final = 1  # "variation" of a visitor whom an experiment's traffic limit left out
_ID: Final = rb"[1-9][0-9]{0,18}+"
# Possessive throughout, so that no text makes the search go back.
_EXPERIMENT: Final = re.compile(rb"(?<=[{-])(" + _ID + rb")\.\{([^{}]*+(?:\{[^{}]*+\}[^{}]*+)*+)\}")
# Objects under other keys are passed over whole.
_MEMBER: Final = re.compile(rb"(?:^|-)(?:v\.(" + _ID + rb")|g\.\{([^{}]*+)\}|[^-{}]*+\{[^{}]*+\})(?![^-])")
_GOAL: Final = re.compile(rb"(?:^|-)(" + _ID + rb")\.[1-9][0-9]{0,8}+(?![^-])")


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserState:
    """What the browser presented and counted. Nothing of it is first now.

    Attributes:
        exposures: Each experiment once, with its variation and the goals that the browser fired for it.
        goals: Every goal the browser fired.
        left_out: Experiments whose traffic limit left this visitor out; they were not presented.
        odd: How many parts of the cookie made no sense, or were beyond the bounds, and were ignored.
    """

    exposures: tuple[Exposure, ...] = ()
    goals: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()
    odd: int = 0


NOTHING: Final = BrowserState()


def read_state(cookies: Iterable[bytes]) -> BrowserState:
    """Return what the cookies ``_conv_v`` of a request tell, percent-encoded or not; never raises.

    Args:
        cookies: Their values. If an experiment stands there several times, its first variation counts.
    """
    reading = _Reading()
    for number, cookie in enumerate(cookies):
        if number == COOKIES_READ:
            reading.odd += 1
            break
        if len(cookie) > BYTES_READ:
            reading.odd += 1
        reading.read(cookie[:BYTES_READ])
    return reading.result()


class _Reading:
    """What was found so far."""

    __slots__ = ("exposures", "goals", "left_out", "odd")

    def __init__(self) -> None:
        self.exposures: dict[int, Exposure] = {}
        self.goals: dict[int, None] = {}  # in the order found
        self.left_out: dict[int, None] = {}
        self.odd = 0

    def result(self) -> BrowserState:
        if not (self.exposures or self.goals or self.left_out or self.odd):
            return NOTHING
        return BrowserState(
            exposures=tuple(self.exposures.values()),
            goals=tuple(self.goals),
            left_out=tuple(self.left_out),
            odd=self.odd,
        )

    def read(self, cookie: bytes) -> None:
        """Add what a cookie holds."""
        text = unquote_to_bytes(cookie) if b"%" in cookie else cookie
        for piece in text.split(b"*"):
            key, _, value = piece.partition(b":")
            if key == b"exp":
                self._read_experiments(value)

    def _read_experiments(self, text: bytes) -> None:
        end = 0
        for found in _EXPERIMENT.finditer(text):
            start, last = found.span()
            self._note_rest(text[end:start])
            self._read_experiment(*found.groups())
            end = last
        self._note_rest(text[end:])

    def _note_rest(self, between: bytes) -> None:
        if between.strip(b"{-}"):
            self.odd += 1

    def _read_experiment(self, digits: bytes, members: bytes) -> None:
        experiment_id = _id(digits)
        variation_id: int | None = None
        goals: tuple[int, ...] = ()
        for variation, fired in _MEMBER.findall(members):
            if variation:
                variation_id = _id(variation)
            elif fired:
                goals = self._read_goals(fired)
        if (
            experiment_id is None
            or variation_id is None
            or experiment_id in self.exposures
            or experiment_id in self.left_out
            or len(self.exposures) + len(self.left_out) == MAX_EXPERIMENTS
        ):
            self.odd += 1
        elif variation_id == _NOT_INCLUDED:
            self.left_out[experiment_id] = None
        else:
            # Made of ids that were just checked.
            self.exposures[experiment_id] = Exposure._make((experiment_id, variation_id, goals))

    def _read_goals(self, text: bytes) -> tuple[int, ...]:
        goals: dict[int, None] = {}
        found = _GOAL.findall(text)
        self.odd += text.count(b"-") + 1 - len(found)
        for digits in found:
            goal_id = int(digits)
            if goal_id > MAX_ID or (goal_id not in self.goals and len(self.goals) == MAX_GOALS):
                self.odd += 1
            else:
                goals[goal_id] = self.goals[goal_id] = None
        return tuple(goals)


def _id(digits: bytes) -> int | None:
    number = int(digits)
    return number if number <= MAX_ID else None
