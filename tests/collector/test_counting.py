from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convert_middleware import wire
from convert_middleware.collector.report import PACE_SECONDS, Pace, Statistics, money, wilson
from convert_middleware.collector.sentence import Names, describe
from convert_middleware.errors import SettingsError

from .conftest import EXAMPLE

NAMES = Names({"experiments": {"11": "Headline"}, "variations": {"12": "Blue"}, "goals": {"331": "Cart"}})
EXAMPLE_SENTENCE = (
    "presented experiment 11 variation 12 for the first time; "
    "reached 331, 33, 34 for the first time (before: 341, 35); "
    "order ab12345, 1599.99, 10 products, booked on goal 35"
)


def counted(*queries: str) -> dict[str, Any]:
    statistics = Statistics()
    for query in queries:
        statistics.add(wire.decode(query))
    return statistics.as_json(Names())


def sentence(query: str, names: Names | None = None, *, duplicate: bool = False) -> str:
    parts = describe(wire.decode(query), names or Names(), duplicate=duplicate)
    return "; ".join(text for _, text in parts)


def test_the_published_example_has_the_published_meaning_in_numbers() -> None:
    report = counted(EXAMPLE)
    assert report["totals"] == {
        "requests": 1,
        "visitors": 1,
        "conversions": 3,
        "orders": 1,
        "revenue": "1599.99",
        "products": 10,
        "duplicate_transactions": 0,
    }
    assert {goal: facts["conversions"] for goal, facts in report["goals"].items()} == {
        "33": 1,
        "34": 1,
        "35": 0,
        "331": 1,
    }
    shown = report["experiments"]["11"]["variations"]["12"]
    assert (shown["visitors"], shown["orders"], shown["revenue"], shown["revenue_per_visitor"]) == (
        1,
        1,
        "1599.99",
        "1599.99",
    )
    assert {goal: facts["conversions"] for goal, facts in shown["goals"].items()} == {
        "33": 1,
        "34": 1,
        "35": 0,
        "331": 1,
    }
    assert shown["goals"]["35"]["revenue"] == "1599.99"
    earlier = report["experiments"]["21"]["variations"]["22"]
    assert (earlier["visitors"], earlier["revenue"], earlier["revenue_per_visitor"]) == (0, "1599.99", None)
    assert {goal: facts["conversions"] for goal, facts in earlier["goals"].items()} == {
        "33": 1,
        "35": 0,
        "331": 1,
        "341": 0,
    }


def test_the_published_example_has_the_published_meaning_in_words() -> None:
    assert sentence(EXAMPLE) == EXAMPLE_SENTENCE


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("c=2&p=1", "nothing but customer and project"),
        ("c=2&p=1&e=11-12&ea=0", "nothing new"),
        ("c=2&p=1&g=5&ga=0", "reached nothing new (before: 5)"),
        ("c=2&p=1&g=5&ga=1", "reached 5 for the first time"),
        (
            "c=2&p=1&e=11-12,21-22&ea=2",
            "presented experiment 11 variation 12, experiment 21 variation 22 for the first time",
        ),
        ("c=2&p=1&t=1.2|x y|0.50|1", "order x y, 0.50, 1 product, booked on goals 1, 2"),
    ],
)
def test_a_sentence_says_what_is_new_first_and_nothing_that_is_not_there(query: str, words: str) -> None:
    assert sentence(query) == words


def test_names_stand_beside_their_ids() -> None:
    assert sentence("c=2&p=1&e=11-12-331&ea=1&g=331,7&ga=1", NAMES) == (
        "presented experiment 11 “Headline” variation 12 “Blue” for the first time; "
        "reached 331 “Cart” for the first time (before: 7)"
    )


def test_a_repeated_transaction_id_is_flagged_in_words() -> None:
    assert sentence("c=2&p=1&t=1|x|1.00|1", duplicate=True).endswith(
        "; duplicate transaction id, not booked again"
    )


# Queries, then what is expected at paths of the report.
COUNTING: list[tuple[str, list[str], dict[str, object]]] = [
    (
        "only the first ea triplets are visitors",
        ["c=2&p=1&e=1-10,2-20,3-30&ea=2"],
        {
            "totals.visitors": 2,
            "experiments.1.visitors": 1,
            "experiments.2.visitors": 1,
            "experiments.3.visitors": 0,
        },
    ),
    (
        "only the first ga goals convert",
        ["c=2&p=1&e=1-10-5.6&ea=0&g=5,6&ga=1"],
        {
            "totals.conversions": 1,
            "goals.5.conversions": 1,
            "experiments.1.variations.10.goals.5.conversions": 1,
            "experiments.1.variations.10.goals.6.conversions": 0,
        },
    ),
    (
        "a goal converts only in experiments whose triplet holds it",
        ["c=2&p=1&e=1-10-5,2-20-6&ea=0&g=5&ga=1"],
        {
            "experiments.1.variations.10.goals.5.conversions": 1,
            "experiments.2.variations.20.goals.6.conversions": 0,
        },
    ),
    (
        "a goal converts once in a variation, however often its triplet is repeated",
        ["c=2&p=1&e=1-10-5,1-10-5.6,1-10,1-11-5&ea=1&g=5,6&ga=2"],
        {
            "totals.conversions": 2,
            "experiments.1.variations.10.goals.5.conversions": 1,
            "experiments.1.variations.10.goals.6.conversions": 1,
            "experiments.1.variations.11.goals.5.conversions": 1,
        },
    ),
    (
        "a goal without any experiment still converts",
        ["c=2&p=1&g=5&ga=1"],
        {"totals.conversions": 1, "goals.5.conversions": 1, "experiments": {}},
    ),
    (
        "revenue fires no conversion",
        ["c=2&p=1&e=1-10&ea=1&t=5|a|10.00|2"],
        {
            "totals.conversions": 0,
            "totals.revenue": "10.00",
            "totals.products": 2,
            "goals.5.conversions": 0,
            "goals.5.revenue": "10.00",
            "experiments.1.variations.10.goals.5.conversions": 0,
            "experiments.1.variations.10.goals.5.rate": 0.0,
            "experiments.1.variations.10.revenue": "10.00",
        },
    ),
    (
        "an order on two goals is one order",
        ["c=2&p=1&e=1-10&ea=1&t=5.6|a|10.01|1"],
        {
            "totals.orders": 1,
            "totals.revenue": "10.01",
            "goals.5.revenue": "10.01",
            "goals.6.revenue": "10.01",
            "experiments.1.variations.10.orders": 1,
        },
    ),
    (
        "an order is booked in every experiment of its request",
        ["c=2&p=1&e=1-10,2-20&ea=0&t=5|a|10.00|1"],
        {
            "totals.revenue": "10.00",
            "experiments.1.variations.10.revenue": "10.00",
            "experiments.2.variations.20.revenue": "10.00",
        },
    ),
    (
        "a repeated transaction id is booked once and counted as a repeat",
        ["c=2&p=1&t=5|a|10.00|1", "c=2&p=1&t=5|a|10.00|1", "c=2&p=1&t=5|b|1.00|1"],
        {"totals.orders": 2, "totals.revenue": "11.00", "totals.duplicate_transactions": 1},
    ),
    (
        "two projects may use the same transaction id",
        ["c=2&p=1&t=5|a|10.00|1", "c=2&p=9&t=5|a|10.00|1"],
        {"totals.orders": 2, "totals.duplicate_transactions": 0, "projects": {"1": 1, "9": 1}},
    ),
    (
        "money adds up to the cent",
        [f"c=2&p=1&t=5|{number}|0.10|1" for number in range(30)],
        {"totals.revenue": "3.00", "totals.orders": 30},
    ),
]


@pytest.mark.parametrize(("claim", "queries", "expected"), COUNTING, ids=[case[0] for case in COUNTING])
def test_hits_are_counted_as_convert_counts(
    claim: str, queries: list[str], expected: dict[str, object]
) -> None:
    report = counted(*queries)
    for path, value in expected.items():
        found: Any = report
        for key in path.split("."):
            found = found[key]
        assert found == value, f"{claim}: {path}"


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.decimals("0", "99999999999.99", places=2, allow_nan=False, allow_infinity=False),
        ),
        max_size=20,
    )
)
def test_revenue_is_the_exact_sum_of_the_orders(orders: list[tuple[int, Decimal]]) -> None:
    queries = [
        f"c=2&p=1&e=1-{variation + 1}&ea=1&t=5|{number}|{value:.2f}|1"
        for number, (variation, value) in enumerate(orders)
    ]
    report = counted(*queries)
    assert Decimal(report["totals"]["revenue"]) == sum((value for _, value in orders), Decimal("0.00"))
    parts = report["experiments"].get("1", {"variations": {}})["variations"].values()
    assert sum((Decimal(part["revenue"]) for part in parts), Decimal(0)) == Decimal(
        report["totals"]["revenue"]
    )


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (1, 100, 0.0018, 0.0545)],
)
def test_the_interval_is_wilsons(successes: int, trials: int, low: float, high: float) -> None:
    interval = wilson(successes, trials)
    assert interval is not None
    assert list(interval) == pytest.approx([low, high], abs=1e-4)


@given(st.integers(1, 10**9), st.integers(0, 10**9))
def test_the_interval_surrounds_the_rate(trials: int, successes: int) -> None:
    interval = wilson(successes, trials)
    if successes > trials:
        assert interval is None
    else:
        assert interval is not None
        assert 0 <= interval[0] <= successes / trials <= interval[1] <= 1


def test_there_is_no_rate_without_visitors() -> None:
    goal = counted("c=2&p=1&e=1-10-5&ea=0&g=5&ga=1")["experiments"]["1"]["variations"]["10"]["goals"]["5"]
    assert (goal["conversions"], goal["rate"], goal["interval"]) == (1, None, None)


@pytest.mark.parametrize(
    ("cents", "text"), [(0, "0.00"), (5, "0.05"), (159999, "1599.99"), (10**14, f"{10**12}.00")]
)
def test_money_is_printed_with_two_decimals(cents: int, text: str) -> None:
    assert money(cents) == text


def test_the_pace_counts_each_second_and_forgets_old_ones() -> None:
    pace = Pace()
    for second in (100, 100, 101, 99):  # a clock that steps back
        pace.add(second)
    counts = pace.as_json(102)["counts"]
    assert counts[-3:] == [2, 2, 0]
    assert len(counts) == PACE_SECONDS
    assert not any(pace.as_json(102 + PACE_SECONDS)["counts"])


@pytest.mark.parametrize(
    ("given_names", "named"),
    [
        ([], "experiments"),
        ({"tests": {}}, "tests"),
        ({"goals": ["a"]}, "goals"),
        ({"goals": {"x": "a"}}, "'x'"),
        ({"goals": {"1": ""}}, "goals 1"),
        ({"goals": {"1": 2}}, "goals 1"),
    ],
)
def test_a_catalogue_of_another_shape_is_refused_by_name(given_names: Any, named: str) -> None:
    with pytest.raises(SettingsError, match="catalogue") as refusal:
        Names(given_names)
    assert named in str(refusal.value)
