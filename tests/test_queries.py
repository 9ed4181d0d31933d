"""Hits written straight from a visitor's columns are the hits that the counting rules make."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from convert_middleware.model import Transaction
from convert_middleware.visitor import News, Visitor
from convert_middleware.wire import queries, query
from tests.histories import visitors


@st.composite
def news(draw: st.DrawFn) -> News:
    """Draw a state, and which of its records were made now; recorded in any order."""
    visitor = draw(visitors(st.integers(1, 12)))
    return News(
        visitor,
        draw(st.lists(st.sampled_from(visitor.experiments), unique=True)) if visitor.experiments else [],
        draw(st.lists(st.sampled_from(visitor.goals), unique=True)) if visitor.goals else [],
        [Transaction((35,), f"ab {number}é", Decimal(number)) for number in range(draw(st.integers(0, 3)))],
    )


@given(news(), st.integers(1, 99), st.integers(1, 99))
def test_what_is_written_from_columns_is_what_the_hits_say(
    told: News, customer_id: int, project_id: int
) -> None:
    expected = [query(hit) for hit in told.hits(customer_id, project_id)]

    assert queries(told, customer_id, project_id) == expected


def test_a_visitor_without_news_causes_no_request() -> None:
    visitor = Visitor("ab" * 16, 1, (11,), (12,), (2,), (331,), (3,), (1,))

    assert queries(News(visitor), 2, 1) == []
