"""What the hits add up to, counted the way Convert counts (PROTOCOL, section 1).

Only the first ``ea`` triplets are visitors, only the first ``ga`` goals are conversions, and revenue fires
no conversion. Money is whole cents from the first addition to the printed number. This module adds up what
it is handed; it neither reads nor stores anything.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from math import sqrt
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from convert_middleware.collector.sentence import Names
    from convert_middleware.model import Hit

_Z95: Final = 1.959963984540054  # two-sided 95 % of the normal distribution
PACE_SECONDS: Final = 180  # what the page's small curve shows


def money(cents: int) -> str:
    """Return whole cents as an exact decimal with two places."""
    return f"{cents // 100}.{cents % 100:02d}"


def wilson(successes: int, trials: int) -> tuple[float, float] | None:
    """Return the 95 % Wilson score interval of a proportion, or ``None`` where there is no proportion."""
    if not 0 < trials >= successes:
        return None
    share, square = successes / trials, _Z95 * _Z95
    middle = share + square / (2 * trials)
    reach = _Z95 * sqrt(share * (1 - share) / trials + square / (4 * trials * trials))
    scale = 1 + square / trials
    low = 0.0 if successes == 0 else max(0.0, (middle - reach) / scale)
    high = 1.0 if successes == trials else min(1.0, (middle + reach) / scale)
    return low, high


@dataclass(slots=True)
class Takings:
    """Orders, cents and products booked somewhere."""

    orders: int = 0
    cents: int = 0
    products: int = 0

    def book(self, cents: int, products: int) -> None:
        """Add one order."""
        self.orders += 1
        self.cents += cents
        self.products += products

    def as_json(self) -> dict[str, Any]:
        """Return the three numbers, money as decimal text."""
        return {"orders": self.orders, "revenue": money(self.cents), "products": self.products}


@dataclass(slots=True)
class VariationCount:
    """What one variation of one experiment has to show."""

    visitors: int = 0
    conversions: Counter[int] = field(default_factory=Counter)
    takings: Takings = field(default_factory=Takings)
    goal_takings: dict[int, Takings] = field(default_factory=dict)

    def as_json(self, goals: list[int], names: Names) -> dict[str, Any]:
        """Return the numbers, with every goal of the experiment present."""
        return {
            "visitors": self.visitors,
            **self.takings.as_json(),
            "revenue_per_visitor": self._per_visitor(),
            "goals": {str(goal): self._goal(goal, names) for goal in goals},
        }

    def _per_visitor(self) -> str | None:
        if not self.visitors:
            return None
        return money((2 * self.takings.cents + self.visitors) // (2 * self.visitors))  # half up

    def _goal(self, goal: int, names: Names) -> dict[str, Any]:
        conversions = self.conversions[goal]
        return {
            "name": names.of("goals", goal),
            "conversions": conversions,
            "rate": conversions / self.visitors if self.visitors else None,
            "interval": wilson(conversions, self.visitors),
            **self.goal_takings.get(goal, _NOTHING).as_json(),
        }


_NOTHING: Final = Takings()


class Statistics:
    """Running totals; one call of :meth:`add` per hit, whatever the number of hits before."""

    def __init__(self) -> None:
        self._requests = 0
        self._projects: Counter[int] = Counter()
        self._visitors = 0
        self._conversions: Counter[int] = Counter()
        self._takings = Takings()
        self._goal_takings: dict[int, Takings] = {}
        self._experiments: dict[int, dict[int, VariationCount]] = {}
        self._goals: dict[int, set[int]] = {}  # of an experiment, as seen in its triplets and its orders
        self._transactions: set[tuple[int, str]] = set()
        self._duplicates = 0

    def add(self, hit: Hit) -> bool:
        """Count one hit.

        Returns:
            Whether its transaction id was used before in this project; such an order is not booked again.
        """
        self._requests += 1
        self._projects[hit.project_id] += 1
        self._conversions.update(hit.goals[: hit.new_goals])
        reached: dict[tuple[int, int], set[int]] = {}
        for position, exposure in enumerate(hit.exposures):
            variation = self._variation(exposure.experiment_id, exposure.variation_id)
            self._goals[exposure.experiment_id].update(exposure.goals)
            if position < hit.new_exposures:
                variation.visitors += 1
                self._visitors += 1
            reached.setdefault((exposure.experiment_id, exposure.variation_id), set()).update(exposure.goals)
        # However often a triplet is repeated, a goal converts there once.
        new_goals = set(hit.goals[: hit.new_goals])
        for (experiment, shown), goals in reached.items():
            self._variation(experiment, shown).conversions.update(goals & new_goals)
        return self._book(hit)

    def _book(self, hit: Hit) -> bool:
        order = hit.transaction
        if order is None:
            return False
        key = (hit.project_id, order.transaction_id)
        if key in self._transactions:
            self._duplicates += 1
            return True
        self._transactions.add(key)
        cents = int(order.value.scaleb(2))
        self._takings.book(cents, order.products)
        for goal in order.goals:
            self._goal_takings.setdefault(goal, Takings()).book(cents, order.products)
        # A set: however often a triplet is repeated, a variation earns an order once.
        for experiment, variation in {(x.experiment_id, x.variation_id) for x in hit.exposures}:
            count = self._variation(experiment, variation)
            count.takings.book(cents, order.products)
            self._goals[experiment].update(order.goals)
            for goal in order.goals:
                count.goal_takings.setdefault(goal, Takings()).book(cents, order.products)
        return False

    def _variation(self, experiment: int, variation: int) -> VariationCount:
        variations = self._experiments.get(experiment)
        if variations is None:
            variations = self._experiments[experiment] = {}
            self._goals[experiment] = set()
        count = variations.get(variation)
        if count is None:
            count = variations[variation] = VariationCount()
        return count

    def as_json(self, names: Names) -> dict[str, Any]:
        """Return totals, goals and experiments; everything is keyed by id as text, in order of the ids."""
        return {
            "totals": {
                "requests": self._requests,
                "visitors": self._visitors,
                "conversions": self._conversions.total(),
                **self._takings.as_json(),
                "duplicate_transactions": self._duplicates,
            },
            "projects": {str(project): number for project, number in sorted(self._projects.items())},
            "goals": {
                str(goal): {
                    "name": names.of("goals", goal),
                    "conversions": self._conversions[goal],
                    **self._goal_takings.get(goal, _NOTHING).as_json(),
                }
                for goal in sorted({*self._conversions, *self._goal_takings})
            },
            "experiments": {
                str(experiment): self._experiment(experiment, names)
                for experiment in sorted(self._experiments)
            },
        }

    def _experiment(self, experiment: int, names: Names) -> dict[str, Any]:
        variations = self._experiments[experiment]
        goals = sorted(self._goals[experiment])
        return {
            "name": names.of("experiments", experiment),
            "visitors": sum(count.visitors for count in variations.values()),
            "variations": {
                str(variation): {
                    "name": names.of("variations", variation),
                    **variations[variation].as_json(goals, names),
                }
                for variation in sorted(variations)
            },
        }


class Pace:
    """How many requests arrived in each of the last seconds."""

    def __init__(self) -> None:
        self._seconds: deque[list[int]] = deque(maxlen=PACE_SECONDS)  # [second, requests], rising

    def add(self, second: int) -> None:
        """Count one request; a clock that steps back adds to the newest second."""
        if self._seconds and second <= self._seconds[-1][0]:
            self._seconds[-1][1] += 1
        else:
            self._seconds.append([second, 1])

    def as_json(self, now: int) -> dict[str, Any]:
        """Return one number per second, the last one being the second ``now``."""
        counts = [0] * PACE_SECONDS
        for second, number in self._seconds:
            age = max(0, now - second)
            if age < PACE_SECONDS:
                counts[PACE_SECONDS - 1 - age] += number
        return {"until": now, "counts": counts}
