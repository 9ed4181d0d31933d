"""What processes of a site tell of their hits, as lines among others, and reading them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from convert_middleware.hooks import Event, HitDead, HitDelivered, HitDropped

if TYPE_CHECKING:
    from collections.abc import Iterable

MARK: Final = "chaos "
BEGUN: Final = "begun"
NAMES: Final[dict[type[Event], str]] = {HitDelivered: "delivered", HitDropped: "dropped", HitDead: "dead"}


@dataclass(slots=True)
class Told:
    """What all processes told.

    Attributes:
        begun: The processes that began, in that order.
        ends: How hits ended: "delivered", "dead", or the reason they were dropped for.
        beats: When a thread of each process got to run, on the monotonic clock; see ``tests.chaos.pulse``.
        other: Lines that say something else.
    """

    begun: list[int] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    beats: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    other: list[str] = field(default_factory=list)


def read(lines: Iterable[str]) -> Told:
    """Return what these lines tell."""
    told = Told()
    for line in lines:
        if not line.startswith(MARK):
            told.other.append(line)
            continue
        fact = json.loads(line.removeprefix(MARK))
        if fact["what"] == BEGUN:
            told.begun.append(fact["pid"])
        elif fact["what"] == "beat":
            told.beats[fact["pid"]].append(fact["at"])
        else:
            name = fact["reason"] if fact["what"] == "dropped" else fact["what"]
            told.ends[name] += fact.get("number", 1)
    return told
