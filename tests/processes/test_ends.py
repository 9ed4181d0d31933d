"""The ends of a process that the delivery thread does not choose."""

from __future__ import annotations

import re

import pytest

from tests.accounts import accounts_in
from tests.delivery.test_processes import goals
from tests.processes.program import ended, ended_well
from tests.servers import TrackingServer, answer, refused_port, stall

# Registered before ours, so it runs after ours: by then everything of ours has ended.
LAST = """
import atexit, time
atexit.register(lambda: print("took", time.monotonic() - began))
"""
NEVER_RESOLVED = """
import socket, threading
asked = threading.Event()
def never(*_, **__):
    asked.set()
    time.sleep(60)
socket.getaddrinfo = never
"""
BRIEF = """
retried = threading.Event()
tracker = Tracker(Settings(
    project_id="1", customer_id="2", secret_key="a secret of at least 16 bytes", endpoint=ENDPOINT,
    drain_timeout=0.5, sender="httpx",
    hooks=(lambda event: type(event).__name__ == "HitRetried" and retried.set(),),
))
"""
LONGEST = 1.5  # seconds: drain_timeout, half a second of parting, and a busy machine


def took(out: str) -> float:
    """Seconds from the last line of a program to the end of our exit handler."""
    found = re.search(r"took ([0-9.]+)", out)
    assert found is not None, out
    return float(found[1])


def test_a_hit_in_an_exit_handler_that_runs_after_ours_is_refused_and_said(
    tracking_server: TrackingServer,
) -> None:
    early = "import atexit\natexit.register(lambda: (reach(2), print(tracker.stats().refused)))"
    end = ended_well(tracking_server, "reach(1)", early=early)

    assert goals(tracking_server) == ["1"]
    assert end.out == "1\n"
    assert end.err.count("A hit was refused: the tracker is closed.") == 1


def test_a_flush_in_an_exit_handler_returns_and_what_waits_is_delivered(
    tracking_server: TrackingServer,
) -> None:
    ended_well(tracking_server, "atexit.register(lambda: (reach(1), tracker.flush(1)))")

    assert goals(tracking_server) == ["1"]


def test_the_end_interrupts_a_backoff_of_30_s_and_makes_no_storm_of_it(
    tracking_server: TrackingServer,
) -> None:
    tracking_server.default = answer(503, {"Retry-After": "30"})
    script = f"{BRIEF}\nreach(1)\nassert retried.wait(10)\nbegan = time.monotonic()"
    end = ended_well(tracking_server, script, early=LAST)

    assert took(end.out) < LONGEST
    assert 2 <= len(tracking_server.targets) <= 4  # a wait between two attempts is cut to 0.25 s
    assert "WARNING Tracking stops: 1 hits accepted, 0 delivered, 1 dropped" in end.err


@pytest.mark.parametrize("trouble", ["nobody listens", "stalled"])
def test_the_end_takes_no_longer_than_the_drain_timeout(
    trouble: str, tracking_server: TrackingServer
) -> None:
    tracking_server.default = stall()
    script = f"{BRIEF}\nreach(*range(1, 51))\nbegan = time.monotonic()"
    with refused_port() as port:
        endpoint = f"http://localhost:{port}/track/" if trouble == "nobody listens" else ""
        end = ended_well(tracking_server, script, early=LAST, endpoint=endpoint)

    assert took(end.out) < LONGEST
    assert "WARNING Tracking stops: 50 hits accepted, 0 delivered, 50 dropped" in end.err


@pytest.mark.parametrize(
    ("last", "code"),
    [("raise SystemExit(3)", 3), ("raise ValueError", 1), ("os.kill(os.getpid(), signal.SIGINT)", -2)],
)
def test_a_program_that_breaks_off_delivers_what_waits(
    last: str, code: int, tracking_server: TrackingServer
) -> None:
    end = ended(tracking_server, f"reach(*range(1, 51))\n{last}\nthreading.Event().wait(10)")

    assert end.code == code
    assert end.err.count("Traceback") == (code != 3), end.err  # the program's own
    assert len(goals(tracking_server)) == 50
    assert "50 hits accepted, 50 delivered" in end.err


def test_an_abrupt_end_with_hits_waiting_hangs_nowhere_and_says_nothing(
    tracking_server: TrackingServer,
) -> None:
    tracking_server.default = stall()
    end = ended_well(tracking_server, "reach(1, 2, 3)\nos._exit(0)")

    assert not [line for line in end.err.splitlines() if not line.startswith("DEBUG ")]


def test_threads_that_go_on_recording_through_the_end_break_nothing(
    tracking_server: TrackingServer,
) -> None:
    script = (
        BRIEF
        + """
def record():
    for goal in range(1, 100_000):
        reach(goal)
        time.sleep(0.0005)  # else the import of httpx takes many seconds
threads = [threading.Thread(target=record, daemon=True) for _ in range(4)]
for thread in threads:
    thread.start()
while not tracker.stats().delivered:
    time.sleep(0.01)
"""
    )
    end = ended_well(tracking_server, script)

    counted = re.search(r"(\d+) hits accepted, (\d+) delivered", end.err)
    assert counted is not None, end.err
    assert len(goals(tracking_server)) >= int(counted[2]) > 0


def test_an_asgi_app_that_is_driven_without_a_lifespan_delivers_at_the_end(
    tracking_server: TrackingServer,
) -> None:
    script = """
        import asyncio
        from convert_middleware import ConvertMiddleware, current

        async def app(scope, receive, send):
            current().goal(int(scope["path"][1:]))
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            pass

        site = ConvertMiddleware(app, project_id="1", customer_id="2",
                                 secret_key="a secret of at least 16 bytes", endpoint=ENDPOINT)
        for goal in (1, 2, 3):  # each in a loop of its own that is closed before the end
            scope = {"type": "http", "path": f"/{goal}", "method": "GET", "headers": [], "scheme": "http"}
            asyncio.run(site(scope, receive, send))
    """
    ended_well(tracking_server, script)

    assert goals(tracking_server) == ["1", "2", "3"]


def test_a_hit_in_an_exit_handler_makes_no_alarm(tracking_server: TrackingServer) -> None:
    end = ended_well(tracking_server, "atexit.register(reach, 1, 2, 3)")

    assert goals(tracking_server) == ["1", "2", "3"]
    assert "ERROR" not in end.err
    assert "WARNING" not in end.err


def test_many_trackers_end_together_within_the_time_of_one(tracking_server: TrackingServer) -> None:
    with refused_port() as port:
        script = f"""
for number in range(4):
    each = Tracker(Settings(
        project_id="1", customer_id="2", secret_key="a secret of at least 16 bytes", sender="httpx",
        endpoint="http://127.0.0.1:{port}/track/", drain_timeout=1.0,
    ))
    globals()[f"tracker_{{number}}"] = tracker = each
    reach(number + 1)
began = time.monotonic()
"""
        end = ended(tracking_server, script, early=LAST)

    assert end.err.count("1 dropped") == 4
    assert took(end.out) < 1.0 + 1.0  # a deadline, and a busy machine


@pytest.mark.parametrize("asked", [True, False], ids=["asked before the end", "asked at the end or before"])
def test_a_name_that_nobody_resolves_holds_up_no_exit(asked: bool, tracking_server: TrackingServer) -> None:
    """Python 3.12 and newer start no thread at the end, so that ours resolves itself then and gets stuck."""
    script = f"{BRIEF}\nbegan = time.monotonic()\nreach(1)\n{'assert asked.wait(10)' if asked else ''}"
    end = ended(tracking_server, script, early=LAST + NEVER_RESOLVED, endpoint="http://slow.example/track/")

    assert end.code == 0
    assert took(end.out) < 20.0  # it would be 60
    (account,) = accounts_in(end.err)
    assert account.dropped + account.in_flight == 1
    assert account.dropped == 1 or not asked
