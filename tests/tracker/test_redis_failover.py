"""A Redis that changes its role, and one that is slow, under a tracker that goes on."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tests.delivery.conftest import until
from tests.redis_server import RedisServer
from tests.tracker.test_redis import goals_of, machine, reach

if TYPE_CHECKING:
    import pytest

    from tests.asgi.conftest import Convert


def test_a_redis_that_fails_over_may_be_read_only_for_a_while(
    convert: Convert, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer() as leader, RedisServer() as server:
        tracker = machine(convert, server.url)
        for goal in range(1, 11):
            reach(tracker, goal)
        assert tracker.flush(10.0)

        assert server.say("REPLICAOF", "127.0.0.1", str(leader.port)) == "+OK"
        for goal in range(11, 31):
            reach(tracker, goal)
        assert tracker.flush(20.0)
        assert goals_of(convert) == list(range(1, 31))
        assert caplog.text.count("Hits wait in memory meanwhile.") == 1

        assert server.say("REPLICAOF", "NO", "ONE") == "+OK"
        convert.clock.now += 60
        for goal in range(31, 41):
            reach(tracker, goal)
        assert tracker.flush(20.0)
        assert goals_of(convert) == list(range(1, 41))
        assert server.say("EXISTS", "{convert}:totals") == ":1"
        tracker.close()


def test_a_redis_that_is_slow_holds_up_no_page_and_loses_nothing(
    convert: Convert, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer() as server:
        tracker = machine(convert, server.url)
        reach(tracker, 1)
        assert tracker.flush(10.0)

        os.kill(server.pid, signal.SIGSTOP)
        try:
            for goal in range(2, 52):
                reach(tracker, goal)
        finally:  # no page waited for Redis, or this would never be reached
            os.kill(server.pid, signal.SIGCONT)
        assert tracker.flush(20.0)
        assert goals_of(convert) == list(range(1, 52))
        assert caplog.text.count("Hits wait in memory meanwhile.") <= 1  # none where the machine is quick
        tracker.close()


def test_a_redis_that_never_answers_is_waited_for_once_however_many_visitors_there_are(
    convert: Convert,
) -> None:
    with RedisServer() as server:
        tracker = machine(convert, server.url)
        reach(tracker, 1)
        assert tracker.flush(10.0)

        os.kill(server.pid, signal.SIGSTOP)
        for goal in range(2, 2002):  # ten times as many as are asked about at once
            reach(tracker, goal)
        until(lambda: len(convert.server.targets) > 1500, 15.0)
        os.kill(server.pid, signal.SIGCONT)
        convert.clock.now += 60
        assert tracker.flush(20.0)
        assert goals_of(convert) == list(range(1, 2002))
        tracker.close()
