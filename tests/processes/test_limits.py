"""A process that may start no more threads, by the limit of the operating system itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.delivery.test_processes import goals
from tests.processes.program import ended_well

if TYPE_CHECKING:
    from tests.servers import TrackingServer

# Root is exempt from the limit, so it becomes somebody else first; by then all has been imported, because
# somebody else may not be able to read it.
LIMITED = """
import resource, socket

def threads(possible):
    resource.setrlimit(resource.RLIMIT_NPROC, (most if possible else 0, most))

reach(1)
assert tracker.flush(10)
tracker.close()
most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
tracker = Tracker(tracker.settings)
if not os.getuid():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
"""
CHOSEN = """
from dataclasses import replace
tracker = Tracker(replace(tracker.settings, sender={!r}))
"""
SAID = "ERROR No thread could be started; hits are kept and sent when one can."


def test_hits_are_kept_with_one_clear_error_and_sent_when_threads_are_possible_again(
    tracking_server: TrackingServer,
) -> None:
    script = f"""{LIMITED}
threads(False)
reach(*range(2, 52))
assert not tracker.flush(0.1)
assert tracker.stats().waiting == 50, tracker.stats()
assert tracker.stats().accepted == 50, tracker.stats()
threads(True)
deadline = time.monotonic() + 10
while not tracker.flush(0.1) and time.monotonic() < deadline:
    time.sleep(0.05)
assert tracker.stats().delivered == 50, tracker.stats()
"""
    end = ended_well(tracking_server, script)

    assert len(goals(tracking_server)) == len(set(goals(tracking_server))) == 51
    assert end.err.count(SAID) == 1
    assert "50 hits accepted, 50 delivered" in end.err


def test_the_next_hit_brings_the_kept_ones_along(tracking_server: TrackingServer) -> None:
    script = f"""{LIMITED}
threads(False)
reach(2, 3)
threads(True)
deadline = time.monotonic() + 10
goal = 3
while tracker.stats().delivered < 2 and time.monotonic() < deadline:
    time.sleep(0.1)
    reach(goal := goal + 1)
assert tracker.stats().delivered >= 2, tracker.stats()
"""
    ended_well(tracking_server, script)

    assert {"1", "2", "3", "4"} <= set(goals(tracking_server))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("sender", ["httpx", "httptools", "pyreqwest"])
@pytest.mark.parametrize("end", ["", "tracker.close()"])
def test_a_process_that_never_gets_a_thread_delivers_at_its_end(
    end: str, sender: str, host: str, tracking_server: TrackingServer
) -> None:
    script = f"{CHOSEN.format(sender)}\n{LIMITED}\nthreads(False)\nreach(2, 3, 4)\n{end}"
    said = ended_well(tracking_server, script, endpoint=f"http://{host}:{tracking_server.port}/track/").err

    assert goals(tracking_server) == ["1", "2", "3", "4"]
    assert said.count(SAID) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("sender", ["httpx", "httptools", "pyreqwest"])
def test_a_sender_that_gets_no_thread_of_its_own_sends_later(
    sender: str, host: str, tracking_server: TrackingServer
) -> None:
    script = f"""
{CHOSEN.format(sender)}
{LIMITED}
tracker.start()
while tracker._delivery._worker is None:
    time.sleep(0.01)
threads(False)
reach(2, 3, 4)
tracker.flush(0.5)
assert tracker.stats().accepted == tracker.stats().waiting + tracker.stats().delivered, tracker.stats()
threads(True)
assert tracker.flush(10)
assert tracker.stats().delivered == 3, tracker.stats()
"""
    endpoint = f"http://{host}:{tracking_server.port}/track/"
    ended_well(tracking_server, script, endpoint=endpoint)

    assert goals(tracking_server) == ["1", "2", "3", "4"]
