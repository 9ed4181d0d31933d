"""Visitors to measure with, as our cookie and as the session a hand-made solution would keep."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import TYPE_CHECKING, Final

from convert_middleware.model import Exposure, Hit
from convert_middleware.visitor import Visitor
from convert_middleware.wire import query

if TYPE_CHECKING:
    from collections.abc import Iterator

_MONTH: Final = 30 * 86_400  # seconds
_ID_FROM: Final = 100_000_000  # nine digits
_ID_TO: Final = 10_000_000_000  # ten digits


@dataclass(frozen=True, slots=True)
class Size:
    """How much a visitor has done before."""

    name: str
    experiments: int
    goals: int


SMALL: Final = Size("small", 1, 1)
USUAL: Final = Size("usual", 3, 5)
LARGE: Final = Size("large", 20, 40)


def visitors(size: Size, number: int, now: int, seed: int) -> Iterator[Visitor]:
    """Yield different visitors of a size, whose records lie in the month before ``now``.

    Every site has one set of ids, nine or ten digits long. Goals were reached before, between and after the
    exposures, so that a triplet holds some of the goals and not the others.
    """
    site = Random(size.name)
    experiments = [(_id(site), _id(site)) for _ in range(size.experiments)]
    goals = [_id(site) for _ in range(size.goals)]
    dice = Random(seed)
    for _ in range(number):
        moments = sorted(dice.sample(range(now - _MONTH, now - 60), size.experiments + size.goals))
        records: list[tuple[int, int] | int] = [*experiments[1:], *goals]
        dice.shuffle(records)
        visitor = Visitor(f"{dice.getrandbits(128):032x}", moments[0])
        for record, moment in zip([experiments[0], *records], moments, strict=True):
            if isinstance(record, tuple):
                visitor = visitor.present(*record, moment)
            else:
                visitor = visitor.reach(record, moment)
        yield visitor


def new_goal(size: Size) -> int:
    """Return a goal that no visitor of this size has reached."""
    return _id(Random(f"new {size.name}"))


def session_of(visitor: Visitor) -> bytes:
    """Return what a hand-made solution keeps in a session to build the same tracking request, unsigned.

    It needs the variation of each experiment, and the times that tell which goal was reached after which
    exposure. It needs no visitor id, and no protection against counting twice; so there is none.
    """
    presented = zip(visitor.experiments, visitor.variations, visitor.presented_at, strict=True)
    state = {
        "experiments": {str(key): [variation, at] for key, variation, at in presented},
        "goals": {str(key): at for key, at in zip(visitor.goals, visitor.reached_at, strict=True)},
    }
    return b64encode(json.dumps(state).encode())


def queries(number: int, seed: int) -> Iterator[str]:
    """Yield different query strings of 150 to 300 bytes, as visitors of 2 or 3 experiments cause them."""
    dice = Random(seed)
    some = list(islice(_queries(dice), 500))
    for customer_id in range(100_000, 100_000 + number):
        yield f"c={customer_id}{dice.choice(some)}"


def _queries(dice: Random) -> Iterator[str]:
    """Yield query strings without the customer id in front."""
    while True:
        goals = tuple([_id(dice) for _ in range(dice.randint(2, 5))])
        exposures = tuple([Exposure(_id(dice), _id(dice), goals) for _ in range(dice.randint(2, 3))])
        text = query(Hit(customer_id=1, project_id=10025986, exposures=exposures, goals=goals, new_goals=1))
        if 150 <= len(text) <= 295:
            yield text.removeprefix("c=1")


def _id(dice: Random) -> int:
    return dice.randrange(_ID_FROM, _ID_TO)
