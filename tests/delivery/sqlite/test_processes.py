"""Several processes on one file, some of which are killed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from convert_middleware.delivery import Counts, Entry, Worth
from convert_middleware.delivery.sqlite import SqliteOutbox
from tests.delivery.sqlite.children import child

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def test_a_thousand_hits_of_a_killed_process_leave_once_each(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    script = """
        outbox = SqliteOutbox(PATH)
        for first in range(0, 1000, 50):
            run(outbox.put(hits(first, 50)))
        say("done")
        signal.pause()
    """
    with child(path, script) as writer:
        assert writer.line() == "done"
        writer.kill()

    outbox = SqliteOutbox(path)
    taken: list[str] = []
    while entries := run(outbox.take(64, time.time())):
        for entry in entries:
            taken.append(entry.text.split()[1])
            run(outbox.settle(entry))

    assert taken == [str(number) for number in range(1000)]
    assert outbox.counts() == Counts(1000, 1000)
    run(outbox.close())
    assert run(SqliteOutbox(path).take(1, time.time())) == []


def test_what_a_process_was_writing_when_it_was_killed_is_there_as_a_whole_or_not_at_all(
    tmp_path: Path,
) -> None:
    path = tmp_path / "outbox.db"
    script = """
        outbox = SqliteOutbox(PATH)
        for first in range(0, 10**9, 20):
            run(outbox.put(hits(first, 20)))
            say(first)
    """
    with child(path, script) as writer:
        for _ in range(30):
            told = int(writer.line())
        writer.kill()

    outbox = SqliteOutbox(path)
    found = [int(entry.text.split()[1]) for entry in run(outbox.take(100_000, time.time()))]

    assert len(found) % 20 == 0
    assert len(found) >= told + 20
    assert found == list(range(len(found)))
    assert outbox.set_aside == 0


def test_eight_processes_on_one_file_send_every_hit_once(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    script = """
        outbox = SqliteOutbox(PATH)
        first = 1000 * int(sys.stdin.readline())
        for start in range(first, first + 150, 10):
            run(outbox.put(hits(start, 10)))
            for entry in run(outbox.take(7, time.time())):
                say(entry.text.split()[1])
                run(outbox.settle(entry))
        sys.stdin.readline()
        while entries := run(outbox.take(7, time.time())):
            for entry in entries:
                say(entry.text.split()[1])
                run(outbox.settle(entry))
        run(outbox.next_due())
        counts = outbox.counts()
        assert counts.accepted == counts.delivered + counts.waiting, counts
        assert not counts.waiting and not counts.in_flight, counts
        say("delivered", counts.delivered)
        run(outbox.close())
    """
    with ExitStack() as running:
        children = [running.enter_context(child(path, script)) for _ in range(8)]
        for number, one in enumerate(children):
            one.tell(str(number))
            one.tell()
        lines = [line for one in children for line in one.rest()]

    sent = Counter(line for line in lines if not line.startswith("delivered"))
    assert sent == Counter(str(1000 * number + n) for number in range(8) for n in range(150))
    assert sum(int(line.split()[1]) for line in lines if line.startswith("delivered")) == 1200


def test_a_child_of_fork_has_its_own_account_and_the_parent_keeps_its_hits(tmp_path: Path) -> None:
    script = """
        outbox = SqliteOutbox(PATH)
        run(outbox.put(hits(0, 3)))
        (flying,) = run(outbox.take(1, time.time()))
        pid = os.fork()
        if not pid:
            child = asyncio.new_event_loop()
            assert outbox.counts().accepted == 0
            child.run_until_complete(outbox.put(hits(10, 1)))
            assert len(child.run_until_complete(outbox.take(9, time.time()))) == 3
            child.run_until_complete(outbox.close())
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        run(outbox.settle(flying))
        run(outbox.commit())
        counts = outbox.counts()
        assert (counts.accepted, counts.delivered, counts.waiting, counts.in_flight) == (1, 1, 0, 0), counts
    """
    with child(tmp_path / "outbox.db", script) as parent:
        assert parent.rest() == []


def test_receipts_come_back_with_the_hits_of_this_process_only(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    ours, theirs = SqliteOutbox(path, max_hits=2), SqliteOutbox(path)
    run(theirs.put([Entry("theirs", Worth.GOAL, 1.0, receipt="foreign")]))
    run(ours.put([Entry("ours", Worth.GOAL, 2.0, receipt="our own")]))
    first, second = run(ours.take(2, 3.0))
    assert (first.receipt, second.receipt) == (None, "our own")
    run(ours.drop(second, "expired"))

    assert list(ours.lost) == ["our own"]
    run(ours.put([Entry(f"{n}", Worth.GOAL, 2.0, receipt=n) for n in range(3)]))
    assert list(ours.lost) == ["our own", 0]


def test_a_dead_letter_keeps_its_claims_because_it_may_be_sent_again(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "outbox.db")
    run(outbox.put([Entry("ours", Worth.GOAL, 2.0, receipt="our own")]))
    (taken,) = run(outbox.take(1, 3.0))
    run(outbox.bury(taken, "status 404"))

    assert outbox.counts().dead == 1
    assert not outbox.lost


def test_the_files_are_their_owners_alone(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "outbox.db")
    run(outbox.put([Entry("what a visitor bought", Worth.REVENUE, 2.0)]))

    modes = {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
    assert {"outbox.db", "outbox.db-wal"} <= set(modes)
    assert set(modes.values()) == {0o600}


def test_another_look_at_the_file_in_one_process_does_not_undo_its_locks(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    outbox = SqliteOutbox(path)
    run(outbox.put([Entry("0", Worth.GOAL, 1.0)]))
    run(SqliteOutbox(path).close())  # opens and closes the file beside the connection above

    with child(path, "run(SqliteOutbox(PATH).put(hits(1, 1)))") as other:
        assert other.rest() == []
    assert (tmp_path / "outbox.db-wal").exists()  # or the other one thought it was the last to leave
    assert len(run(outbox.take(9, time.time()))) == 2
