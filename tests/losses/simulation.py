"""Visitors in two variations, and a way to Convert on which some requests fail at random.

What decides a request's fate is a hash of seed, request and attempt: random, and the same in every run,
whichever lane of the worker is faster. Everything but the network is the real thing.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from random import Random
from typing import TYPE_CHECKING, Final

from convert_middleware import MemoryOutbox, Recorder, Settings, Tracker
from convert_middleware.delivery import Delivery, Policy
from convert_middleware.delivery.policy import Outcome, Result
from convert_middleware.hooks import Announcer
from convert_middleware.page import Loaded, Page
from convert_middleware.visitor import Visitor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from convert_middleware.delivery import Entry

VARIATIONS: Final = (12, 13)
# How many of those in a variation reach a goal and pay; so hits of one are longer and worth more.
CONVERTING: Final = {12: 0.1, 13: 0.3}
# Of 1 000 requests: connections refused, answered 503, broken off unread, and read before they broke off.
FATES: Final = {"refused": 10, "busy": 10, "unread": 20, "read": 10}
_ROOM: Final = 20_000  # hits that wait at most, so that none is dropped for want of room
_SEED: Final = 10_000_000  # an experiment of its own for every visitor: seed times this, and who it is
_TOLD: Final = re.compile(r"&e=(\d+)-(\d+)")
_DELIVERED: Final = Outcome(Result.DELIVERED, "status 200")
_BROKEN: Final = Outcome(Result.AMBIGUOUS, "reset")
_AGAIN: Final = {
    "refused": Outcome(Result.NOT_SENT, "connection refused"),
    "busy": Outcome(Result.REFUSED, "status 503"),
}


@dataclass(frozen=True)
class Losses:
    """Of one seed's visitors, how many of each variation there were and of how many Convert never heard.

    Attributes:
        seed: The seed.
        visitors: By variation.
        lost: By variation.
    """

    seed: int
    visitors: tuple[int, int]
    lost: tuple[int, int]

    @property
    def p(self) -> float:
        """How likely so uneven a loss is by chance: Pearson's chi square with one degree of freedom."""
        total, gone = sum(self.visitors), sum(self.lost)
        square = 0.0
        for number, lost in zip(self.visitors, self.lost, strict=True):
            for seen, share in ((lost, gone / total), (number - lost, 1 - gone / total)):
                square += (seen - number * share) ** 2 / (number * share)
        return math.erfc(math.sqrt(square / 2))


def combined(ps: list[float]) -> float:
    """Return how likely it is by chance that all of these came out as small as they did (Fisher)."""
    half = -sum([math.log(p) for p in ps])
    term = total = 1.0
    for k in range(1, len(ps)):  # of chi square with 2n degrees of freedom
        term *= half / k
        total += term
    return math.exp(-half) * total


class Way:
    """The sender in whose place it stands; it carries requests to a Convert that only takes note."""

    def __init__(self) -> None:
        self.heard: dict[int, int] = {}  # variation by experiment
        self.fates: Counter[str] = Counter()
        self._attempts: Counter[str] = Counter()  # of requests that were sent before

    async def open(self) -> None:
        """Have nothing to open."""

    async def send(self, text: str) -> Outcome:
        """Carry a request, or not."""
        fate = self._fate(text)
        self.fates[fate] += 1
        if fate in ("refused", "busy"):
            self._attempts[text] += 1
            return _AGAIN[fate]
        if fate != "unread":
            found = _TOLD.search(text)
            assert found
            experiment = int(found[1])
            assert experiment not in self.heard, "counted twice"
            self.heard[experiment] = int(found[2])
        return _DELIVERED if fate == "delivered" else _BROKEN

    async def close(self) -> None:
        """Have nothing to close."""

    def _fate(self, text: str) -> str:
        attempt = f"{text} {self._attempts[text]}" if text in self._attempts else text
        dice = int.from_bytes(blake2b(attempt.encode(), digest_size=8).digest()) % 1000
        for fate, share in FATES.items():
            if dice < share:
                return fate
            dice -= share
        return "delivered"


class Relay(MemoryOutbox):
    """Hands on what a tracker hands over to where something else takes it from."""

    def __init__(self, onward: MemoryOutbox) -> None:
        super().__init__()
        self._onward = onward

    def offer(self, entry: Entry) -> None:
        """See :class:`MemoryOutbox`."""
        self._onward.offer(entry)


def simulate(visitors: int, seeds: int) -> Iterator[Losses]:
    """Send so many visitors for each seed, and yield what got lost of them.

    Raises:
        AssertionError: A visitor counted twice, or the account does not balance.
    """
    outbox, way = MemoryOutbox(), Way()
    secret = "a secret of the simulation"
    tracker = Tracker(Settings(project_id=1, customer_id=2, secret_key=secret, outbox=Relay(outbox)))
    quick = Policy(first_delay=0.01, max_delay=0.02)
    delivery = Delivery(outbox, lambda: way, quick, Announcer((), time.monotonic))
    try:
        for seed in range(seeds):
            sent: dict[int, int] = {}
            for number in _come(tracker, visitors, seed, sent):
                if number % 500 == 0:
                    while delivery.counts().waiting > _ROOM:
                        time.sleep(0.005)  # the other thread needs nothing but time
                    delivery.wake()
            assert tracker.stats().accepted == 0  # but everything is written
            assert delivery.counts().accepted == visitors * (seed + 1)
            assert delivery.flush(600.0)
            lost = Counter([sent[key] for key in sent.keys() - way.heard.keys()])
            assert way.heard.items() <= sent.items()
            way.heard.clear()
            there = Counter(sent.values())
            first, second = VARIATIONS
            yield Losses(seed, (there[first], there[second]), (lost[first], lost[second]))
        counts = delivery.counts()
        assert counts.delivered + counts.dropped["ambiguous"] == visitors * seeds
        assert counts.dropped == {"ambiguous": way.fates["unread"] + way.fates["read"]}
    finally:
        delivery.close(5.0)
        tracker.close(5.0)


def _come(tracker: Tracker, visitors: int, seed: int, sent: dict[int, int]) -> Iterator[int]:
    """Let visitors come and do something, and note each one's variation by the experiment that is theirs."""
    dice = Random(seed)
    for number in range(visitors):
        key, variation = (seed + 1) * _SEED + number, dice.choice(VARIATIONS)
        sent[key] = variation
        page = Page(tracker, partial(Loaded, Visitor(f"{key:032x}", tracker.now())), shown=True)
        with Recorder(page) as convert:
            convert.experiment(key, variation)
            if dice.random() < CONVERTING[variation]:
                convert.goal(331)
                convert.revenue(35, transaction_id=f"order {key}", value="1599.99")
        yield number
