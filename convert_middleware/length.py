"""What is left out of a hit that is too long for one request, and what is spread over several.

It knows which part of a hit can be spared, and asks how long a hit is written; it writes none.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from convert_middleware.wire import NO_GOALS, NO_TRIPLETS, query, write_triplets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from convert_middleware.model import Exposure, Hit


def fit(hit: Hit, limit: int) -> tuple[list[Hit], int]:
    """Return ``hit`` as requests whose query strings have at most ``limit`` bytes.

    History is left out first, oldest first: earlier goals, then those of earlier triplets, then earlier
    triplets. What is new is never left out but spread over several requests: new triplets first, then new
    goals, each request with the triplets as far as they hold its goals, then the transaction with as much of
    the triplets as has room (DESIGN, 5.7).

    Args:
        hit: What to send.
        limit: Bytes; not below 2 048, so that any single new item fits.

    Returns:
        The requests in sending order, and how many goals, triplets and goals of triplets were left out of
        the whole.
    """
    excess = len(query(hit)) - limit
    if excess <= 0:
        return [hit], 0
    slim, excess = _without_history(hit, excess)
    if excess <= 0:
        return [slim], _pieces(hit) - _pieces(slim)
    requests = list(_split_new(hit, limit))
    return requests, _pieces(hit) - _different_pieces(requests)


def _pieces(hit: Hit) -> int:
    """Count the goals, triplets and goals of triplets that a hit tells."""
    return len(hit.goals) + sum([1 + len(triplet.goals) for triplet in hit.exposures])


def _different_pieces(requests: list[Hit]) -> int:
    """Count what several requests tell, what they repeat but once."""
    goals: set[int] = set()
    triplets: dict[int, set[int]] = {}
    for request in requests:
        goals.update(request.goals)
        for experiment_id, _, credited in request.exposures:
            triplets.setdefault(experiment_id, set()).update(credited)
    return len(goals) + len(triplets) + sum(map(len, triplets.values()))


def _without_history(hit: Hit, excess: int) -> tuple[Hit, int]:
    """Drop as little history as needed, oldest first.

    Returns:
        What is left, and the bytes that are still too many (not above 0: none).
    """
    new, goals = hit.goals[: hit.new_goals], hit.goals[hit.new_goals :]
    presented, triplets = hit.exposures[: hit.new_exposures], hit.exposures[hit.new_exposures :]
    dropped = 0
    while excess > 0 and dropped < len(goals):
        excess -= len(f",{goals[dropped]}")
        dropped += 1
    kept = new + goals[dropped:]
    if hit.goals and not kept:
        excess -= NO_GOALS - len(",")  # no goal is left, so the parameters go too
    if excess > 0:
        triplets, excess = _without_earlier_goals(hit, excess)
    dropped = 0
    while excess > 0 and dropped < len(triplets):
        excess -= len("," + write_triplets((triplets[dropped],)))
        dropped += 1
    shown = presented + triplets[dropped:]
    if hit.exposures and not shown:
        excess -= NO_TRIPLETS - len(",")
    return hit._replace(goals=kept, exposures=shown), excess


def _without_earlier_goals(hit: Hit, excess: int) -> tuple[tuple[Exposure, ...], int]:
    """Return the earlier triplets without as many of their earlier goals as needed, and the excess then."""
    new, triplets = hit.goals[: hit.new_goals], hit.exposures[hit.new_exposures :]
    left = [set(triplet.goals) for triplet in triplets]
    # A further transaction's hit lists no goals; their order is that of the oldest triplets, which saw most.
    known = dict.fromkeys(chain(hit.goals, *[triplet.goals for triplet in triplets]))
    for goal in [goal for goal in known if goal not in new]:
        if excess <= 0:
            break
        size = len(f".{goal}")
        for goals in left:
            if excess > 0 and goal in goals:
                excess -= size
                goals.remove(goal)
    slim = [
        triplet
        if len(goals) == len(triplet.goals)
        else triplet._replace(goals=tuple(filter(goals.__contains__, triplet.goals)))
        for triplet, goals in zip(triplets, left, strict=True)
    ]
    return tuple(slim), excess


def _split_new(hit: Hit, limit: int) -> Iterator[Hit]:
    bare = hit._replace(exposures=(), new_exposures=0, goals=(), new_goals=0, transaction=None)
    presented = hit.exposures[: hit.new_exposures]
    while presented:
        number = len(presented)
        while number > 1 and len(query(bare._replace(exposures=presented[:number]))) > limit - 8:
            number //= 2
        chunk = presented[:number]
        if number == 1:
            chunk = (_shortened(bare, chunk[0], limit),)
        yield bare._replace(exposures=chunk, new_exposures=number)
        presented = presented[number:]

    by_age = hit.exposures[hit.new_exposures :] + hit.exposures[: hit.new_exposures]
    waiting = [hit.goals[: hit.new_goals]]
    while waiting and waiting[0]:
        goals = waiting.pop(0)
        triplets = [
            exposure._replace(goals=tuple([goal for goal in exposure.goals if goal in goals]))
            for exposure in by_age
        ]
        whole = bare._replace(
            exposures=tuple([triplet for triplet in triplets if triplet.goals]),
            goals=goals,
            new_goals=len(goals),
        )
        if len(query(whole)) > limit and len(goals) > 1:
            half = len(goals) // 2
            waiting[:0] = [goals[:half], goals[half:]]
            continue
        yield _without_history(whole, len(query(whole)) - limit)[0]
    if hit.transaction is not None:
        # Not beside goals: it belongs to the experiments that hold none of them, too.
        whole = bare._replace(exposures=by_age, transaction=hit.transaction)
        yield _without_history(whole, len(query(whole)) - limit)[0]


def _shortened(bare: Hit, exposure: Exposure, limit: int) -> Exposure:
    """Leave out a triplet's oldest goals until it fits alone."""
    while exposure.goals and len(query(bare._replace(exposures=(exposure,)))) > limit - 8:
        exposure = exposure._replace(goals=exposure.goals[len(exposure.goals) // 2 + 1 :])
    return exposure
