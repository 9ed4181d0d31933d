"""Looking into an outbox and mending it, from the command line."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from convert_middleware.delivery import Entry, Worth
from convert_middleware.delivery.sqlite import SqliteOutbox
from tests.cli.programs import PATIENCE, ROOT, asked, command, environment, fill, hits, status_of, worker
from tests.servers import TrackingServer, answer

if TYPE_CHECKING:
    from pathlib import Path

SALE = "c=2&p=1&g=35&ga=1&t=35%7Csecret-order%7C1599.99%7C10"


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/outbox.db"


def test_the_status_is_a_table_for_people_and_json_for_programs(tmp_path: Path) -> None:
    fill(tmp_path / "outbox.db", hits(range(1, 4)), dead="status 404")
    fill(tmp_path / "outbox.db", [Entry("c=2&p=1&g=1&ga=1", Worth.GOAL, time.time() - 7500)])
    done = command("outbox", "status", "--outbox", url(tmp_path))
    facts = asked("outbox", "status", "--outbox", url(tmp_path))

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == url(tmp_path), "however long it is"
    rows = {
        cells[1].strip(): cells[2].strip()
        for row in done.stdout.splitlines()
        if len(cells := row.split("│")) > 2
    }
    assert rows == {
        "waiting": "1",
        "of these tried before": "0",
        "bytes": "16",
        "oldest": "2 h 5 min",
        "in flight": "0",
        "dead letters": "3",
        "processes seen lately": "0",
    }
    assert facts.pop("oldest_age") == pytest.approx(7500, abs=60)
    assert facts == {
        "outbox": url(tmp_path), "waiting": 1, "retrying": 0, "in_flight": 0, "dead": 3, "bytes": 16,
        "processes": 0,
    }  # fmt: skip


def test_dead_letters_show_why_they_died_and_nothing_of_visitors_unless_asked(tmp_path: Path) -> None:
    now = time.time()
    reason = "status 404 for https://me:pw@convert.example/track/?c=2 t=35|secret-order|1599.99"
    fill(tmp_path / "outbox.db", [Entry(SALE, Worth.REVENUE, now - 90)], dead=reason)
    options = {"outbox": url(tmp_path)}
    table = command("outbox", "dead", **options)
    facts = asked("outbox", "dead", **options)

    assert (table.returncode, table.stderr) == (0, "")
    assert "revenue" in table.stdout
    assert "1 min 30 s" in table.stdout
    assert "status 404 for … …" in table.stdout
    (letter,) = facts["letters"]
    assert facts["dead"] == 1
    assert now - 1 < letter.pop("died_at") < now + 60
    assert letter == {
        "key": "1", "worth": "revenue", "accepted_at": now - 90, "attempts": 1,
        "reason": "status 404 for … …",
    }  # fmt: skip
    for shown in (table.stdout, str(facts)):
        for secret in ("secret-order", "1599.99", "example", "pw"):
            assert secret not in shown
    lines = command("outbox", "dead", "--show-text", **options).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["key", "1", SALE], "on a line of its own"
    assert asked("outbox", "dead", "--show-text", **options)["letters"][0]["text"] == SALE


def test_dead_letters_are_shown_page_by_page(tmp_path: Path) -> None:
    fill(tmp_path / "outbox.db", hits(range(1, 8)), dead="status 410")
    options = {"outbox": url(tmp_path)}
    first = command("outbox", "dead", "--number", "3", **options)

    assert "3 of 7; continue with --after 3" in first.stdout
    second = asked("outbox", "dead", "--number", "3", "--after", "3", **options)
    assert [letter["key"] for letter in second["letters"]] == ["4", "5", "6"]
    assert "There are no further dead letters." in command("outbox", "dead", "--after", "7", **options).stdout
    command("outbox", "purge", "--dead", "--yes", **options)
    assert "There are no dead letters." in command("outbox", "dead", **options).stdout


def test_what_a_terminal_would_obey_is_not_written_to_it(tmp_path: Path) -> None:
    fill(
        tmp_path / "outbox.db",
        [Entry("[red]\x1b]0;owned\x07\x9b2J", Worth.GOAL, time.time())],
        dead="\x1b[2Jgone",
    )
    done = command("outbox", "dead", "--show-text", outbox=url(tmp_path))

    assert done.returncode == 0
    assert "[red]�]0;owned��2J" in done.stdout
    assert "�[2Jgone" in done.stdout
    assert "\x1b" not in done.stdout


def test_letters_that_are_replayed_are_delivered_and_the_others_stay(
    tmp_path: Path, tracking_server: TrackingServer
) -> None:
    tracking_server.default = answer(404)
    options = {"outbox": url(tmp_path), "endpoint": tracking_server.endpoint}
    fill(tmp_path / "outbox.db", hits(range(1, 6)))
    with worker("--json", **options) as one:
        one.until(lambda: status_of(url(tmp_path)).dead == 5)
        tracking_server.default = answer()
        keys = {
            letter["text"]: letter["key"]
            for letter in asked("outbox", "dead", "--show-text", **options)["letters"]
        }
        some = command("outbox", "replay", keys["c=2&p=1&g=2&ga=1"], keys["c=2&p=1&g=4&ga=1"], **options)
        assert (some.returncode, some.stdout, some.stderr) == (0, "2 dead letters wait again.\n", "")
        tracking_server.until_requests(7)
        assert status_of(url(tmp_path)).dead == 3
        assert asked("outbox", "replay", "--all", **options) == {"asked": 3, "replayed": 3}
        tracking_server.until_requests(10)
        one.until(lambda: status_of(url(tmp_path)).in_flight == 0)
        one.signal(signal.SIGTERM)
        assert one.end() == 0

    assert sorted(tracking_server.targets[5:7]) == [f"/track/?c=2&p=1&g={n}&ga=1" for n in (2, 4)]
    assert sorted(tracking_server.targets[7:]) == [f"/track/?c=2&p=1&g={n}&ga=1" for n in (1, 3, 5)]
    status = status_of(url(tmp_path))
    assert (status.waiting, status.dead) == (0, 0)


def test_a_letter_older_than_any_hit_may_get_is_delivered_when_it_is_replayed(
    tmp_path: Path, tracking_server: TrackingServer
) -> None:
    options = {"outbox": url(tmp_path), "endpoint": tracking_server.endpoint}
    fill(
        tmp_path / "outbox.db",
        [Entry("c=2&p=1&g=1&ga=1", Worth.GOAL, time.time() - 10**6)],
        dead="status 404",
    )
    asked("outbox", "replay", "--all", **options)
    with worker(**options):
        tracking_server.until_requests(1)


def test_keys_that_name_nothing_are_said_and_those_that_do_are_replayed(tmp_path: Path) -> None:
    fill(tmp_path / "outbox.db", hits(range(1, 4)), dead="status 404")
    done = command("outbox", "replay", "2", "77", "2", "x", outbox=url(tmp_path))

    assert (done.returncode, done.stdout) == (1, "1 dead letter waits again.\n")
    assert done.stderr == "convert-middleware: 2 keys named no dead letter.\n"
    assert status_of(url(tmp_path)).dead == 2


@pytest.mark.parametrize("arguments", [[], ["1", "--all"]])
def test_replaying_needs_either_keys_or_all(arguments: list[str], tmp_path: Path) -> None:
    fill(tmp_path / "outbox.db", hits(range(1, 4)), dead="status 404")
    done = command("outbox", "replay", *arguments, outbox=url(tmp_path))

    assert (done.returncode, done.stdout) == (2, "")
    assert "Name the keys of the letters to replay, or --all." in done.stderr


def test_replaying_many_shows_a_bar_on_a_terminal(tmp_path: Path) -> None:
    fill(tmp_path / "outbox.db", hits(range(1, 1202)), dead="status 404")
    terminal, end = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "convert_middleware", "outbox", "replay", "--all"],
            stdout=subprocess.PIPE, stderr=end, text=True, timeout=PATIENCE, check=False, cwd=ROOT,
            env=environment(outbox=url(tmp_path)) | {"TERM": "xterm"},
        )  # fmt: skip
        shown = os.read(terminal, 100_000).decode()
    finally:
        os.close(end)
        os.close(terminal)

    assert (done.returncode, done.stdout) == (0, "1201 dead letters wait again.\n")
    assert "Replaying" in shown
    assert "100%" in shown
    assert status_of(url(tmp_path)).waiting == 1201


@pytest.mark.parametrize(
    ("what", "given", "deleted"),
    [
        ("dead", "y\n", True),
        ("dead", "\n", False),
        ("dead", "", False),
        ("waiting", "YES\n", True),
        ("waiting", "n\n", False),
    ],
)
def test_purging_asks_first_and_nobody_means_no(what: str, given: str, deleted: bool, tmp_path: Path) -> None:
    fill(tmp_path / "outbox.db", hits(range(1, 3)), dead="status 404")
    fill(tmp_path / "outbox.db", hits(range(3, 5)))
    done = command("outbox", "purge", f"--{what}", given=given, outbox=url(tmp_path))
    status = status_of(url(tmp_path))

    name = {"dead": "dead letters", "waiting": "waiting hits"}[what]
    assert done.stderr.startswith(f"Delete 2 {name} in {url(tmp_path)}? [y/N] ")
    left = {"dead": 2, "waiting": 2} | ({what: 0} if deleted else {})
    assert {"dead": status.dead, "waiting": status.waiting} == left
    assert (done.returncode, done.stdout) == ((0, f"2 {name} deleted.\n") if deleted else (1, ""))
    assert ("Nothing was deleted" in done.stderr) is not deleted
    assert ("[y/N] \n" in done.stderr) is (given == ""), "whoever answers ends the line"


@pytest.mark.parametrize("what", ["dead", "waiting"])
def test_purging_does_not_ask_about_nothing(what: str, tmp_path: Path) -> None:
    fill(tmp_path / "outbox.db", [])
    done = command("outbox", "purge", f"--{what}", outbox=url(tmp_path))

    name = {"dead": "dead letters", "waiting": "waiting hits"}[what]
    assert (done.returncode, done.stdout, done.stderr) == (0, f"0 {name} deleted.\n", "")


def test_the_question_ends_with_ctrl_c_and_nothing_is_deleted(tmp_path: Path) -> None:
    fill(tmp_path / "outbox.db", hits(range(1, 3)), dead="status 404")
    with subprocess.Popen(
        [sys.executable, "-m", "convert_middleware", "outbox", "purge", "--dead"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=environment(outbox=url(tmp_path)),
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            said = ""
            while not said.endswith("[y/N] ") and (character := process.stderr.read(1)):
                said += character
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130
            assert process.stderr.read() == "\n"
        finally:
            process.kill()  # which does nothing to one that has ended

    assert status_of(url(tmp_path)).dead == 2


def test_purging_does_not_ask_who_says_yes_at_once(tmp_path: Path) -> None:
    fill(tmp_path / "outbox.db", hits(range(1, 4)))

    assert asked("outbox", "purge", "--waiting", "--yes", outbox=url(tmp_path)) == {"deleted": 3}
    assert status_of(url(tmp_path)).waiting == 0


def test_a_site_that_uses_the_outbox_is_not_disturbed(tmp_path: Path) -> None:
    async def story() -> None:
        outbox = SqliteOutbox(tmp_path / "outbox.db")
        await outbox.put(hits(range(1, 11)))
        (flying,) = await outbox.take(1, time.time())
        for task in (["status"], ["dead"], ["replay", "--all"], ["purge", "--waiting", "--yes"]):
            assert command("outbox", *task, outbox=url(tmp_path)).returncode == 0
        await outbox.settle(flying)
        await outbox.put(hits(range(20, 22)))
        assert len(await outbox.take(100, time.time())) == 2
        counts = outbox.counts()
        assert (counts.accepted, counts.delivered, counts.waiting, counts.in_flight) == (3, 1, 0, 2)
        await outbox.close()

    asyncio.run(story())
