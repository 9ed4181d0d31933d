"""From what is recorded to what arrives: every number once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from convert_middleware.hooks import (
    ExposureRecorded,
    GoalReached,
    HistoryLeftOut,
    HitDelivered,
    HitFlushed,
    TransactionRecorded,
    VariationConflict,
)
from convert_middleware.model import Exposure
from convert_middleware.wire import MAX_URL, encode
from tests.tracker.visits import Visit

if TYPE_CHECKING:
    from tests.asgi.conftest import Convert


def test_a_first_visit_tells_of_its_exposures_only(convert: Convert) -> None:
    visit = Visit(convert.tracker())
    assert [visit.convert.experiment(11, 12), visit.convert.experiment(21, 22)] == [12, 22]
    visit.respond()
    [hit] = convert.hits()
    assert (hit.customer_id, hit.project_id) == (2, 1)
    assert (hit.exposures, hit.new_exposures) == ((Exposure(11, 12), Exposure(21, 22)), 2)
    assert (hit.goals, hit.new_goals, hit.transaction) == ((), 0, None)


def test_the_same_again_with_the_cookie_is_no_hit_and_no_cookie(convert: Convert) -> None:
    tracker = convert.tracker()
    first = Visit(tracker)
    first.convert.experiment(11, 12)
    first.convert.goal(331)
    again = Visit(tracker, first.respond())
    assert again.convert.experiment(11, 12) == 12
    assert not again.convert.goal(331)
    again.respond()
    assert len(convert.hits()) == 1
    assert not again.wrote


def test_a_later_goal_comes_with_everything_before_new_ones_first(convert: Convert) -> None:
    tracker = convert.tracker()
    first = Visit(tracker)
    first.convert.experiment(21, 22)
    first.convert.goal(35)
    second = Visit(tracker, first.respond())
    second.convert.experiment(11, 12)
    second.convert.goal(331)
    second.respond()
    hit = convert.hits()[1]
    assert hit.exposures == (Exposure(11, 12, (331,)), Exposure(21, 22, (35, 331)))
    assert (hit.new_exposures, hit.goals, hit.new_goals) == (1, (331, 35), 1)


def test_a_goal_reached_again_after_a_later_exposure_belongs_to_it_and_is_not_counted_again(
    convert: Convert,
) -> None:
    tracker = convert.tracker()
    first = Visit(tracker)
    first.convert.goal(33)
    second = Visit(tracker, first.respond())
    second.convert.experiment(21, 22)
    assert not second.convert.goal(33)
    third = Visit(tracker, second.respond())
    third.convert.goal(331)
    third.respond()
    hit = convert.hits()[2]
    assert hit.exposures == (Exposure(21, 22, (33, 331)),)
    assert (hit.goals, hit.new_goals) == ((331, 33), 1)


@pytest.mark.parametrize(
    ("only", "held"), [(None, (34,)), ([11], (34,)), ([21], ()), ([], ()), ("11", (34,))]
)
def test_a_goal_is_told_for_the_experiments_it_belongs_to(
    convert: Convert, only: Any, held: tuple[int, ...]
) -> None:
    visit = Visit(convert.tracker())
    visit.convert.experiment(11, 12)
    visit.convert.goal(34, experiments=only)
    visit.respond()
    [hit] = convert.hits()
    assert (hit.exposures, hit.goals) == ((Exposure(11, 12, held),), (34,))


def test_of_several_transactions_one_rides_and_the_others_leave_alone(convert: Convert) -> None:
    visit = Visit(convert.tracker())
    visit.convert.experiment(11, 12)
    visit.convert.goal(35)
    for number in range(3):
        assert visit.convert.revenue(35, transaction_id=f"order {number}", value=number, products=2)
    visit.respond()
    first, *further = convert.hits()
    assert (first.new_exposures, first.new_goals) == (1, 1)
    assert [(hit.new_exposures, hit.goals) for hit in further] == [(0, ())] * 2
    paid = [hit.transaction.transaction_id for hit in (first, *further) if hit.transaction]
    assert paid == ["order 0", "order 1", "order 2"]
    assert {hit.exposures for hit in (first, *further)} == {(Exposure(11, 12, (35,)),)}


@pytest.mark.parametrize("through", ["cookie", "process"])
def test_a_transaction_counts_once_per_visitor(convert: Convert, through: str) -> None:
    tracker, elsewhere = convert.tracker(), convert.tracker()
    first = Visit(tracker)
    first.convert.goal(35)
    before = first.respond()
    second = Visit(tracker, before)
    assert second.convert.revenue(35, transaction_id="ab12345", value=1)
    after = second.respond()
    third = Visit(elsewhere, after) if through == "cookie" else Visit(tracker, before)
    assert not third.convert.revenue(35, transaction_id="ab12345", value=1)
    third.respond()
    assert [hit.transaction is not None for hit in convert.hits()] == [False, True]


def test_the_first_variation_stays_and_the_conflict_is_announced(convert: Convert) -> None:
    tracker = convert.tracker()
    first = Visit(tracker)
    first.convert.experiment(11, 12)
    second = Visit(tracker, first.respond())
    assert second.convert.experiment(11, 13) == 12
    second.respond()
    assert len(convert.hits()) == 1
    [conflict] = convert.told(VariationConflict)
    assert isinstance(conflict, VariationConflict)
    assert (conflict.kept, conflict.asked) == (12, 13)


def test_every_first_time_is_announced_once(convert: Convert) -> None:
    visit = Visit(convert.tracker())
    visit.convert.experiment(11, 12)
    visit.convert.goal(331)
    visit.convert.goal(331)
    visit.convert.revenue([35, 36], transaction_id="ab12345", value="1.50", products=3)
    visit.respond()
    assert len(convert.hits()) == 1
    kinds = [type(event) for event in convert.events if not isinstance(event, HitDelivered)]
    assert kinds == [ExposureRecorded, GoalReached, TransactionRecorded, HitFlushed]
    assert visit.convert.visitor_id not in repr(convert.events)


def test_a_long_history_is_left_out_and_announced_and_what_is_new_is_not(convert: Convert) -> None:
    tracker = convert.tracker()
    first = Visit(tracker)
    for number in range(60):
        first.convert.experiment(10**9 + number, 10**9)
        first.convert.goal(2 * 10**9 + number)
    second = Visit(tracker, first.respond())
    early = convert.hits()
    second.convert.experiment(77, 78)
    second.convert.goal(331)
    second.convert.revenue(35, transaction_id="a" * 256, value=1)
    second.respond()
    late = convert.hits()
    new = [goal for hit in early for goal in hit.goals[: hit.new_goals]]
    assert new == [2 * 10**9 + number for number in range(60)]
    presented = [each.experiment_id for hit in early for each in hit.exposures[: hit.new_exposures]]
    assert presented == [10**9 + number for number in range(60)]
    assert [each[0] for hit in late for each in hit.exposures[: hit.new_exposures]] == [77]
    assert [goal for hit in late for goal in hit.goals[: hit.new_goals]] == [331]
    assert sum(hit.transaction is not None for hit in late) == 1
    assert all(len(encode(hit, convert.server.endpoint)) < MAX_URL for hit in (*early, *late))
    assert convert.told(HistoryLeftOut)
