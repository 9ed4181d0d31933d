"""What counts as first, what is told about it, and how two accounts of one visitor join."""

from __future__ import annotations

from decimal import Decimal
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convert_middleware.model import Exposure, Hit, Transaction
from convert_middleware.visitor import News, Visitor, short_hash
from tests.histories import NOW, VISITOR_ID, Step, accounts, after, steps, visitors

NEWCOMER = Visitor(VISITOR_ID, NOW)
ORDER = Transaction((35,), "ab12345", Decimal("1599.99"), 10)
FURTHER = Transaction((36,), "ab12346", Decimal("1.00"), 1)


def moments(visitor: Visitor) -> list[int]:
    return [*visitor.presented_at, *visitor.reached_at, *visitor.paid_at]


def hits(news: News) -> list[Hit]:
    return news.hits(2, 1)


def test_a_goal_is_credited_to_every_experiment_presented_before_it() -> None:
    visitor = NEWCOMER.present(11, 12, NOW).reach(331, NOW).present(21, 22, NOW).reach(33, NOW)
    assert visitor.triplets() == [Exposure(11, 12, (331, 33)), Exposure(21, 22, (33,))]


def test_a_goal_reached_again_is_credited_to_later_experiments_and_keeps_its_time() -> None:
    before = NEWCOMER.reach(33, NOW).present(21, 22, NOW + 5)
    again = before.reach(33, NOW + 9)
    assert again.triplets() == [Exposure(21, 22, (33,))]
    assert (again.goals, again.reached_at) == (before.goals, before.reached_at)


def test_a_goal_reached_again_without_effect_leaves_the_same_state() -> None:
    visitor = NEWCOMER.present(11, 12, NOW).reach(33, NOW)
    assert visitor.reach(33, NOW + 9) is visitor
    assert visitor.reach(33, NOW + 9, ()) is visitor


@pytest.mark.parametrize(
    ("only", "holders"), [(None, [11, 21]), ((21,), [21]), ((21, 99), [21]), ((), []), ((99,), [])]
)
def test_a_goal_is_credited_only_to_experiments_it_belongs_to(
    only: tuple[int, ...] | None, holders: list[int]
) -> None:
    visitor = NEWCOMER.present(11, 12, NOW).present(21, 22, NOW).reach(34, NOW, only)
    assert [triplet.experiment_id for triplet in visitor.triplets() if 34 in triplet.goals] == holders
    assert visitor.goals == (34,)


def test_a_variation_is_known_once_it_was_presented() -> None:
    visitor = NEWCOMER.present(11, 12, NOW)
    assert (visitor.variation(11), visitor.variation(12)) == (12, None)


def test_a_transaction_is_remembered_as_a_hash_of_its_id() -> None:
    visitor = NEWCOMER.pay("ab12345", NOW)
    assert visitor.has_paid("ab12345")
    assert not visitor.has_paid("ab12346")
    assert visitor.transactions == (short_hash("ab12345"),)
    assert 0 <= short_hash("𝄞") < 2**40


@pytest.mark.parametrize("clock", [NOW, NOW - 3600, NOW + 3600])
def test_records_keep_their_order_though_the_clock_stands_still_or_steps_back(clock: int) -> None:
    visitor = NEWCOMER.present(11, 12, clock).reach(9, clock).reach(5, NOW - 7200).pay("a", NOW)
    assert moments(visitor) == sorted(set(moments(visitor)))
    assert visitor.goals == (9, 5)
    assert min(moments(visitor)) >= visitor.issued_at


@given(steps())
def test_triplets_hold_what_a_plain_account_of_the_records_holds(records: list[Step]) -> None:
    presented: dict[int, int] = {}
    reached: dict[int, set[int]] = {}
    for step in records:
        if step.kind == "present":
            presented.setdefault(step.key, step.variation)
        elif step.kind == "reach":
            holders = [key for key in presented if step.only is None or key in step.only]
            reached.setdefault(step.key, set()).update(holders)
    visitor = after(NEWCOMER, records)
    assert visitor.goals == tuple(reached)
    assert visitor.triplets() == [
        Exposure(key, variation, tuple([goal for goal in reached if key in reached[goal]]))
        for key, variation in presented.items()
    ]


@given(visitors())
def test_every_column_stands_oldest_first_whatever_was_recorded(visitor: Visitor) -> None:
    for column in (visitor.presented_at, visitor.reached_at, visitor.paid_at):
        assert list(column) == sorted(set(column))
    assert len(moments(visitor)) == len(set(moments(visitor)))


def test_nothing_new_is_no_hit() -> None:
    assert hits(News(NEWCOMER.present(11, 12, NOW).reach(331, NOW))) == []


def test_new_exposures_alone_are_told_without_history() -> None:
    visitor = NEWCOMER.present(21, 22, NOW).reach(33, NOW).present(11, 12, NOW).present(31, 32, NOW)
    [hit] = hits(News(visitor, experiments=[11, 31]))
    assert hit.exposures == (Exposure(11, 12), Exposure(31, 32))
    assert (hit.new_exposures, hit.goals, hit.new_goals, hit.transaction) == (2, (), 0, None)


def test_a_new_goal_is_told_with_all_triplets_and_goals_new_ones_first() -> None:
    visitor = NEWCOMER.present(21, 22, NOW).reach(35, NOW).present(11, 12, NOW).reach(331, NOW).reach(33, NOW)
    [hit] = hits(News(visitor, experiments=[11], goals=[331, 33]))
    assert hit.exposures == (Exposure(11, 12, (331, 33)), Exposure(21, 22, (35, 331, 33)))
    assert (hit.new_exposures, hit.goals, hit.new_goals) == (1, (331, 33, 35), 2)


def test_a_transaction_alone_is_told_with_all_triplets_and_no_conversion() -> None:
    visitor = NEWCOMER.present(21, 22, NOW).reach(35, NOW).pay("ab12345", NOW)
    [hit] = hits(News(visitor, transactions=[ORDER]))
    assert (hit.exposures, hit.new_exposures) == ((Exposure(21, 22, (35,)),), 0)
    assert (hit.goals, hit.new_goals, hit.transaction) == ((35,), 0, ORDER)


def test_further_transactions_leave_alone_with_nothing_new() -> None:
    visitor = NEWCOMER.present(11, 12, NOW).reach(331, NOW).pay("ab12345", NOW).pay("ab12346", NOW)
    first, further = hits(News(visitor, [11], [331], [ORDER, FURTHER]))
    assert (first.new_exposures, first.new_goals, first.transaction) == (1, 1, ORDER)
    assert (further.new_exposures, further.goals, further.new_goals) == (0, (), 0)
    assert (further.exposures, further.transaction) == (first.exposures, FURTHER)


@given(visitors(st.integers(1, 6)), st.data())
def test_a_hit_counts_exactly_what_is_news(visitor: Visitor, data: st.DataObject) -> None:
    def some(of: tuple[int, ...]) -> list[int]:
        return data.draw(st.lists(st.sampled_from(of), unique=True)) if of else []

    presented, reached = some(visitor.experiments), some(visitor.goals)
    paid = data.draw(st.sampled_from([[], [ORDER], [ORDER, FURTHER]]))
    told = hits(News(visitor, presented, reached, paid))
    counted = [exposure.experiment_id for hit in told for exposure in hit.exposures[: hit.new_exposures]]
    assert sorted(counted) == sorted(presented)
    assert [goal for hit in told for goal in hit.goals[: hit.new_goals]] == reached
    assert [hit.transaction for hit in told if hit.transaction] == paid
    assert len(told) == max(len(paid), 1 if presented or reached else 0)


def test_of_two_variations_the_earlier_presented_one_stays() -> None:
    early, late = NEWCOMER.present(11, 13, NOW), NEWCOMER.present(11, 12, NOW + 60)
    assert early.merge(late).variation(11) == late.merge(early).variation(11) == 13


def test_two_pages_lose_nothing_of_each_other() -> None:
    base = NEWCOMER.present(11, 12, NOW)
    mine, yours = base.reach(331, NOW + 5).pay("a", NOW + 6), base.present(21, 22, NOW + 4).reach(33, NOW + 7)
    joined = mine.merge(yours)
    assert joined.triplets() == [Exposure(11, 12, (331, 33)), Exposure(21, 22, (33,))]
    assert joined.has_paid("a")


@given(accounts(2))
def test_merging_is_commutative_order_included(states: list[Visitor]) -> None:
    one, two = states
    assert one.merge(two) == two.merge(one)


@given(accounts(3))
def test_merging_is_associative_order_included(states: list[Visitor]) -> None:
    merged = {first.merge(second).merge(third) for first, second, third in permutations(states)}
    one, two, three = states
    assert merged == {one.merge(two.merge(three))}


@given(accounts(2))
def test_merging_is_idempotent(states: list[Visitor]) -> None:
    one, two = states
    both = one.merge(two)
    assert one.merge(one) == one
    assert both.merge(one) == both.merge(two) == both.merge(both) == both


@given(accounts(2))
def test_merging_unites_the_sets(states: list[Visitor]) -> None:
    one, two = states
    both = one.merge(two)
    for column in ("experiments", "goals", "transactions"):
        assert set(getattr(both, column)) == {*getattr(one, column), *getattr(two, column)}
    held = {(triplet[0], goal) for state in states for triplet in state.triplets() for goal in triplet[2]}
    assert {(triplet[0], goal) for triplet in both.triplets() for goal in triplet[2]} == held


@given(visitors(), visitors())
def test_two_visitors_of_one_browser_become_the_one_who_came_first(one: Visitor, two: Visitor) -> None:
    both = one.merge(two)
    assert (both.issued_at, both.visitor_id) == min((v.issued_at, v.visitor_id) for v in (one, two))
    assert both == two.merge(one)


@given(visitors(st.integers(1, 6)), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_letting_the_oldest_go_keeps_the_credits_of_what_stays(
    visitor: Visitor, experiments: int, goals: int, transactions: int
) -> None:
    left = visitor.without_oldest(experiments=experiments, goals=goals, transactions=transactions)
    assert left.goals == visitor.goals[goals:]
    assert left.transactions == visitor.transactions[transactions:]
    assert left.triplets() == [
        triplet._replace(goals=tuple([goal for goal in triplet.goals if goal in left.goals]))
        for triplet in visitor.triplets()[experiments:]
    ]


def test_taking_back_the_last_experiments_takes_back_their_credits() -> None:
    visitor = NEWCOMER.present(11, 12, NOW).present(21, 22, NOW).reach(331, NOW)
    assert visitor.without_last(1).triplets() == [Exposure(11, 12, (331,))]
    assert visitor.without_last(2).triplets() == []
    assert visitor.without_last(1).present(31, 32, NOW).triplets()[1] == Exposure(31, 32)


@st.composite
def browsers(draw: st.DrawFn) -> tuple[list[Exposure], tuple[int, ...]]:
    """Return what a browser's cookie tells: its exposures, and the goals in the order they stand there."""
    few = st.integers(1, 6)
    fired = st.lists(few, unique=True, max_size=4).map(tuple)
    told = draw(st.lists(st.builds(Exposure, few, few, fired), unique_by=lambda each: each[0], max_size=6))
    return told, tuple(dict.fromkeys([goal for each in told for goal in each.goals]))


def triplets(visitor: Visitor) -> dict[int, tuple[int, set[int]]]:
    return {key: (variation, set(goals)) for key, variation, goals in visitor.triplets()}


few_visitors = visitors(st.integers(1, 6))


@given(few_visitors, browsers())
def test_what_the_browser_counted_takes_nothing_from_us(
    visitor: Visitor, told: tuple[list[Exposure], tuple[int, ...]]
) -> None:
    joined = visitor.with_browser(*told)
    assert joined.merge(visitor) == joined
    assert {key: joined.variation(key) for key in visitor.experiments} == dict(
        zip(visitor.experiments, visitor.variations, strict=True)
    )
    for mine, when, whole, then in (
        (visitor.experiments, visitor.presented_at, joined.experiments, joined.presented_at),
        (visitor.goals, visitor.reached_at, joined.goals, joined.reached_at),
    ):
        assert dict(zip(mine, when, strict=True)).items() <= dict(zip(whole, then, strict=True)).items()
    assert (joined.visitor_id, joined.issued_at) == (visitor.visitor_id, visitor.issued_at)
    assert (joined.transactions, joined.paid_at) == (visitor.transactions, visitor.paid_at)


@given(few_visitors, browsers())
def test_what_the_browser_counted_is_known_from_then_on(
    visitor: Visitor, told: tuple[list[Exposure], tuple[int, ...]]
) -> None:
    exposures, goals = told
    joined = visitor.with_browser(*told)
    assert set(joined.experiments) == {*visitor.experiments, *[each.experiment_id for each in exposures]}
    assert set(joined.goals) == {*visitor.goals, *goals}


@given(few_visitors, browsers())
def test_an_experiment_holds_the_goals_that_either_of_us_credited_to_its_variation(
    visitor: Visitor, told: tuple[list[Exposure], tuple[int, ...]]
) -> None:
    ours, theirs = triplets(visitor), {each.experiment_id: each for each in told[0]}
    for key, (variation, goals) in triplets(visitor.with_browser(*told)).items():
        expected = set(ours[key][1]) if key in ours else set()
        if key in theirs and theirs[key].variation_id == variation:
            expected |= set(theirs[key].goals)
        assert goals == expected


@given(few_visitors, browsers())
def test_the_same_cookie_of_the_browser_changes_nothing_a_second_time(
    visitor: Visitor, told: tuple[list[Exposure], tuple[int, ...]]
) -> None:
    joined = visitor.with_browser(*told)
    assert joined.with_browser(*told) is joined
    assert visitor.with_browser((), ()) is visitor


@given(few_visitors, browsers(), st.data())
def test_the_order_in_the_browsers_cookie_does_not_matter(
    visitor: Visitor, told: tuple[list[Exposure], tuple[int, ...]], data: st.DataObject
) -> None:
    exposures, goals = data.draw(st.permutations(told[0])), data.draw(st.permutations(told[1]))
    assert visitor.with_browser(exposures, goals) == visitor.with_browser(*told)


@given(accounts(2), browsers())
def test_two_pages_that_read_the_same_cookie_of_the_browser_join_to_one_account(
    states: list[Visitor], told: tuple[list[Exposure], tuple[int, ...]]
) -> None:
    one, two = (state.with_browser(*told) for state in states)
    joined = one.merge(two)
    assert joined == two.merge(one)
    assert set(joined.goals) == {*states[0].goals, *states[1].goals, *told[1]}
    assert {*joined.experiments} == {*one.experiments, *two.experiments}


@given(few_visitors, browsers())
def test_a_goal_reached_afterwards_is_credited_to_what_the_browser_presented(
    visitor: Visitor, told: tuple[list[Exposure], tuple[int, ...]]
) -> None:
    reached = visitor.with_browser(*told).reach(99, NOW + 10**6)
    assert all(99 in goals for _, goals in triplets(reached).values())


@given(few_visitors, browsers(), steps())
def test_records_after_the_browsers_are_in_order_and_counted_as_ever(
    visitor: Visitor, told: tuple[list[Exposure], tuple[int, ...]], records: list[Step]
) -> None:
    later = after(visitor.with_browser(*told), records)
    for keys, column in (
        (later.experiments, later.presented_at),
        (later.goals, later.reached_at),
        (later.transactions, later.paid_at),
    ):
        assert list(column) == sorted(column)
        assert len(set(keys)) == len(keys) == len(column)
    assert len(later.credited) == len(later.goals)
    assert all(credit < 1 << len(later.experiments) for credit in later.credited)


def test_what_only_the_browser_knows_is_the_first_to_be_let_go() -> None:
    visitor = NEWCOMER.present(11, 12, NOW + 5).reach(331, NOW + 6)
    joined = visitor.with_browser([Exposure(21, 22, (33,))], (33,))
    assert joined.triplets() == [Exposure(21, 22, (33,)), Exposure(11, 12, (331,))]
    assert joined.without_oldest(experiments=1, goals=1).triplets() == visitor.triplets()
