"""Hits in a file: where it cannot be used, memory takes over, and once it can be, it is used again."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import httpx
import pytest

from convert_middleware import SettingsError
from convert_middleware.delivery.worker import LANES
from convert_middleware.hooks import OutboxSetAside
from convert_middleware.wire import decode
from tests.delivery.conftest import until
from tests.servers import after, answer
from tests.tracker.visits import Visit

if TYPE_CHECKING:
    from pathlib import Path

    from convert_middleware import Tracker
    from tests.asgi.conftest import Convert


def durable(convert: Convert, folder: Path) -> Tracker:
    return convert.tracker(outbox=f"sqlite:///{folder}/outbox.db", hooks=[])


def reach(tracker: Tracker, goal: int, *cookies: bytes) -> bytes:
    visit = Visit(tracker, *cookies)
    visit.convert.goal(goal)
    return visit.respond()


def waiting_in(path: Path) -> int:
    """Return how many hits are in the file, as another process sees it."""
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM hits").fetchone()[0])


def errors_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]


def goals_of(convert: Convert) -> list[int]:
    return sorted(goal for target in convert.server.targets for goal in decode(target).goals)


def test_hits_go_through_the_file_and_arrive_once(convert: Convert, tmp_path: Path) -> None:
    tracker = durable(convert, tmp_path)
    for goal in range(1, 51):
        reach(tracker, goal)
    assert tracker.flush(10.0)
    assert goals_of(convert) == list(range(1, 51))
    assert (tracker.stats().accepted, tracker.stats().delivered) == (50, 50)
    assert (tmp_path / "outbox.db").exists()


def test_what_a_tracker_leaves_is_delivered_by_the_next(convert: Convert, tmp_path: Path) -> None:
    held = convert.hold()
    tracker = durable(convert, tmp_path)
    for goal in range(1, 51):
        reach(tracker, goal)
    tracker.close(0.2)
    left = tracker.stats()
    assert set(left.dropped) == {"interrupted"}  # what had left and was not answered
    assert left.waiting == 50 - left.dropped["interrupted"] >= 50 - LANES
    held.set()
    until(lambda: len(convert.server.targets) >= 16)
    following = durable(convert, tmp_path)
    following.start()
    until(lambda: len(set(goals_of(convert))) == 50)
    assert goals_of(convert) == list(range(1, 51))


def test_without_its_folder_memory_takes_over_and_the_file_is_used_again_later(
    convert: Convert, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "outbox"
    folder.mkdir()
    tracker = durable(convert, folder)
    reach(tracker, 1)
    assert tracker.flush(20.0)
    shutil.rmtree(folder)
    for goal in range(2, 22):
        reach(tracker, goal)
    assert tracker.flush(20.0)
    assert goals_of(convert) == list(range(1, 22))
    assert caplog.text.count("Hits wait in memory meanwhile.") == 1
    folder.mkdir()
    convert.clock.now += 60
    reach(tracker, 22)
    assert tracker.flush(20.0)
    assert caplog.text.count("The outbox works again.") == 1
    assert goals_of(convert) == list(range(1, 23))


def test_while_no_sender_can_be_opened_hits_reach_the_file_and_they_are_sent_once_it_can(
    convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("http_proxy", "gopher://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    tracker = durable(convert, tmp_path)
    for goal in range(1, 21):
        reach(tracker, goal)
    until(lambda: waiting_in(tmp_path / "outbox.db") == 20)
    until(lambda: "No hit can be sent, and all are kept meanwhile: sender cannot use" in caplog.text)
    assert tracker.close(0.5)
    assert waiting_in(tmp_path / "outbox.db") == tracker.stats().waiting == 20
    convert.trackers.remove(tracker)  # what it left is the other's now

    following = durable(convert, tmp_path)
    following.start()
    until(lambda: caplog.text.count("No hit can be sent") == 2)
    monkeypatch.delenv("http_proxy")
    until(lambda: following.stats().delivered == 20)
    assert goals_of(convert) == list(range(1, 21))


def test_what_came_before_a_sender_was_made_is_in_the_file_by_then(convert: Convert, tmp_path: Path) -> None:
    found: list[int] = []

    def make_client() -> httpx.AsyncClient:
        found.append(waiting_in(tmp_path / "outbox.db"))
        return httpx.AsyncClient()

    tracker = convert.tracker(outbox=f"sqlite:///{tmp_path}/outbox.db", hooks=[], sender=make_client)
    for goal in range(1, 6):
        reach(tracker, goal)
    assert tracker.flush(10.0)
    assert found == [5]
    assert goals_of(convert) == list(range(1, 6))


@pytest.mark.parametrize(
    "outbox",
    ["sqlite://", "sqlite:///", "sqlite:outbox.db", "sqlite:///no/such/folder/outbox.db", "sqlite:////"],
)
def test_a_place_where_no_file_can_be_is_refused(outbox: str, convert: Convert) -> None:
    with pytest.raises(SettingsError, match=r"^outbox "):
        convert.tracker(outbox=outbox)


def test_another_programs_file_is_refused_and_left_alone(convert: Convert, tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "outbox.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (id)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(SettingsError, match=r"^outbox "):
        durable(convert, tmp_path)
    assert path.read_bytes() == before


def test_with_a_file_of_another_version_the_site_runs_says_so_once_and_leaves_it_alone(
    convert: Convert, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "outbox.db"
    durable(convert, tmp_path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 7")
    before = path.read_bytes()

    tracker = durable(convert, tmp_path)
    for goal in (1, 2, 3):
        reach(tracker, goal)
    assert tracker.flush(10.0)
    assert goals_of(convert) == [1, 2, 3]
    assert path.read_bytes() == before
    (said,) = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert "written in version 7 and this package writes 2; empty it with the version that wrote it" in said
    assert said.endswith("Hits wait in memory meanwhile.")

    path.unlink()
    convert.clock.now += 60
    reach(tracker, 4)
    assert tracker.flush(10.0)
    assert caplog.text.count("The outbox works again.") == 1
    assert path.exists()


def test_a_file_found_broken_at_the_start_is_named_in_one_error_and_the_site_goes_on(
    convert: Convert, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "outbox.db"
    durable(convert, tmp_path).close()
    path.write_bytes(b"no database at all " * 1000)

    tracker = convert.tracker(outbox=f"sqlite:///{path}")
    (said,) = errors_of(caplog)
    assert (
        said
        == f"The file of the outbox was broken and is {path}.corrupt-1 now; what waited in it is not sent."
    )
    assert convert.told(OutboxSetAside) == [OutboxSetAside(file=f"{path}.corrupt-1")]
    for goal in (1, 2, 3):
        reach(tracker, goal)
    assert tracker.flush(10.0)
    assert goals_of(convert) == [1, 2, 3]
    assert len(errors_of(caplog)) == 1
    assert len(convert.told(OutboxSetAside)) == 1


def test_what_waited_in_a_file_that_breaks_is_counted_and_the_file_it_is_in_now_is_named(
    convert: Convert, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "outbox.db"
    convert.server.default = answer(503, headers={"Retry-After": "3600"})
    tracker = convert.tracker(outbox=f"sqlite:///{path}", drain_timeout=0.1)
    for goal in range(1, 21):
        reach(tracker, goal)
    until(lambda: "is down" in caplog.text and tracker.stats().waiting == 20)
    assert tracker.drain()
    assert tracker.stats().waiting == 20
    for name in ("outbox.db", "outbox.db-wal"):
        (tmp_path / name).unlink(missing_ok=True)
    path.write_bytes(b"no database at all " * 1000)
    convert.server.default = answer(200)
    reach(tracker, 21)

    until(lambda: tracker.stats().dropped == {"file lost": 20})
    assert [line for line in errors_of(caplog) if f"broken and is {path}.corrupt-1 now" in line]
    convert.clock.now += 60
    reach(tracker, 22)
    assert tracker.flush(10.0)
    assert {21, 22} <= set(goals_of(convert))
    assert convert.told(OutboxSetAside) == [OutboxSetAside(file=f"{path}.corrupt-1")]


def test_what_the_server_asked_to_wait_for_is_waited_for_by_the_next_process_too(
    convert: Convert, tmp_path: Path
) -> None:
    convert.server.script(after(0.2, answer(503, headers={"Retry-After": "30"})))
    tracker = durable(convert, tmp_path)
    reach(tracker, 1)
    until(lambda: convert.server.targets)
    tracker.close(0.5)
    assert tracker.stats().waiting == 1

    following = durable(convert, tmp_path)
    convert.clock.now += 25
    reach(following, 2)
    until(lambda: 2 in goals_of(convert))
    assert goals_of(convert) == [1, 2]
    convert.clock.now += 6
    reach(following, 3)
    assert following.flush(10.0)
    assert goals_of(convert) == [1, 1, 2, 3]
