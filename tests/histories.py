"""Hypothesis strategies for what visitors do, and for the states that come of it."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from convert_middleware.visitor import Visitor
from tests.strategies import ids

NOW = 1_750_000_000
VISITOR_ID = "0123456789abcdef" * 2

few = st.integers(1, 6)  # ids that meet again
any_id = st.one_of(few, ids)


@dataclass(frozen=True)
class Step:
    """One record: what was recorded, and how far the clock had moved, backwards too."""

    kind: str
    key: int
    variation: int
    only: tuple[int, ...] | None
    tick: int


def steps(keys: st.SearchStrategy[int] = few, *, most: int = 12) -> st.SearchStrategy[list[Step]]:
    """Return lists of records."""
    one = st.builds(
        Step,
        st.sampled_from(["present", "reach", "pay"]),
        keys,
        keys,
        st.none() | st.lists(keys, max_size=3).map(tuple),
        st.integers(-3, 1000),
    )
    return st.lists(one, max_size=most)


def after(visitor: Visitor, records: list[Step]) -> Visitor:
    """Return the state after these records."""
    now = NOW
    for step in records:
        now += step.tick
        if step.kind == "present":
            if visitor.variation(step.key) is None:
                visitor = visitor.present(step.key, step.variation, now)
        elif step.kind == "reach":
            visitor = visitor.reach(step.key, now, step.only)
        elif not visitor.has_paid(f"order {step.key}"):
            visitor = visitor.pay(f"order {step.key}", now)
    return visitor


def visitors(keys: st.SearchStrategy[int] = any_id, *, most: int = 12) -> st.SearchStrategy[Visitor]:
    """Return states as records can cause them."""
    visitor_ids = st.integers(0, 2**128 - 1).map(lambda number: f"{number:032x}")
    newcomers = st.tuples(visitor_ids, st.integers(NOW - 10**6, NOW)).map(lambda fields: Visitor(*fields))
    return st.builds(after, newcomers, steps(keys, most=most))


def accounts(number: int) -> st.SearchStrategy[list[Visitor]]:
    """Return that many accounts of one visitor, who was served by several processes at once."""

    @st.composite
    def draw_accounts(draw: st.DrawFn) -> list[Visitor]:
        common = after(Visitor(VISITOR_ID, NOW), draw(steps(most=5)))
        return [after(common, draw(steps(most=6))) for _ in range(number)]

    return draw_accounts()
