"""Signal handlers that use the tracker, wherever in it the main thread is at that moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.processes.program import ended_well
from tests.servers import stall

if TYPE_CHECKING:
    from tests.servers import TrackingServer

# Raises a signal once on each line that the main thread runs of one of our modules.
EVERYWHERE = """
def everywhere(module, do, function=""):
    interrupted = set()

    def line(frame, event, _):
        place = frame.f_code.co_filename, frame.f_lineno
        if event == "line" and place not in interrupted:
            interrupted.add(place)
            signal.raise_signal(signal.SIGUSR1)
        return line

    def call(frame, *_):
        code = frame.f_code
        return line if code.co_filename.endswith(module) and function in code.co_name else None

    sys.settrace(call)
    try:
        do()
    finally:
        sys.settrace(None)
    return len(interrupted)
"""


def test_a_handler_may_ask_for_an_account_wherever_a_request_is(tracking_server: TrackingServer) -> None:
    script = f"""{EVERYWHERE}
told = []
signal.signal(signal.SIGUSR1, lambda *_: told.append(tracker.stats()))
opposed = [(b"sec-gpc", b"1"), (b"cookie", b"convert_visitor=forged")]
for module in ("admission.py", "reception.py", "credentials.py"):
    assert everywhere(module, lambda: tracker.meet(b"convert_visitor", "GET", "/", b"", opposed)) > 3, module
stats = tracker.stats()
print(stats.excluded, len(told) > 30)
"""
    end = ended_well(tracking_server, script)

    assert end.out == "{'gpc': 3} True\n"


@pytest.mark.parametrize(
    ("what", "trouble"), [("flush", False), ("flush", True), ("close", False), ("close", True)]
)
def test_a_handler_may_flush_or_close_wherever_a_request_is(
    what: str, trouble: bool, tracking_server: TrackingServer
) -> None:
    if trouble:
        tracking_server.default = stall()
    script = f"""{EVERYWHERE}
def interrupt(*_):
    began = time.monotonic()
    tracker.{what}(0.05)
    took.append(time.monotonic() - began)
    if {what!r} == "close":
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)

took = []
for module in ("outbox.py",) if {trouble} else ("outbox.py", "writer.py", "thread.py"):
    signal.signal(signal.SIGUSR1, interrupt)
    tracker = Tracker(Settings(
        project_id="1", customer_id="2", secret_key="a secret of at least 16 bytes", endpoint=ENDPOINT,
        drain_timeout=0.1,
    ))
    reach(1)
    tracker.stats()
    everywhere(module, lambda: (reach(2), tracker.stats()), {"_sort_inbox" if trouble else ""!r})
    tracker.close()
    stats = tracker.stats()
    settled = stats.delivered + stats.waiting + stats.in_flight + stats.dead + sum(stats.dropped.values())
    assert stats.accepted == settled and stats.accepted + stats.refused == 2, (module, stats)
print(len(took) > 0, max(took) < 3.0)
"""
    end = ended_well(tracking_server, script)

    assert end.out == "True True\n"
