"""A hit on its way, and what it is worth."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Worth(IntEnum):
    """What a hit is worth when room runs out; the least goes first."""

    EXPOSURE = 0
    GOAL = 1
    REVENUE = 2


@dataclass(slots=True)
class Entry:
    """A hit on its way.

    Attributes:
        text: What to send.
        worth: What it is worth when room runs out.
        accepted_at: When it was handed over, in seconds since the epoch.
        attempts: How often it was tried.
        waited: Seconds the server asked us to wait; they do not count as age.
        visitor: Whose hit it is, should they withdraw; opaque.
        receipt: What whoever handed it over gets back if it is finally lost; it stays in this process.
    """

    text: str
    worth: int
    accepted_at: float
    attempts: int = 0
    waited: float = 0.0
    visitor: str = ""
    receipt: object = None
