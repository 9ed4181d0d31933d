"""Hypothesis strategies for what is tracked."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import strategies as st

from convert_middleware.model import (
    MAX_ID,
    MAX_PRODUCTS,
    MAX_TRANSACTION_BYTES,
    MAX_TRANSACTION_GOALS,
    MAX_VALUE,
    Exposure,
    Hit,
    Transaction,
)

ids = st.one_of(st.integers(1, 99), st.integers(10**8, 10**10 - 1), st.integers(1, MAX_ID))

transaction_ids = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="|"),
    min_size=1,
    max_size=MAX_TRANSACTION_BYTES,
).filter(lambda text: len(text.encode()) <= MAX_TRANSACTION_BYTES)

amounts = st.decimals(Decimal(0), MAX_VALUE, places=2)

transactions = st.builds(
    Transaction,
    goals=st.lists(ids, min_size=1, max_size=MAX_TRANSACTION_GOALS, unique=True).map(tuple),
    transaction_id=transaction_ids,
    value=amounts,
    products=st.integers(1, MAX_PRODUCTS),
    separator=st.sampled_from(["|", "%7C"]),
)


def exposures(goals: st.SearchStrategy[int] = ids) -> st.SearchStrategy[Exposure]:
    """Return exposures after which some of the goals were reached."""
    return st.builds(Exposure, ids, ids, st.lists(goals, max_size=8, unique=True).map(tuple))


@st.composite
def hits(draw: st.DrawFn) -> Hit:
    """Draw any hit that is valid, whether a visitor could cause it or not."""
    presented = tuple(draw(st.lists(exposures(), max_size=8)))
    reached = tuple(draw(st.lists(ids, max_size=12)))
    return Hit(
        customer_id=draw(ids),
        project_id=draw(ids),
        exposures=presented,
        new_exposures=draw(st.integers(0, len(presented))),
        goals=reached,
        new_goals=draw(st.integers(0, len(reached))),
        transaction=draw(st.none() | transactions),
    )


@st.composite
def visits(draw: st.DrawFn, *, least: int = 0, most: int = 120, most_new: int = 120) -> Hit:
    """Draw a hit as one visitor can cause it, with ``least`` to ``most`` experiments and as many goals."""
    digits = draw(st.sampled_from([2, 10, 18]))
    experiments = [10**digits + number for number in range(draw(st.integers(least, most)))]
    reached = tuple(10**digits + 500 + number for number in range(draw(st.integers(least, most))))
    each = draw(st.integers(0, 40))  # goals of a triplet
    start = draw(st.integers(0, 7))
    presented = tuple(
        Exposure(experiment, experiment + 1, reached[(start * number) % 17 :: 3][:each])
        for number, experiment in enumerate(experiments)
    )
    return Hit(
        customer_id=10**digits,
        project_id=10**digits,
        exposures=presented,
        new_exposures=draw(st.integers(0, min(most_new, len(presented)))),
        goals=reached,
        new_goals=draw(st.integers(0, min(most_new, len(reached)))),
        transaction=draw(st.none() | transactions),
    )
