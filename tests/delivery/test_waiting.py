"""What the worker waits for, on a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import pytest

from convert_middleware.delivery import Counts, Entry, HttpxSender, MemoryOutbox, Policy, Worth
from convert_middleware.delivery.sheltered import ShelteredOutbox
from convert_middleware.delivery.sqlite import SqliteOutbox
from convert_middleware.delivery.worker import LANES, Worker
from convert_middleware.hooks import Announcer
from tests.servers import answer

from .conftest import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import TrackingServer

NOW: Final = 1_800_000_000.0
ASKED: Final = 100.0  # seconds
BUSY: Final = answer(503, headers={"Retry-After": f"{ASKED:.0f}"})


class World:
    """A worker with time and chance under control.

    Args:
        server: Where its hits go.
        policy: Its policy.
        chance: What its dice show.
    """

    def __init__(self, server: TrackingServer, policy: Policy, chance: float) -> None:
        self.now = NOW
        self.outbox = MemoryOutbox()
        self.worker = Worker(
            self.outbox,
            lambda: HttpxSender(server.endpoint),
            policy,
            Announcer((), time.monotonic),
            lambda: self.now,
            dice=lambda: chance,
        )

    def hand_over(self, text: str) -> Entry:
        """Let a hit wait."""
        entry = Entry(text, Worth.GOAL, self.now)
        self.outbox.offer(entry)
        return entry

    async def at(self, moment: float) -> Counts:
        """Let it be so many seconds after the beginning, and return the account when all has settled."""
        self.now = NOW + moment
        async with asyncio.timeout(PATIENCE):
            self.worker.sleeping = False
            self.worker.wake()
            while not self.worker.sleeping or self.outbox.counts().in_flight:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)  # a real server answers
        return self.outbox.counts()


@asynccontextmanager
async def working(
    server: TrackingServer, policy: Policy | None = None, chance: float = 0.5
) -> AsyncIterator[World]:
    world = World(server, policy or Policy(), chance)
    running = asyncio.ensure_future(world.worker.run())
    try:
        yield world
    finally:
        world.worker.stop(time.monotonic())
        await running


def test_what_a_server_asks_for_is_waited_for_and_does_not_count_as_age(
    tracking_server: TrackingServer,
) -> None:
    tracking_server.script(BUSY)

    async def story() -> None:
        async with working(tracking_server) as world:
            entry = world.hand_over("n=1")
            assert (await world.at(0.0)).waiting == 1
            assert entry.waited == ASKED
            assert (await world.at(ASKED)).waiting == 1
            assert len(tracking_server.requests) == 1
            assert await world.at(3600.0 + ASKED - 1.0) == Counts(accepted=1, delivered=1)

    asyncio.run(story())


def test_a_hit_is_given_up_when_its_age_less_what_the_server_asked_for_is_too_high(
    tracking_server: TrackingServer,
) -> None:
    tracking_server.script(BUSY)

    async def story() -> None:
        async with working(tracking_server) as world:
            world.hand_over("n=1")
            await world.at(0.0)
            assert (await world.at(3600.0 + ASKED + 1.0)).dropped == {"expired": 1}

    asyncio.run(story())
    assert len(tracking_server.requests) == 1


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_a_server_that_is_down_is_probed_when_it_asked_for_it_and_a_random_while_later(
    chance: float, tracking_server: TrackingServer
) -> None:
    tracking_server.script(BUSY)
    probed = ASKED + chance * (0.1 * ASKED + 0.5)

    async def story() -> None:
        async with working(tracking_server, Policy(trip_after=1), chance) as world:
            world.hand_over("n=1")
            await world.at(0.0)
            for number in range(2, 6):  # none of them was told to wait
                world.hand_over(f"n={number}")
            for moment in (1.0, ASKED / 2, probed - 0.01):
                assert (await world.at(moment)).waiting == 5
            assert len(tracking_server.requests) == 1
            assert (await world.at(probed + 0.01)).delivered == 5

    asyncio.run(story())


@pytest.mark.parametrize("fresh", [True, False])
def test_a_clock_that_is_set_back_while_the_server_is_down_delays_nothing(
    fresh: bool, tracking_server: TrackingServer
) -> None:
    tracking_server.script(answer(503))

    async def story() -> None:
        async with working(tracking_server, Policy(trip_after=1, first_delay=10.0)) as world:
            world.hand_over("n=1")
            await world.at(0.0)
            await world.at(1.0)
            if fresh:
                world.hand_over("n=2")
            assert (await world.at(-3600.0)).delivered == 0  # still four seconds, as before
            assert len(tracking_server.requests) == 1
            assert (await world.at(-3595.0)).delivered == 1 + fresh

    asyncio.run(story())


def test_while_thousands_of_hits_expire_the_loop_goes_on(tracking_server: TrackingServer) -> None:
    dropped: list[int] = []

    async def watch(world: World) -> None:
        while (gone := world.outbox.counts().dropped.get("expired", 0)) < 5000:
            dropped.append(gone)
            await asyncio.sleep(0)

    async def story() -> None:
        async with working(tracking_server) as world:
            await world.at(0.0)
            for number in range(5000):
                world.hand_over(f"n={number}")
            world.now += 3601.0
            world.hand_over("new")
            world.worker.wake()
            async with asyncio.timeout(PATIENCE):
                await watch(world)
            assert (await world.at(3602.0)).delivered == 1

    asyncio.run(story())
    assert max(after - before for before, after in pairwise(dropped)) <= LANES


def test_probes_that_fail_come_ever_more_slowly_and_at_random(tracking_server: TrackingServer) -> None:
    tracking_server.default = answer(503)

    async def story() -> None:
        async with working(tracking_server, Policy(trip_after=1), 0.25) as world:
            world.hand_over("n=1")
            await world.at(0.0)
            moment = 0.0
            for number, pause in enumerate((0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0), start=2):
                world.hand_over(f"n={number}")
                moment += pause
                await world.at(moment - 0.01)
                assert len(tracking_server.requests) == number - 1
                await world.at(moment)
                assert len(tracking_server.requests) == number

    asyncio.run(story())


class Latecomer:
    """A source that offers a hit when the worker has kept all that came and is about to sleep.

    Args:
        outbox: Where it offers.
    """

    def __init__(self, outbox: MemoryOutbox) -> None:
        self._outbox = outbox
        self.armed = False

    def pending(self) -> int:
        self.gather()
        return 0

    def gather(self) -> None:
        if self.armed:
            self.armed = False
            self._outbox.offer(Entry("n=2", Worth.GOAL, NOW))

    async def bring(self) -> None:
        """Leave it for later."""

    def finish(self) -> None:
        """Have nothing left."""

    def withdrew(self, visitor: str, accepted_at: float) -> bool:
        del visitor, accepted_at
        return False


@pytest.mark.parametrize("deliver", [True, False])
def test_a_hit_that_comes_when_the_worker_is_about_to_sleep_is_kept_before_that(
    deliver: bool, tracking_server: TrackingServer, tmp_path: Path
) -> None:
    tracking_server.default = BUSY
    store = SqliteOutbox(tmp_path / "outbox.db", clock=lambda: NOW)
    outbox = ShelteredOutbox(store, lambda _error: None)
    source = Latecomer(outbox)
    worker = Worker(
        outbox,
        lambda: HttpxSender(tracking_server.endpoint),
        Policy(trip_after=1),
        Announcer((), time.monotonic),
        lambda: NOW,
        look_every=3600.0,
        source=source,
        deliver=deliver,
    )

    async def until_asleep_with(hits: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while not (worker.sleeping and store.counts().waiting == hits):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)  # a real server answers

    async def story() -> None:
        running = asyncio.ensure_future(worker.run())
        outbox.offer(Entry("n=1", Worth.GOAL, NOW))
        worker.wake()
        await until_asleep_with(1)  # the server is down by now, if it is asked at all
        source.armed = True
        worker.wake()
        await until_asleep_with(2)
        worker.stop(time.monotonic())
        await running

    asyncio.run(story())
    assert outbox.in_memory() == 0
