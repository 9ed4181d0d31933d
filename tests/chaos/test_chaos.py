"""Whatever is killed, refused, stalled and reset: what was recorded is accounted for, and counted once."""

from __future__ import annotations

from random import Random

import pytest

from tests.chaos.collector import DEAD, DOUBT, REFUSED, TAKEN, Collector, number_of
from tests.chaos.crowd import Recorded
from tests.chaos.pulse import since
from tests.chaos.run import CROWDS, Death, reckon, run
from tests.chaos.stores import Left
from tests.chaos.told import Told


@pytest.mark.parametrize("kind", CROWDS)
def test_no_hit_is_lost_or_counted_twice_while_processes_are_killed_and_the_server_misbehaves(
    kind: str,
) -> None:
    figures = run(1, kind, seconds=3.0, patience=1.0)
    assert figures.right, figures
    assert figures.kills >= 1
    assert figures.delivered > 100
    ends = figures.delivered + figures.dead + figures.ambiguous + figures.interrupted
    assert figures.recorded == ends + figures.young + figures.late


def test_the_reckoning_finds_what_is_missing_and_what_came_twice() -> None:
    recorded = [Recorded(number, 7, float(number)) for number in range(10)]
    log = {
        0: [REFUSED, TAKEN],
        1: [TAKEN, TAKEN],
        2: [DOUBT, TAKEN],
        3: [DOUBT],
        4: [DEAD],
        5: [REFUSED],
        6: [REFUSED],
    }
    told = Told()
    told.ends.update(delivered=2, ambiguous=2, dead=1)
    killed = {7: Death(9.05, 7.9)}
    figures = reckon(1, recorded, killed, log, 0, Left([5], 1), told, set(), kind="sqlite")
    assert (figures.delivered, figures.dead, figures.ambiguous, figures.interrupted) == (3, 1, 1, 1)
    assert (figures.young, figures.late, figures.missing, figures.twice) == (1, 1, 2, 2)
    assert (figures.untold, figures.invented) == (1, 1)
    assert not figures.right


@pytest.mark.parametrize(("held", "missing"), [({6}, 1), ({5, 6}, 1), ({7, 8}, 2), (set(), 2)], ids=str)
def test_what_is_missing_is_excused_only_where_it_was_held_when_a_process_was_killed(
    held: set[int], missing: int
) -> None:
    recorded = [Recorded(number, 7, float(number)) for number in (5, 6)]
    told = Told()
    told.ends.update(interrupted=1)
    killed = {7: Death(9.05, 7.9)}
    log = {number: [REFUSED] for number in (5, 6)}
    figures = reckon(1, recorded, killed, log, 0, Left([], 0), told, held, kind="sqlite")
    assert (figures.missing, figures.interrupted) == (missing, 2 - missing)
    assert not figures.right


def test_an_order_and_a_goal_are_known_by_their_numbers() -> None:
    assert number_of("/track/?c=2&p=1&g=331&ga=1") == 331
    assert number_of("/track/?c=2&p=1&t=35%7Corder%2034%7C9.99%7C1") == 34


def test_a_collector_that_calmed_down_takes_everything() -> None:
    with Collector(Random(1), 1.0) as server:
        assert {server._decide()[0] for _ in range(1000)} != {TAKEN}
        server.calm()
        assert {server._decide()[0] for _ in range(100)} == {TAKEN}


def test_a_process_needs_longer_for_its_time_on_a_busy_machine() -> None:
    beats = [1.0, 1.01, 1.02, 2.0, 2.01]
    assert since(beats, 2.012, 0.02) == pytest.approx(1.992)
    assert since(beats, 2.012, 0.03) == 1.02
    assert since(beats, 2.012, 0.1) == pytest.approx(1.912)
