"""An outbox that the site made itself, of our kinds or of its own, in the place of a URL."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from convert_middleware import MemoryOutbox, RedisOutbox, Settings, SettingsError, SqliteOutbox, Tracker
from convert_middleware.delivery import Counts, Delivery, Entry, HttpxSender, Policy, ShelteredOutbox
from convert_middleware.delivery.adopted import AdoptedOutbox
from convert_middleware.hooks import Announcer
from tests.asgi.conftest import SECRET
from tests.delivery.conftest import until
from tests.redis_server import RedisServer
from tests.servers import answer
from tests.tracker.test_durable import errors_of, goals_of, reach
from tests.tracker.test_redis import goals_of as firsts_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.asgi.conftest import Convert


class Shelf:
    """A site's own outbox: what is asked of every outbox, and no more."""

    def __init__(self) -> None:
        self._kept = MemoryOutbox()
        self.fails: Exception | None = None

    async def put(self, entries: list[Entry]) -> None:
        if self.fails is not None:
            raise self.fails
        await self._kept.put(entries)

    async def take(self, number: int, now: float) -> list[Entry]:
        return await self._kept.take(number, now)

    async def settle(self, entry: Entry) -> None:
        await self._kept.settle(entry)

    async def retry(self, entry: Entry, due: float) -> None:
        await self._kept.retry(entry, due)

    async def bury(self, entry: Entry, reason: str) -> None:
        await self._kept.bury(entry, reason)

    async def drop(self, entry: Entry, reason: str) -> None:
        await self._kept.drop(entry, reason)

    async def purge(self, visitor: str) -> int:
        return await self._kept.purge(visitor)

    async def next_due(self) -> float | None:
        return await self._kept.next_due()

    def counts(self) -> Counts:
        return self._kept.counts()


class Cabinet(Shelf):
    """One that does all that a store may do, and says that it outlives the process."""

    batch = 2
    durable = True

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []
        self.largest = 0

    async def put(self, entries: list[Entry]) -> None:
        self.largest = max(self.largest, len(entries))
        await super().put(entries)

    async def commit(self) -> None:
        self.done.append("commit")

    async def close(self) -> None:
        self.done.append("close")

    def after_fork(self) -> None:
        self.done.append("fork")


def options(**more: Any) -> Settings:
    return Settings(project_id="1", customer_id="2", secret_key=SECRET, **more)


def test_hits_go_through_a_file_that_the_site_opened_itself(convert: Convert, tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    tracker = convert.tracker(outbox=SqliteOutbox(path, max_hits=500), hooks=[])
    for goal in range(1, 51):
        reach(tracker, goal)
    assert tracker.flush(10.0)
    assert goals_of(convert) == list(range(1, 51))
    assert path.exists()


def test_a_file_that_the_site_opened_itself_and_found_broken_is_named(
    convert: Convert, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "outbox.db"
    path.write_bytes(b"no database at all " * 1000)
    convert.tracker(outbox=SqliteOutbox(path))
    (said,) = errors_of(caplog)
    assert f"{path}.corrupt-1" in said


def test_trackers_with_redis_outboxes_that_the_site_made_agree_on_who_was_first(convert: Convert) -> None:
    with RedisServer() as server:
        first, second = (convert.tracker(outbox=RedisOutbox(server.url), hooks=[]) for _ in range(2))
        visitor = first.load(()).visitor
        token = first.write_token(visitor)
        for tracker in (first, second):
            with tracker.resume(token) as recorder:
                recorder.goal(331)
            assert tracker.flush(10.0)
        assert goals_of(convert) == [331]
        for tracker in (first, second):
            tracker.close()


@pytest.mark.parametrize("kind", [Shelf, Cabinet])
def test_hits_go_through_an_outbox_of_the_sites_own(convert: Convert, kind: type[Shelf]) -> None:
    own = kind()
    tracker = convert.tracker(outbox=own, hooks=[])
    for goal in range(1, 51):
        reach(tracker, goal)
    assert tracker.flush(10.0)
    assert goals_of(convert) == list(range(1, 51))
    assert own.counts() == Counts(50, 50)


def test_what_a_store_may_do_is_asked_of_an_outbox_that_can(convert: Convert) -> None:
    own = Cabinet()
    tracker = convert.tracker(outbox=own, hooks=[])
    for goal in range(1, 51):
        reach(tracker, goal)
    assert tracker.flush(10.0)
    tracker.close()
    assert own.largest <= 2
    assert {"commit", "close"} <= set(own.done)


def test_while_an_outbox_of_the_sites_own_fails_memory_takes_over(
    convert: Convert, caplog: pytest.LogCaptureFixture
) -> None:
    own = Shelf()
    own.fails = ConnectionError("secret")
    tracker = convert.tracker(outbox=own, hooks=[])
    for goal in range(1, 21):
        reach(tracker, goal)
    assert tracker.flush(10.0)
    assert goals_of(convert) == list(range(1, 21))
    assert errors_of(caplog) == [
        "The outbox 'Shelf' failed to put: ConnectionError. Hits wait in memory meanwhile."
    ]

    own.fails = None
    convert.clock.now += 60
    reach(tracker, 21)
    assert tracker.flush(10.0)
    assert own.counts() == Counts(1, 1)
    assert caplog.messages.count("The outbox works again.") == 1


def test_what_an_outbox_of_the_sites_own_lost_is_counted_again_with_the_visitors_next_request(
    convert: Convert,
) -> None:
    convert.server.script(answer(404))
    tracker = convert.tracker(outbox=Shelf(), hooks=[])
    cookie = reach(tracker, 331)
    until(lambda: tracker.stats().dead == 1)
    reach(tracker, 332, cookie)
    assert tracker.flush(10.0)
    assert firsts_of(convert) == [331, 331, 332]


def test_only_an_outbox_that_outlives_the_process_may_leave_sending_to_others(tmp_path: Path) -> None:
    durable = (SqliteOutbox(tmp_path / "outbox.db"), RedisOutbox("redis://127.0.0.1:9/0"), Cabinet())
    for outbox in durable:
        assert options(outbox=outbox, deliver=False).outbox is outbox
    for other in (MemoryOutbox(), Shelf(), "memory://"):
        with pytest.raises(SettingsError, match=r"^deliver is False, .* whose attribute durable is True\."):
            options(outbox=other, deliver=False)


def test_with_an_outbox_of_the_sites_own_a_process_may_only_fill_it(convert: Convert) -> None:
    own = Cabinet()
    tracker = convert.tracker(outbox=own, hooks=[], deliver=False)
    for goal in range(1, 6):
        reach(tracker, goal)
    assert tracker.flush(10.0)
    assert own.counts().waiting == 5
    assert convert.server.targets == []
    convert.trackers.clear()  # what waits is for others to send
    tracker.close()


@pytest.mark.parametrize("wrong", [None, 5, [], object(), Shelf, MemoryOutbox, {"url": "memory://"}])
def test_what_is_no_outbox_is_refused_with_what_it_lacks(wrong: object) -> None:
    with pytest.raises(
        SettingsError, match=r"^outbox must be a URL such as 'memory://' or an outbox, "
    ) as caught:
        Tracker(options(outbox=wrong))
    assert ("not a class" in str(caught.value)) == isinstance(wrong, type)


def test_an_outbox_that_lacks_something_is_told_what() -> None:
    class Half:
        async def put(self, entries: list[Entry]) -> None:
            """Lose them."""

    with pytest.raises(
        SettingsError, match=r"and Half lacks take, settle, retry, bury, drop, purge, next_due, counts\."
    ):
        Tracker(options(outbox=Half()))


@pytest.mark.parametrize("end", ["settle", "bury", "drop"])
def test_an_outbox_that_fails_to_note_how_a_hit_ended_is_told_again(
    convert: Convert, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    fails = 5

    class Forgetful(MemoryOutbox):
        durable = True

    async def failing(entry: Any, *reason: str) -> None:
        nonlocal fails
        fails -= 1
        if fails >= 0:
            raise OSError("disk")
        await getattr(MemoryOutbox, end)(outbox, entry, *reason)

    outbox = Forgetful()
    setattr(outbox, end, failing)
    convert.server.default = {"settle": answer(200), "bury": answer(404), "drop": answer(504)}[end]
    announcer = Announcer((), time.monotonic)
    store = ShelteredOutbox(AdoptedOutbox(outbox), lambda error: announcer.log(40, "outbox", "%s", error))
    delivery = Delivery(store, lambda: HttpxSender(convert.server.endpoint), Policy(), announcer)
    try:
        for goal in range(1, 21):
            assert delivery.hand_over(f"c=2&p=1&g={goal}&ga=1", 1)
        assert delivery.flush(20.0)
        counts = delivery.counts()
    finally:
        delivery.close(5.0)

    ended = {"settle": counts.delivered, "bury": counts.dead, "drop": counts.dropped.get("ambiguous")}
    assert (ended[end], counts.accepted, counts.in_flight) == (20, 20, 0)
    assert len(convert.server.targets) == 20
    assert "never retrieved" not in caplog.text
