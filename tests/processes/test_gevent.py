"""A process in which gevent has put its greenlets in the place of threads, sockets and locks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.delivery.test_processes import goals
from tests.processes.program import ended_well
from tests.servers import answer, stall

if TYPE_CHECKING:
    from tests.servers import TrackingServer

PATCHED = """
from gevent import monkey
monkey.patch_all()
import gevent
"""
# Where trio is installed httpx loads it, and trio starts a process to look for a library. Python 3.12 and
# newer start none in a patched process that is ending.
WITHOUT_TRIO = """
import sys
sys.modules["trio"] = None
"""
CHOSEN = """
from dataclasses import replace
tracker = Tracker(replace(tracker.settings, sender={!r}))
"""
SENDERS = pytest.mark.parametrize("sender", ["httpx", "httptools", "pyreqwest"])


@SENDERS
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_greenlets_record_and_all_of_it_is_delivered(
    host: str, sender: str, tracking_server: TrackingServer
) -> None:
    script = f"""{CHOSEN.format(sender)}
gevent.joinall([gevent.spawn(reach, goal) for goal in range(1, 51)], raise_error=True)
assert tracker.flush(10)
assert tracker.stats().delivered == 50, tracker.stats()
reach(51)
"""
    endpoint = f"http://{host}:{tracking_server.port}/track/"
    ended_well(tracking_server, script, early=PATCHED, endpoint=endpoint)

    assert len(goals(tracking_server)) == len(set(goals(tracking_server))) == 51


@SENDERS
def test_a_stalled_server_holds_no_greenlet_up(sender: str, tracking_server: TrackingServer) -> None:
    script = f"""{CHOSEN.format(sender)}
ticks = []

def tick():
    while True:
        ticks.append(time.monotonic())
        gevent.sleep(0.01)

reach(1)
assert tracker.flush(10)  # imports are done
print("warm", flush=True)
ticker = gevent.spawn(tick)
reach(2, 3)
assert not tracker.flush(0.5)
assert not tracker.close(0.5)
ticker.kill()
longest = max(later - earlier for earlier, later in zip(ticks, ticks[1:]))
assert len(ticks) > 30 and longest < 0.3, (len(ticks), longest)
"""
    tracking_server.script(answer())
    tracking_server.default = stall()
    ended_well(tracking_server, script, early=PATCHED)


@SENDERS
def test_a_fork_of_a_patched_process_sends_each_once(sender: str, tracking_server: TrackingServer) -> None:
    script = f"""{CHOSEN.format(sender)}
reach(1)
assert tracker.flush(10)
reach(2, 3)
child = gevent.os.fork()
if not child:
    reach(10)
    sys.exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
"""
    end = ended_well(tracking_server, script, early=f"{PATCHED}import gevent.os\n{WITHOUT_TRIO}")

    assert goals(tracking_server) == ["1", "10", "2", "3"], end.err
