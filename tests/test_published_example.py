"""The published example is reached with the same meaning through the public recording API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from convert_middleware.testing import RecordedTracker
from convert_middleware.wire import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from convert_middleware import Recorder
    from convert_middleware.model import Hit

URL = (
    "https://1.track.convertexperiments.com/track/?c=2&p=1&e=11-12-331.33.34,21-22-33.331.341&ea=1"
    "&g=331,33,34,341,35&ga=3&t=35|ab12345|1599.99|10"
)


def test_the_published_example_comes_back_byte_for_byte() -> None:
    assert encode(decode(URL)) == URL


def goal_35_alone(convert: Recorder) -> None:
    assert convert.goal(35)


def experiment_21_and_goal_341(convert: Recorder) -> None:
    assert convert.experiment(21, 22) == 22
    assert convert.goal(341)


def goal_35_for_no_experiment(convert: Recorder) -> None:
    assert convert.goal(35, experiments=[])


def this_visit(convert: Recorder) -> None:
    assert convert.experiment(11, 12) == 12
    assert convert.experiment(21, 99) == 22
    assert convert.goal(331)
    assert convert.goal(33)
    assert convert.goal(34, experiments=[11])
    assert convert.revenue(35, transaction_id="ab12345", value="1599.99", products=10)


def meaning(hit: Hit) -> object:
    """Return what the parameters say, with the order only where it counts: new before earlier."""
    new, goals = hit.new_exposures, hit.new_goals
    triplets = [(each.experiment_id, each.variation_id, frozenset(each.goals)) for each in hit.exposures]
    return (
        (hit.customer_id, hit.project_id),
        (triplets[:new], triplets[new:]),
        (hit.goals[:goals], frozenset(hit.goals[goals:])),
        hit.transaction,
    )


@pytest.mark.parametrize(
    "earlier",
    [
        (goal_35_alone, experiment_21_and_goal_341),
        (experiment_21_and_goal_341, goal_35_for_no_experiment),
    ],
    ids=["goal 35 was reached before", "goal 35 belongs to no experiment"],
)
def test_the_published_example_is_reached_through_the_public_recording_api(
    earlier: tuple[Callable[[Recorder], None], ...],
) -> None:
    tracker = RecordedTracker(project_id=1, customer_id=2)
    token = tracker.write_token(tracker.load([]).visitor)
    for visit in (*earlier, this_visit):
        with tracker.resume(token) as convert:
            visit(convert)
        token = convert.token()
    assert len(tracker.hits) == 3
    assert meaning(tracker.hits[-1]) == meaning(decode(URL))
