from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from convert_middleware.delivery import EXPOSURE, GOAL, TRANSACTION, Ledger

THREADS: Final = 8


@pytest.fixture(autouse=True)
def threads_take_turns_all_the_time() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(work: Callable[[int], int]) -> int:
    """Do the same in several threads at the same moment and return the sum of what they return."""
    together = threading.Barrier(THREADS)

    def one(number: int) -> int:
        together.wait(10)
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(one, range(THREADS)))


def test_of_many_threads_exactly_one_wins_each_claim() -> None:
    ledger = Ledger()

    wins = in_threads(lambda _: sum(ledger.claim("visitor", GOAL, key, 0.0) for key in range(2000)))

    assert wins == 2000


def test_of_many_threads_exactly_one_wins_each_claim_that_has_run_out() -> None:
    ledger = Ledger(max_age=10)
    for key in range(2000):
        ledger.claim("visitor", GOAL, key, 0.0)

    wins = in_threads(lambda _: sum(ledger.claim("visitor", GOAL, key, 11.0) for key in range(2000)))

    assert wins == 2000


def test_a_claim_lasts_as_long_as_it_is_told_and_can_then_be_made_again_and_again() -> None:
    ledger = Ledger(max_age=10)
    times = [0.0, 0.0, 10.0, 10.5, 20.5, 20.6, 31.0, 31.0]
    assert [ledger.claim("visitor", TRANSACTION, "ab12345", now) for now in times] == [
        True, False, False, True, False, True, True, False,
    ]  # fmt: skip


def test_visitors_kinds_and_ids_claim_apart() -> None:
    ledger = Ledger()
    kinds = EXPOSURE, GOAL, TRANSACTION
    claims = [(visitor, kind, key) for visitor in "ab" for kind in kinds for key in (1, 2, 11)]

    assert all(ledger.claim(*claim, 0.0) for claim in claims)
    assert not any(ledger.claim(*claim, 0.0) for claim in claims)


def test_the_newest_claims_are_kept_and_memory_is_bounded() -> None:
    ledger = Ledger(size=100)
    for key in range(10_000):
        ledger.claim("visitor", GOAL, key, 0.0)

    assert not any(ledger.claim("visitor", GOAL, key, 0.0) for key in range(9_900, 10_000))
    assert ledger.claim("visitor", GOAL, 0, 0.0)


def test_claims_are_nothing_that_the_garbage_collector_has_to_look_at() -> None:
    ledger = Ledger()
    gc.collect()
    before = len(gc.get_objects())

    for key in range(1000):
        ledger.claim("visitor", GOAL, key, 0.0)

    assert len(gc.get_objects()) < before + 100
