"""A hit that is too long: what is new always leaves, and of what is old as little stays behind as needed."""

from __future__ import annotations

from bisect import bisect_left
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from convert_middleware.length import fit
from convert_middleware.model import Exposure, Hit, Transaction
from convert_middleware.wire import MAX_URL, decode, encode, query
from tests.strategies import transactions, visits

LIMITS = st.integers(2048, MAX_URL)


def is_part(part: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    rest = iter(whole)
    return all(item in rest for item in part)


@given(visits(), LIMITS)
def test_no_request_is_too_long_and_all_that_is_new_counts_exactly_once(hit: Hit, limit: int) -> None:
    requests, _ = fit(hit, limit)
    assert all(len(query(request)) <= limit for request in requests)
    counted = [e[:2] for request in requests for e in request.exposures[: request.new_exposures]]
    assert counted == [e[:2] for e in hit.exposures[: hit.new_exposures]]
    reached = [goal for request in requests for goal in request.goals[: request.new_goals]]
    assert reached == list(hit.goals[: hit.new_goals])
    paid = [request.transaction for request in requests if request.transaction is not None]
    assert paid == [hit.transaction] * (hit.transaction is not None)


@given(visits(), LIMITS)
def test_splitting_invents_nothing(hit: Hit, limit: int) -> None:
    goals_of = {exposure[:2]: exposure.goals for exposure in hit.exposures}
    requests, _ = fit(hit, limit)
    for request in requests:
        assert request[:2] == hit[:2]
        assert set(request.goals) <= set(hit.goals)
        for experiment, variation, goals in request.exposures:
            assert is_part(goals, goals_of[experiment, variation])
        assert len(requests) == 1 or request.new_exposures or request.new_goals or request.transaction
        assert decode(query(request)) == request


@given(visits(most=25), st.integers(0, MAX_URL))
def test_what_fits_is_sent_whole(hit: Hit, more: int) -> None:
    assert fit(hit, max(2048, len(query(hit)) + more)) == ([hit], 0)


def history(hit: Hit) -> list[tuple[str, int, int]]:
    """Return the pieces of history in the order in which they may go: kind, triplet, goal."""
    new, goals, triplets = hit.goals[: hit.new_goals], hit.goals[hit.new_goals :], hit.exposures
    old = range(hit.new_exposures, len(triplets))
    return [
        *[("goal", 0, goal) for goal in goals],
        *[
            ("goal of a triplet", place, goal)
            for goal in sorted({goal for place in old for goal in triplets[place].goals} - set(new))
            for place in old
            if goal in triplets[place].goals
        ],
        *[("triplet", place, 0) for place in old],
    ]


def without(hit: Hit, pieces: list[tuple[str, int, int]]) -> Hit:
    gone = set(pieces)
    return hit._replace(
        goals=tuple(goal for goal in hit.goals if ("goal", 0, goal) not in gone),
        exposures=tuple(
            exposure._replace(
                goals=tuple(g for g in exposure.goals if ("goal of a triplet", place, g) not in gone)
            )
            for place, exposure in enumerate(hit.exposures)
            if ("triplet", place, 0) not in gone
        ),
    )


@given(visits(least=60, most_new=4), LIMITS)
def test_as_little_history_as_needed_is_left_out_and_the_oldest_first(hit: Hit, limit: int) -> None:
    requests, left_out = fit(hit, limit)
    if len(requests) > 1 or not left_out:  # not what this is about
        return
    pieces = history(hit)
    number = bisect_left(
        range(len(pieces)), True, key=lambda number: len(query(without(hit, pieces[:number]))) <= limit
    )
    assert requests == [without(hit, pieces[:number])]


@given(visits(least=40), transactions, LIMITS)
def test_an_order_by_itself_names_every_triplet_that_has_room_and_loses_their_goals_first(
    hit: Hit, transaction: Transaction, limit: int
) -> None:
    order = hit._replace(goals=(), new_goals=0, new_exposures=0, transaction=transaction)
    (request,), _ = fit(order, limit)
    assert request.transaction == transaction
    lost = len(order.exposures) - len(request.exposures)
    assert [each[:2] for each in request.exposures] == [each[:2] for each in order.exposures[lost:]]
    if lost:
        assert not any(each.goals for each in request.exposures)
        one_more = (order.exposures[lost - 1]._replace(goals=()), *request.exposures)
        assert len(query(request._replace(exposures=one_more))) > limit


def told(*requests: Hit) -> set[tuple[object, ...]]:
    exposures = [exposure for request in requests for exposure in request.exposures]
    return (
        {("goal", goal) for request in requests for goal in request.goals}
        | {("triplet", *exposure[:2]) for exposure in exposures}
        | {("triplet", *exposure[:2], goal) for exposure in exposures for goal in exposure.goals}
    )


@given(visits(least=20), LIMITS)
def test_all_that_is_left_out_is_counted(hit: Hit, limit: int) -> None:
    requests, left_out = fit(hit, limit)
    assert len(told(hit) - told(*requests)) == left_out


def test_a_goal_and_an_order_reach_every_experiment_of_a_visitor_with_a_long_history() -> None:
    """Twenty experiments with twenty of forty goals each, ids of ten digits: what the cookie is made for."""
    old = tuple(3_000_000_000 + number for number in range(40))
    new = 3_000_000_099
    whole = Hit(
        customer_id=1_000_000_000,
        project_id=1_000_000_001,
        exposures=tuple(
            Exposure(1_000_000_000 + number, 2_000_000_000 + number, (*old[number % 2 :: 2], new))
            for number in range(20)
        ),
        goals=(new, *old),
        new_goals=1,
        transaction=Transaction((new,), "ab12345", Decimal("1599.99"), 10),
    )
    assert len(encode(whole)) > MAX_URL
    (request,), _ = fit(whole, MAX_URL - len(encode(whole)) + len(query(whole)))
    assert len(encode(request)) <= MAX_URL
    assert [each[:2] for each in request.exposures] == [each[:2] for each in whole.exposures]
    assert all(new in each.goals for each in request.exposures)
    assert (request.goals, request.new_goals, request.transaction) == ((new,), 1, whole.transaction)


def test_an_order_that_leaves_apart_from_many_new_goals_is_booked_in_every_experiment() -> None:
    goals = tuple(3_000_000_000 + number for number in range(700))
    whole = Hit(
        customer_id=2,
        project_id=1,
        exposures=(Exposure(31, 32), Exposure(11, 12, goals), Exposure(21, 22, goals[-1:])),
        new_exposures=1,
        goals=goals,
        new_goals=400,
        transaction=Transaction((5,), "ab12345", Decimal(1)),
    )
    (order,) = [request for request in fit(whole, MAX_URL)[0] if request.transaction]
    assert [each[:2] for each in order.exposures] == [(11, 12), (21, 22), (31, 32)]
    assert (order.new_exposures, order.goals) == (0, ())


@given(visits(least=40), LIMITS)
def test_a_request_that_counts_a_goal_names_the_triplets_it_belongs_to_as_far_as_there_is_room(
    hit: Hit, limit: int
) -> None:
    requests, _ = fit(hit, limit)
    if len(requests) == 1:  # not what this is about
        return
    news = {exposure.experiment_id for exposure in hit.exposures[: hit.new_exposures]}
    for request in requests:
        counted = request.goals[: request.new_goals]
        if not counted:
            continue
        named = {exposure.experiment_id for exposure in request.exposures}
        owed = [e._replace(goals=tuple(g for g in e.goals if g in counted)) for e in hit.exposures]
        missing = [exposure for exposure in owed if exposure.goals and exposure.experiment_id not in named]
        if missing:
            shortest = min(missing, key=lambda exposure: len(exposure.goals))
            longer = request._replace(exposures=(*request.exposures, shortest), transaction=None)
            assert len(query(longer)) > limit
        if news & {exposure.experiment_id for exposure in missing}:
            assert named <= news, "an earlier triplet took the place of a new one"


@given(transactions, LIMITS)
def test_the_longest_transaction_fits_with_nothing_beside_it(transaction: Transaction, limit: int) -> None:
    assert len(query(Hit(customer_id=2**63 - 1, project_id=2**63 - 1, transaction=transaction))) <= limit


def test_the_longest_possible_transaction_fits() -> None:
    most = tuple(2**63 - 1 - number for number in range(50))
    transaction = Transaction(most, "\x00" * 256, Decimal("999999999999.99"), 10**9)
    whole = Hit(customer_id=2**63 - 1, project_id=2**63 - 1, transaction=transaction)
    assert len(query(whole)) <= 2048
