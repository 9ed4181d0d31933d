"""A cookie stays small, and what has to go is the oldest, always the same, and announced."""

from __future__ import annotations

from dataclasses import astuple
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convert_middleware.cookie import BUDGET, CookieCodec, Evicted, state_of, text_of
from convert_middleware.model import MAX_ID
from convert_middleware.visitor import Visitor, short_hash
from tests.histories import NOW, VISITOR_ID

codec = CookieCodec(["a secret of the shop, long enough"], 395 * 86_400)
TEN_DIGITS = 10**9
REMEMBERED = 16  # transactions in a cookie


def a_history(
    experiments: int, goals: int, orders: int = 0, *, offset: int = TEN_DIGITS, seed: int = 0
) -> Visitor:
    """Return a visitor with these numbers of records in a random order."""
    dice = Random(seed)
    records = ["present"] * experiments + ["reach"] * goals + ["pay"] * orders
    dice.shuffle(records)
    visitor = Visitor(VISITOR_ID, NOW)
    for number, kind in enumerate(records):
        now = NOW + number * dice.randrange(100_000)
        if kind == "present":
            visitor = visitor.present(offset + number, offset + 2 * number, now)
        elif kind == "reach":
            belongs = [key for key in visitor.experiments if dice.random() < 0.8]
            visitor = visitor.reach(offset + 3 * number, now, belongs)
        else:
            visitor = visitor.pay(f"order {number}", now)
    return visitor


def test_twenty_experiments_with_twenty_of_forty_goals_each_fit_into_1400_bytes() -> None:
    dice = Random(1)
    visitor = Visitor(VISITOR_ID, NOW)
    experiments = dice.sample(range(10**9, 10**10), 20)
    for key in experiments:
        visitor = visitor.present(key, dice.randrange(10**9, 10**10), NOW + dice.randrange(30 * 86_400))
    members: list[list[int]] = [[] for _ in range(40)]
    for key in experiments:
        for number in dice.sample(range(40), 20):
            members[number].append(key)
    for holders in members:
        visitor = visitor.reach(dice.randrange(10**9, 10**10), NOW + dice.randrange(10**7), holders)
    assert [len(triplet.goals) for triplet in visitor.triplets()] == [20] * 20
    text, evicted = codec.write(visitor)
    assert evicted is None
    assert len(text) <= 1400
    assert codec.read(text, NOW) == (visitor, False)


def test_what_fits_is_kept_whole() -> None:
    visitor = a_history(60, 60, REMEMBERED)
    text, evicted = codec.write(visitor)
    assert evicted is None
    assert codec.read(text, NOW)[0] == visitor


@pytest.mark.parametrize(
    "visitor",
    [
        a_history(100, 100),
        a_history(100, 100, 100),
        a_history(100, 100, 100, offset=MAX_ID - 1000),
        a_history(1000, 1000, 1000),
        a_history(0, 1500),
        a_history(1500, 0),
        a_history(0, 0, 1500),
    ],
    ids=["100 and 100", "with orders", "long ids", "1000 of each", "goals", "experiments", "orders"],
)
def test_a_cookie_stays_within_its_budget_and_the_newest_is_kept(visitor: Visitor) -> None:
    text, evicted = codec.write(visitor)
    assert len(text) <= BUDGET
    kept, _ = codec.read(text, NOW)
    assert evicted is not None
    assert kept == visitor.without_oldest(
        transactions=evicted.transactions, experiments=evicted.experiments, goals=evicted.goals
    )
    assert any((kept.experiments, kept.goals, kept.transactions))
    assert codec.write(visitor) == (text, evicted)


def test_a_hundred_experiments_and_a_hundred_goals_lose_old_experiments_only() -> None:
    visitor = a_history(100, 100, 3)
    text, evicted = codec.write(visitor)
    assert evicted is not None
    assert evicted.transactions == 3
    assert 0 < evicted.experiments < 60
    assert evicted.goals == 0
    kept, _ = codec.read(text, NOW)
    assert kept.experiments == visitor.experiments[evicted.experiments :]
    assert kept.goals == visitor.goals


def test_only_the_newest_transactions_are_remembered_though_there_is_room() -> None:
    visitor = Visitor(VISITOR_ID, NOW)
    for number in range(20):
        visitor = visitor.pay(f"order {number}", NOW + number)
    text, evicted = codec.write(visitor)
    assert evicted == Evicted(transactions=4)
    kept, _ = codec.read(text, NOW)
    assert kept.transactions == tuple([short_hash(f"order {number}") for number in range(4, 20)])


def test_goals_go_only_when_no_experiment_is_left_to_go() -> None:
    text, evicted = codec.write(a_history(50, 700))
    assert evicted is not None
    assert evicted.experiments == 50
    assert 0 < evicted.goals < 700
    assert len(codec.read(text, NOW)[0].goals) == 700 - evicted.goals


@given(st.integers(0, 130), st.integers(0, 130), st.integers(0, 30), st.sampled_from([0, 10**9, 2**40]))
def test_no_more_goes_than_must(experiments: int, goals: int, orders: int, offset: int) -> None:
    visitor = a_history(experiments, goals, orders, offset=offset + 1, seed=experiments * goals)
    text, evicted = codec.write(visitor)
    assert len(text) <= BUDGET
    if evicted is None:
        assert codec.read(text, NOW)[0] == visitor
        return
    assert sum(astuple(evicted)) > 0
    last = "goals" if evicted.goals else "experiments" if evicted.experiments else "transactions"
    one_more = {
        kind: getattr(evicted, kind) - (kind == last) for kind in ("transactions", "experiments", "goals")
    }
    fuller = visitor.without_oldest(**one_more)
    assert codec.write(fuller)[1] is not None


@given(st.integers(0, 130), st.integers(0, 130))
def test_what_was_kept_once_is_kept_again(experiments: int, goals: int) -> None:
    first, _ = codec.write(a_history(experiments, goals))
    kept, _ = codec.read(first, NOW)
    assert codec.write(kept) == (first, None)


@pytest.mark.parametrize("now", [2**32 - 10, 2**32 + 10, -1000])
def test_the_budget_holds_in_any_year_also_for_a_life_that_starts_anew(now: int) -> None:
    visitor = a_history(300, 300)._replace(issued_at=now)
    for renewed_at in (now, now + 100, 2**32 + 100):
        text, evicted = codec.write(visitor, renewed_at)
        assert evicted is not None
        assert len(text) <= BUDGET
        assert codec.read(text, renewed_at)[0].experiments == visitor.experiments[evicted.experiments :]


def test_what_a_process_remembers_of_a_visitor_is_whole_unless_it_is_absurd() -> None:
    crowded, forged = a_history(60, 100), a_history(150, 350)
    assert codec.write(crowded)[1] is not None
    assert state_of(text_of(crowded)) == crowded
    assert len(text_of(forged)) <= 2 * BUDGET
    assert state_of(text_of(forged)).goals[-50:] == forged.goals[-50:]
