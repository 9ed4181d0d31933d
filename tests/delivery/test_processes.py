"""Real processes: forks, signals and ends of every kind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.accounts import accounts_in
from tests.discretion import assert_discreet
from tests.servers import TrackingServer, after, answer, stall

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import Behaviour, Seen

START = """
import atexit, logging, multiprocessing, os, signal, sys, threading, time
from convert_middleware import Settings, Tracker
logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(message)s")
tracker = Tracker(Settings(
    project_id="1", customer_id="2", secret_key="a secret of at least 16 bytes", endpoint=ENDPOINT
))

def reach(*goals):
    for goal in goals:
        visitor = tracker.load(()).visitor
        with tracker.resume(tracker.write_token(visitor)) as recorder:
            recorder.goal(goal)
"""


@contextmanager
def running(
    server: TrackingServer, script: str, *, host: str = "127.0.0.1"
) -> Iterator[subprocess.Popen[str]]:
    """A program of its own with a tracker; ended by force if it does not end by itself."""
    endpoint = f"http://{host}:{server.port}/track/"
    text = f"ENDPOINT = {endpoint!r}\n{START}\n{textwrap.dedent(script)}"
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "ignore::DeprecationWarning", "-c", text],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with the children it forked


def run(server: TrackingServer, script: str, *, host: str = "127.0.0.1") -> str:
    """Run a program to its end, which must be a good one, and return what it said."""
    with running(server, script, host=host) as process:
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "Traceback" not in err, err
    assert "Warning" not in err, err
    assert_discreet([out, err])
    accounts_in(err)
    return out + err


def goals(server: TrackingServer) -> list[str]:
    """The goals that arrived, in order of their ids."""
    return sorted(target.partition("&g=")[2].partition("&")[0] for target in server.targets)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_program_that_just_ends_delivers_what_waits(host: str, tracking_server: TrackingServer) -> None:
    said = run(tracking_server, "reach(*range(1, 101))", host=host)

    assert len(goals(tracking_server)) == 100
    assert "100 hits accepted, 100 delivered" in said


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_first_hit_in_an_exit_handler_is_delivered(host: str, tracking_server: TrackingServer) -> None:
    said = run(tracking_server, "atexit.register(reach, 1)", host=host)

    assert goals(tracking_server) == ["1"]
    assert "1 hits accepted, 1 delivered" in said


def test_a_program_that_never_tracked_ends_silently(tracking_server: TrackingServer) -> None:
    assert run(tracking_server, "") == ""
    assert tracking_server.connections == 0


def test_a_program_that_ends_in_a_backoff_tries_at_once_and_waits_no_longer_than_it_may(
    tracking_server: TrackingServer,
) -> None:
    tracking_server.script(answer(503, {"Retry-After": "30"}))
    run(tracking_server, "reach(1)\ntracker.flush(0.3)")

    assert goals(tracking_server) == ["1", "1"]


@pytest.mark.parametrize("sender", ["httptools", "pyreqwest", "httpx", "httpx2"])
def test_after_a_start_ahead_the_first_hit_loads_nothing_more(
    sender: str, tracking_server: TrackingServer
) -> None:
    script = f"""
        tracker = Tracker(Settings(
            project_id="1", customer_id="2", secret_key="another of at least 16 bytes", endpoint=ENDPOINT,
            sender="{sender}",
        ))
        tracker.start()
        while not (tracker._delivery._worker and tracker._delivery._worker.sleeping):
            time.sleep(0.01)  # nothing tells when the thread has loaded everything
        loaded = set(sys.modules)
        reach(1)
        assert tracker.flush(20.0)
        assert not set(sys.modules) - loaded, set(sys.modules) - loaded
    """
    run(tracking_server, script)

    assert goals(tracking_server) == ["1"]


def test_what_cannot_be_delivered_by_the_end_is_counted_and_said(tracking_server: TrackingServer) -> None:
    tracking_server.default = stall()
    said = run(tracking_server, "reach(1, 2, 3)\ntracker.close(0.3)")

    assert "WARNING Tracking stops: 3 hits accepted, 0 delivered, 3 dropped, 0 dead, 0 waiting" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_loses_nothing(number: signal.Signals, tracking_server: TrackingServer) -> None:
    held = threading.Event()

    def hold(_: Seen) -> Behaviour:
        assert held.wait(10.0)
        return answer()

    tracking_server.default = hold
    script = """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        reach(*range(1, 501))
        try:
            counts = tracker.stats()
            print(counts.waiting + counts.in_flight, counts.waiting > 400, flush=True)
            threading.Event().wait(30)
        except KeyboardInterrupt:
            pass  # as a server that ends in order then
    """
    with running(tracking_server, script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "500 True\n"
        process.send_signal(number)
        held.set()
        _, said = process.communicate(timeout=30)

    assert process.returncode == 0
    assert "500 hits accepted, 500 delivered" in said
    assert len(set(goals(tracking_server))) == len(goals(tracking_server)) == 500


FORK = """
reach(1)
tracker.flush(20.0)  # imports are done
reach(2, 3)
{before}
child = os.fork()
if not child:
    reach(10)
    {end}
_, status = os.waitpid(child, 0)
assert status == 0, status
"""


@pytest.mark.parametrize("end", ["sys.exit(0)", "tracker.flush(20.0); os._exit(0)"])
def test_a_fork_with_hits_waiting_sends_each_once(end: str, tracking_server: TrackingServer) -> None:
    run(tracking_server, FORK.format(before="", end=end))

    assert goals(tracking_server) == ["1", "10", "2", "3"]


PAST_THE_HOOKS = """
import ctypes
fork = ctypes.PyDLL(None).fork  # holds the interpreter lock, as an extension does that forks
{before}
time.sleep(0.2)  # Python itself survives such a fork only while no other thread wants that lock
child = fork()
if not child:
    reach(100)
    {end}
_, status = os.waitpid(child, 0)
assert status == 0, status
"""
ENDS = {
    "flushed": "assert tracker.flush(20.0); os._exit(0)",
    "exits": "sys.exit(0)",
}
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only there the C library needs no name")


@ON_LINUX
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("busy", [0, 1, 16], ids=["idle", "with a hit in flight", "with every lane busy"])
def test_a_fork_past_the_hooks_of_python_sends_each_hit_once(
    busy: int, end: str, tracking_server: TrackingServer
) -> None:
    tracking_server.default = lambda seen: after(1.0) if "g=1000" in seen.target else answer()
    before = f"""
reach(1, 2, 3)
tracker.flush(20.0)
reach(*[1000] * {busy})
while tracker.stats().in_flight < {busy}:
    time.sleep(0.01)  # nothing tells when the lanes are busy
"""
    run(tracking_server, PAST_THE_HOOKS.format(before=before, end=ENDS[end]))

    assert goals(tracking_server) == sorted(["1", "2", "3", "100", *["1000"] * busy])


@ON_LINUX
def test_a_file_that_was_open_at_a_fork_past_the_hooks_is_left_alone_by_the_child(
    tracking_server: TrackingServer, tmp_path: object
) -> None:
    before = f"""
tracker = Tracker(Settings(
    project_id="1", customer_id="2", secret_key="another of at least 16 bytes", endpoint=ENDPOINT,
    outbox="sqlite:///{tmp_path}/outbox.db",
))
reach(1, 2, 3)
assert tracker.flush(20.0)
"""
    said = run(tracking_server, PAST_THE_HOOKS.format(before=before, end=ENDS["flushed"]) + "reach(4)")

    assert goals(tracking_server) == ["1", "100", "2", "3", "4"]
    assert (
        said.count("this process was forked past Python's hooks while it was open. Hits wait in memory") == 1
    )


@pytest.mark.parametrize("moment", [0.0, 0.02, 0.05, 0.1, 0.2, 0.3])
def test_a_fork_while_the_first_hits_load_what_they_need_sends_each_once(
    moment: float, tracking_server: TrackingServer
) -> None:
    script = f"""
        reach(1, 2, 3)
        time.sleep({moment})  # how far the thread gets is what differs
        child = os.fork()
        if not child:
            reach(10)
            sys.exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
    """
    run(tracking_server, script)

    assert goals(tracking_server) == ["1", "10", "2", "3"]


def test_a_hook_can_fork_in_the_delivery_thread(tracking_server: TrackingServer) -> None:
    script = """
        def fork(event):
            if not children and type(event).__name__ == "HitDelivered":
                children.append(os.fork())
                if not children[0]:
                    reach(10)
                    tracker.flush(20.0)
                    os._exit(0)
        children = []
        tracker = Tracker(Settings(
            project_id="1", customer_id="2", secret_key="another of at least 16 bytes", endpoint=ENDPOINT,
            hooks=(fork,),
        ))
        reach(1, 2, 3)
        assert tracker.flush(10)
        assert os.waitpid(children[0], 0)[1] == 0
    """
    run(tracking_server, script)

    assert goals(tracking_server) == ["1", "10", "2", "3"]


def test_a_closed_tracker_stays_closed_in_a_child(tracking_server: TrackingServer) -> None:
    script = """
        reach(1)
        tracker.close()
        child = os.fork()
        if not child:
            reach(10)
            assert tracker.stats().refused == 1
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
    """
    run(tracking_server, script)

    assert goals(tracking_server) == ["1"]


@pytest.mark.parametrize("lock", ["tracker._delivery._outbox._lock", "tracker._delivery._starting"])
def test_a_fork_with_a_lock_held_by_another_thread_locks_nothing_up(
    lock: str, tracking_server: TrackingServer
) -> None:
    before = f"""
held, done = threading.Event(), threading.Event()
def hold():
    with {lock}:
        held.set()
        done.wait(10)
thread = threading.Thread(target=hold)
thread.start()
held.wait(10)
"""
    run(tracking_server, FORK.format(before=before, end="tracker.close(); os._exit(0)") + "done.set()")

    assert goals(tracking_server) == ["1", "10", "2", "3"]


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_child_that_ends_abruptly_takes_nothing_of_its_parents(
    end: str, tracking_server: TrackingServer
) -> None:
    script = f"""
        reach(1, 2, 3)
        child = os.fork()
        if not child:
            {end}
        os.waitpid(child, 0)
    """
    run(tracking_server, script)

    assert goals(tracking_server) == ["1", "2", "3"]


def test_a_tracker_collected_before_the_fork_is_no_trouble(tracking_server: TrackingServer) -> None:
    script = """
        reach(1)
        tracker.close()
        del tracker
        child = os.fork()
        if not child:
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
    """
    run(tracking_server, script)

    assert goals(tracking_server) == ["1"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_deliver_their_own(
    method: str, tracking_server: TrackingServer, tmp_path: object
) -> None:
    program = f"{tmp_path}/program.py"
    body = f"""
def work(goal):
    reach(goal)
    tracker.flush(20.0)

if __name__ == "__main__":
    reach(1, 2)
    context = multiprocessing.get_context({method!r})
    workers = [context.Process(target=work, args=(goal,)) for goal in (10, 11, 12)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
"""
    with open(program, "w", encoding="utf-8") as file:  # noqa: PTH123 - tmp_path comes as a text
        file.write(f"ENDPOINT = {tracking_server.endpoint!r}\n{START}\n{body}")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert goals(tracking_server) == ["1", "10", "11", "12", "2"]


def test_without_a_thread_hits_are_kept_with_one_clear_error_and_sent_when_one_can_start(
    tracking_server: TrackingServer,
) -> None:
    script = """
        start = threading.Thread.start
        def refuse(self):
            raise RuntimeError("can't start new thread")
        threading.Thread.start = refuse
        reach(1, 2, 3)
        assert tracker.stats().waiting == 3
        threading.Thread.start = start
        while not tracker.flush(20.0):
            time.sleep(0.1)  # a second passes between two tries to start the thread
        assert tracker.stats().delivered == 3
    """
    said = run(tracking_server, script)

    assert said.count("No thread could be started; hits are kept") == 1
    assert goals(tracking_server) == ["1", "2", "3"]
