"""What may go wrong around a worker, and what must not come of it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from tests.cli.programs import command, fill, hits, status_of, worker
from tests.servers import answer, refused_port

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.servers import TrackingServer


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/outbox.db"


def test_a_worker_whose_server_is_down_ends_as_soon_as_it_is_told_to_and_leaves_what_waits(
    tmp_path: Path,
) -> None:
    fill(tmp_path / "outbox.db", hits(range(1, 101)))
    with (
        refused_port() as port,
        worker(
            "--json", "--report", "0.1", "--drain-timeout", "300",
            outbox=url(tmp_path), endpoint=f"http://127.0.0.1:{port}/track/",
        ) as one,
    ):  # fmt: skip
        one.until(lambda: one.records[-1].get("retried", 0) > 3)
        one.signal(signal.SIGTERM)
        assert one.end() == 0

    assert (one.records[-1]["delivered"], one.records[-1]["dropped"]) == (0, {})
    status = status_of(url(tmp_path))
    assert (status.waiting, status.in_flight) == (100, 0)
    assert 3 < status.retrying <= 100
    assert "The tracking server is down (ConnectionRefusedError); hits wait." in one.complaints


def test_a_worker_of_a_wrong_configuration_leaves_the_backlog_as_it_is(
    tmp_path: Path, tracking_server: TrackingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "outbox.db", hits(range(1, 101)))
    before = status_of(url(tmp_path))
    options = {"outbox": url(tmp_path), "endpoint": tracking_server.endpoint}
    unknown = command("worker", "--sender", "curl", **options)
    monkeypatch.setenv("http_proxy", "gopher://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    unusable = command("worker", **options)

    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr.startswith("convert-middleware: sender must be one of")
    assert unusable.returncode == 2
    assert unusable.stderr.startswith("convert-middleware: sender cannot use the proxy")
    for done in (unknown, unusable):
        assert done.stderr.count("\n") == 1
    after = status_of(url(tmp_path))
    assert (after.waiting, after.retrying, after.in_flight) == (before.waiting, 0, 0)
    assert tracking_server.requests == []


def test_an_outbox_that_is_removed_and_made_anew_is_used_again(
    tmp_path: Path, tracking_server: TrackingServer
) -> None:
    fill(tmp_path / "outbox.db", hits(range(1, 4)))
    with worker("--json", "--report", "0.1", outbox=url(tmp_path), endpoint=tracking_server.endpoint) as one:
        tracking_server.until_requests(3)
        for path in tmp_path.glob("outbox.db*"):
            path.unlink()
        one.until(lambda: one.records[-1]["outbox"] is None)
        fill(tmp_path / "outbox.db", hits(range(4, 7)))
        tracking_server.until_requests(6)
        one.until(lambda: one.records[-1]["outbox"] is not None)
        one.signal(signal.SIGTERM)
        assert one.end() == 0

    assert sorted(tracking_server.targets) == [f"/track/?c=2&p=1&g={n}&ga=1" for n in range(1, 7)]


def test_what_is_refused_for_a_while_arrives_once_it_is_not(
    tmp_path: Path, tracking_server: TrackingServer
) -> None:
    tracking_server.script(*[answer(503)] * 4)
    fill(tmp_path / "outbox.db", hits(range(1, 31)))
    with worker("--json", "--report", "0.1", outbox=url(tmp_path), endpoint=tracking_server.endpoint) as one:
        one.until(lambda: one.records[-1].get("delivered") == 30)
        one.signal(signal.SIGTERM)
        assert one.end() == 0

    assert one.records[-1]["retried"] == 4
    assert len(set(tracking_server.targets)) == 30
    assert len(tracking_server.targets) == 34
