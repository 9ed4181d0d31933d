"""Hits and claims in a real Redis that several machines share, each played by a tracker of its own."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Final

import pytest

from convert_middleware import Settings, SettingsError, Tracker
from convert_middleware.hooks import GoalReached
from convert_middleware.model import Exposure
from convert_middleware.wire import decode
from tests.asgi.conftest import SECRET
from tests.delivery.conftest import until
from tests.redis_server import RedisServer, programs
from tests.servers import answer
from tests.tracker.test_store_faults import OVER, SAID
from tests.tracker.visits import Visit

if TYPE_CHECKING:
    from tests.asgi.conftest import Convert

AN_HOUR_AND_A_BIT: Final = 3700.0  # seconds; longer than a hit is kept
NUMBERS: Final = count()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def outbox(server: RedisServer) -> str:
    """An outbox of its own."""
    return f"{server.url}?prefix=tracker-{next(NUMBERS)}"


def machine(convert: Convert, outbox: str) -> Tracker:
    return convert.tracker(outbox=outbox, hooks=[])


def reach(tracker: Tracker, *goals: int, cookie: bytes | None = None) -> bytes:
    visit = Visit(tracker, *([cookie] if cookie else []))
    for goal in goals:
        visit.convert.goal(goal)
    return visit.respond()


def goals_of(convert: Convert) -> list[int]:
    """Every goal that arrived as reached for the first time."""
    hits = [decode(target) for target in convert.server.targets]
    return sorted(goal for hit in hits for goal in hit.goals[: hit.new_goals])


@pytest.mark.parametrize("name", programs())
def test_hits_go_through_every_server_there_is_and_arrive_once(convert: Convert, name: str) -> None:
    with RedisServer(programs()[name]) as server:
        tracker = machine(convert, server.url)
        for goal in range(1, 101):
            reach(tracker, goal)
        assert tracker.flush(10.0)
        assert goals_of(convert) == list(range(1, 101))
        assert (tracker.stats().accepted, tracker.stats().delivered) == (100, 100)
        tracker.close()


def test_what_one_machine_left_is_sent_by_another(convert: Convert, outbox: str) -> None:
    convert.server.default = answer(503)
    leaving = machine(convert, outbox)
    for goal in range(1, 31):
        reach(leaving, goal)
    until(lambda: len(convert.server.targets) > 5)
    leaving.close(0.2)
    left = leaving.stats()
    assert left.waiting == 30 - sum(left.dropped.values())
    refused = len(convert.server.targets)

    convert.server.default = answer(200)
    convert.clock.now += 100  # longer than any wait between two attempts
    following = machine(convert, outbox)
    following.start()
    until(lambda: following.stats().delivered == left.waiting)
    assert len(convert.server.targets) == refused + left.waiting
    convert.trackers.remove(leaving)  # what it left is the other's now


def test_two_machines_that_serve_one_visitor_at_once_count_a_goal_once(convert: Convert, outbox: str) -> None:
    machines = [machine(convert, outbox) for _ in range(2)]
    cookie = reach(machines[0], 1)
    together = threading.Barrier(2)

    def serve(tracker: Tracker) -> None:
        for goal in range(2, 32):
            together.wait(10.0)
            reach(tracker, goal, cookie=cookie)

    threads = [threading.Thread(target=serve, args=(tracker,)) for tracker in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for tracker in machines:
        assert tracker.flush(10.0)

    assert goals_of(convert) == list(range(1, 32))


def test_an_order_that_two_machines_record_is_paid_once(convert: Convert, outbox: str) -> None:
    first, second = (machine(convert, outbox) for _ in range(2))
    cookie = reach(first, 1)
    for tracker in (first, second):
        visit = Visit(tracker, cookie)
        visit.convert.revenue(35, transaction_id="ab12345", value="1599.99", products=10)
        visit.respond()
        assert tracker.flush(10.0)

    assert sum(decode(target).transaction is not None for target in convert.server.targets) == 1


def test_what_one_machine_lost_is_told_by_the_one_that_serves_the_visitor_next(
    convert: Convert, outbox: str, server: RedisServer
) -> None:
    losing, serving = (machine(convert, outbox) for _ in range(2))
    convert.server.default = answer(503)
    visit = Visit(losing)
    visit.convert.experiment(11, 12)
    visit.convert.goal(331)
    visit.convert.revenue(35, transaction_id="ab12345", value="1599.99", products=10)
    cookie = visit.respond()
    until(lambda: convert.server.targets)
    convert.clock.now += AN_HOUR_AND_A_BIT
    until(lambda: losing.stats().dropped == {"expired": 1} or serving.stats().dropped == {"expired": 1})
    until(lambda: server.say("HLEN", f"{{{outbox.partition('prefix=')[2]}}}:owed") == ":1")
    convert.server.default = answer(200)

    tried = len(convert.server.targets)
    for _ in range(3):
        cookie = reach(serving, 33, cookie=cookie)
        assert serving.flush(10.0)
    (hit,) = [decode(target) for target in convert.server.targets[tried:]]
    assert hit.exposures[: hit.new_exposures] == (Exposure(11, 12, hit.exposures[0].goals),)
    assert hit.goals[: hit.new_goals] == (331, 33)
    assert hit.transaction is not None
    assert (hit.transaction.transaction_id, str(hit.transaction.value)) == ("ab12345", "1599.99")


def test_hooks_hear_of_a_goal_only_where_it_counted(convert: Convert, outbox: str) -> None:
    first, second = (convert.tracker(outbox=outbox) for _ in range(2))
    cookie = reach(first, 1)
    reach(first, 331, cookie=cookie)
    assert first.flush(10.0)
    told = len(convert.told(GoalReached))
    reach(second, 331, cookie=cookie)
    assert second.flush(10.0)

    assert told == 2
    assert len(convert.told(GoalReached)) == 2


def test_a_redis_that_cannot_be_reached_at_the_start_is_said_once_and_the_site_goes_on(
    convert: Convert, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer() as server:
        url = f"redis://user:a-password@127.0.0.1:{server.port}/0"
        server.stop()
        tracker = machine(convert, url)
        for goal in range(1, 21):
            reach(tracker, goal)
        assert tracker.flush(10.0)
        assert goals_of(convert) == list(range(1, 21))
    assert caplog.text.count("Hits wait in memory meanwhile.") == 1
    assert f"redis://127.0.0.1:{server.port}/0" in caplog.text
    assert "a-password" not in caplog.text


@pytest.mark.parametrize("how", ["stopped", "killed", "flushed", "frozen"])
def test_whatever_becomes_of_redis_memory_takes_over_and_it_is_used_again_later(
    convert: Convert, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    with RedisServer() as server:
        tracker = machine(convert, server.url)
        for goal in range(1, 11):
            reach(tracker, goal)
        assert tracker.flush(10.0)

        pid = server.pid
        if how == "flushed":
            server.say("FLUSHALL")
        elif how == "frozen":
            os.kill(pid, signal.SIGSTOP)
        elif how == "killed":
            server.kill()
        else:
            server.stop()
        for goal in range(11, 31):
            reach(tracker, goal)
        assert tracker.flush(20.0)
        assert goals_of(convert) == list(range(1, 31))
        if how == "frozen":
            os.kill(pid, signal.SIGCONT)
        elif how != "flushed":
            server.start()
        convert.clock.now += 60
        for goal in range(31, 41):
            reach(tracker, goal)
        assert tracker.flush(20.0)
        assert goals_of(convert) == list(range(1, 41))
        assert server.say("EXISTS", "{convert}:totals") == ":1"
        tracker.close()
        # Data that are gone may be noticed by a step that works at once when it is made again.
        times = {0, 1} if how == "flushed" else {1}
        assert {caplog.text.count(line) for line in (SAID, OVER)} <= times
        assert caplog.text.count(SAID) == caplog.text.count(OVER)


def test_a_redis_without_memory_takes_no_more_and_still_gives_out_what_it_has(convert: Convert) -> None:
    with RedisServer() as server:
        convert.server.default = answer(503)
        tracker = machine(convert, server.url)
        for goal in range(1, 21):
            reach(tracker, goal)
        until(lambda: len(convert.server.targets) > 5)
        server.say("CONFIG", "SET", "maxmemory", "1")
        for goal in range(21, 41):
            reach(tracker, goal)
        until(lambda: tracker.stats().accepted == 40)
        convert.server.default = answer(200)
        convert.clock.now += 100  # longer than any wait between two attempts
        assert tracker.flush(20.0)
        assert tracker.stats().delivered == 40
        tracker.close()


def test_without_delivery_hits_are_left_to_others(convert: Convert, outbox: str) -> None:
    filling = convert.tracker(outbox=outbox, hooks=[], deliver=False)
    for goal in range(1, 21):
        reach(filling, goal)
    assert filling.flush(20.0)
    assert (filling.stats().accepted, filling.stats().waiting) == (20, 20)
    assert convert.server.targets == []

    sending = machine(convert, outbox)
    sending.start()
    until(lambda: len(convert.server.targets) == 20)
    assert goals_of(convert) == list(range(1, 21))


def test_without_delivery_there_must_be_an_outbox_that_others_see(convert: Convert) -> None:
    with pytest.raises(SettingsError, match="deliver is False"):
        Settings(project_id="1", customer_id="2", secret_key=SECRET, deliver=False)
