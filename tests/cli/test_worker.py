"""Workers in processes of their own, against a real server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from convert_middleware.delivery.worker import LANES
from convert_middleware.wire import decode
from tests.cli.programs import PATIENCE, ROOT, environment, fill, hits, status_of, worker
from tests.delivery.sqlite.children import child
from tests.servers import TrackingServer, after, answer, stall

if TYPE_CHECKING:
    from pathlib import Path


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/outbox.db"


def goals_of(server: TrackingServer) -> Counter[int]:
    return Counter(goal for target in server.targets for goal in decode(target).goals)


def test_hits_that_another_process_puts_into_the_outbox_leave_a_quarter_of_a_second_later(
    tmp_path: Path, tracking_server: TrackingServer
) -> None:
    script = """
        outbox = SqliteOutbox(PATH)
        say("open")
        for number in range(1, 8):
            sys.stdin.readline()
            run(outbox.put([Entry(f"c=2&p=1&g={number}&ga=1", Worth.GOAL, time.time())]))
    """
    delays = []
    with (
        worker(outbox=url(tmp_path), endpoint=tracking_server.endpoint),
        child(tmp_path / "outbox.db", script) as site,
    ):
        site.line()
        for number in range(1, 8):
            began = time.monotonic()
            site.tell()
            tracking_server.until_requests(number)
            delays.append(time.monotonic() - began)

    assert goals_of(tracking_server) == Counter(range(1, 8))
    assert sorted(delays)[3] < 0.5  # the machine may be busy


def test_what_is_under_way_ends_well_when_it_is_told_to_end_and_the_rest_waits_for_others(
    tmp_path: Path, tracking_server: TrackingServer
) -> None:
    tracking_server.default = after(0.4, answer())
    fill(tmp_path / "outbox.db", hits(range(1, 201)))
    options = {"outbox": url(tmp_path), "endpoint": tracking_server.endpoint}
    with worker("--json", **options) as one:
        tracking_server.until_requests(LANES)
        one.signal(signal.SIGTERM)
        assert one.end() == 0
        assert one.complaints == ""
    sent = len(tracking_server.requests)
    stopped = one.records[-1]
    status = status_of(options["outbox"])

    assert (stopped["event"], stopped["delivered"], stopped["dropped"]) == ("stopped", sent, {})
    assert LANES <= sent < 200
    assert (status.waiting, status.in_flight, status.dead) == (200 - sent, 0, 0)
    tracking_server.default = answer()
    with worker(**options) as other:
        tracking_server.until_requests(200)
        other.signal(signal.SIGINT)
        assert other.end() == 0
    assert goals_of(tracking_server) == Counter(range(1, 201))


def test_a_second_signal_ends_it_at_once(tmp_path: Path, tracking_server: TrackingServer) -> None:
    tracking_server.default = stall()
    fill(tmp_path / "outbox.db", hits(range(1, 3)))
    with worker(
        "--json", "--drain-timeout", "200", outbox=url(tmp_path), endpoint=tracking_server.endpoint
    ) as one:
        tracking_server.until_requests(2)
        one.signal(signal.SIGTERM)
        one.until_said("ending")
        one.signal(signal.SIGTERM)
        assert one.end() == 128 + signal.SIGTERM

    assert [(each["event"], each["in_flight"]) for each in one.records[1:]] == [("ending", 2), ("stopped", 0)]
    assert one.records[-1]["dropped"] == {"interrupted": 2}
    assert status_of(url(tmp_path)).in_flight == 0


def test_what_does_not_end_within_the_drain_timeout_is_given_up(
    tmp_path: Path, tracking_server: TrackingServer
) -> None:
    tracking_server.default = stall()
    fill(tmp_path / "outbox.db", hits(range(1, 3)))
    with worker(
        "--json", "--drain-timeout", "0.2", outbox=url(tmp_path), endpoint=tracking_server.endpoint
    ) as one:
        tracking_server.until_requests(2)
        one.signal(signal.SIGTERM)
        assert one.end() == 0

    assert one.records[-1]["dropped"] == {"interrupted": 2}


def test_when_one_of_two_workers_is_killed_nothing_leaves_twice_and_only_what_it_held_is_missing(
    tmp_path: Path, tracking_server: TrackingServer
) -> None:
    tracking_server.default = after(0.02, answer())
    numbers = range(1, 2001)
    fill(tmp_path / "outbox.db", hits(numbers))
    options = {"outbox": url(tmp_path), "endpoint": tracking_server.endpoint}
    with worker("--json", **options) as one, worker("--json", "--report", "0.2", **options) as other:
        tracking_server.until_requests(300)
        one.signal(signal.SIGKILL)
        one.end()
        other.until(lambda: status_of(options["outbox"]).waiting == 0)
        other.signal(signal.SIGTERM)
        assert other.end() == 0

    sent = goals_of(tracking_server)
    held = status_of(options["outbox"]).in_flight
    missing = set(numbers) - set(sent)
    assert set(sent.values()) == {1}
    assert len(missing) <= held <= 2 * LANES
    assert other.records[-1]["dropped"] == {}


def test_hits_of_several_projects_go_to_the_server_of_each(
    tmp_path: Path, tracking_server: TrackingServer
) -> None:
    with TrackingServer() as second:
        servers = (tracking_server, second)
        for server in servers:
            fill(tmp_path / "outbox.db", hits(range(1, 21), project=server.port))
        with worker(outbox=url(tmp_path), endpoint="http://127.0.0.1:{project_id}/track/"):
            for server in servers:
                server.until_requests(20)
        for server in servers:
            assert {decode(target).project_id for target in server.targets} == {server.port}
            assert goals_of(server) == Counter(range(1, 21))


def test_it_reports_in_plain_lines_without_anything_of_a_visitor(
    tmp_path: Path, tracking_server: TrackingServer
) -> None:
    tracking_server.script(answer(503), answer(404))
    fill(tmp_path / "outbox.db", hits(range(331, 341)))
    with worker("--report", "0.1", "--outbox", url(tmp_path), "--endpoint", tracking_server.endpoint) as one:
        one.until_said("delivered 9 ")
        one.signal(signal.SIGTERM)
        assert one.end() == 0

    moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    assert re.fullmatch(rf"{moment} started: from {url(tmp_path)} to http://\S+, sender auto", one.lines[0])
    done = r"delivered 9 \(\d+\.\d/s\), retried 1, dropped 0, dead 1; outbox: 0 waiting, 0 in flight, 1 dead"
    assert re.fullmatch(rf"{moment} stopped: {done}", one.lines[-1])
    said = "\n".join(one.lines) + one.complaints
    assert "A hit was refused for good: status 404." in said
    assert "g=3" not in said


def test_it_reports_in_json_to_programs(tmp_path: Path, tracking_server: TrackingServer) -> None:
    fill(tmp_path / "outbox.db", hits(range(1, 11)))
    with worker(outbox=url(tmp_path), endpoint=tracking_server.endpoint, report="0.1", json="true") as one:
        one.until(lambda: one.records[-1].get("delivered") == 10)
        one.until(lambda: len(one.lines) > 3)
        one.signal(signal.SIGTERM)
        assert one.end() == 0

    started, *reports, _, stopped = one.records
    assert {name: started[name] for name in ("event", "outbox", "endpoint", "sender")} == {
        "event": "started",
        "outbox": url(tmp_path),
        "endpoint": tracking_server.endpoint,
        "sender": "auto",
    }
    assert {each["event"] for each in reports} == {"report"}
    assert (stopped["event"], stopped["delivered"], stopped["retried"]) == ("stopped", 10, 0)
    assert stopped["outbox"] == {
        "waiting": 0, "retrying": 0, "in_flight": 0, "dead": 0, "bytes": 0, "oldest_age": None,
        "processes": 0,
    }  # fmt: skip
    assert sum(round(each["per_second"] * each["seconds"]) for each in reports) in range(9, 12)
    assert [each["time"] for each in one.records] == sorted(each["time"] for each in one.records)


def test_it_goes_on_when_nobody_reads_what_it_says(tmp_path: Path, tracking_server: TrackingServer) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    fill(tmp_path / "outbox.db", hits(range(1, 6)))
    options = environment(outbox=url(tmp_path), endpoint=tracking_server.endpoint, report="0.1")
    command = [sys.executable, "-m", "convert_middleware", "worker"]
    with subprocess.Popen(
        command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=options
    ) as process:
        try:
            os.close(writer)
            tracking_server.until_requests(5)
            process.terminate()
            _, complaints = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, complaints) == (0, "")
