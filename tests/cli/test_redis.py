"""The commands on an outbox that many machines share."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from convert_middleware.delivery.redis_streams import RedisOutbox
from tests.cli.programs import asked, command, hits, status_of, worker
from tests.redis_server import RedisServer
from tests.servers import answer, refused_port

if TYPE_CHECKING:
    from tests.servers import TrackingServer


def fill(url: str, numbers: range) -> None:
    async def story() -> None:
        outbox = RedisOutbox(url)
        await outbox.put(hits(numbers))
        await outbox.close()

    asyncio.run(story())


def test_hits_are_refused_replayed_delivered_and_purged(tracking_server: TrackingServer) -> None:
    tracking_server.default = answer(404)
    with RedisServer() as server:
        options = {"outbox": server.url, "endpoint": tracking_server.endpoint}
        fill(server.url, range(1, 6))
        with worker("--json", **options) as one:
            one.until(lambda: status_of(server.url).dead == 5)
            tracking_server.default = answer()
            first = asked("outbox", "dead", "--number", "1", **options)["letters"][0]
            assert (first["reason"], first["attempts"], first["worth"]) == ("status 404", 1, "goal")
            assert asked("outbox", "replay", first["key"], **options) == {"asked": 1, "replayed": 1}
            tracking_server.until_requests(6)
            assert asked("outbox", "replay", "--all", **options) == {"asked": 4, "replayed": 4}
            tracking_server.until_requests(10)
            one.signal(signal.SIGTERM)
            assert one.end() == 0
        fill(server.url, range(6, 9))

        assert one.records[-1]["delivered"] == 5
        assert asked("outbox", "purge", "--waiting", "--yes", **options) == {"deleted": 3}
        status = asked("outbox", "status", **options)
        assert (status["waiting"], status["in_flight"], status["dead"]) == (0, 0, 0)
    assert sorted(tracking_server.targets[5:]) == [f"/track/?c=2&p=1&g={n}&ga=1" for n in range(1, 6)]


def test_a_worker_that_cannot_reach_redis_at_its_start_sends_when_it_can(
    tracking_server: TrackingServer,
) -> None:
    with RedisServer() as server:
        fill(server.url, range(1, 4))
        server.stop()
        with worker("--json", "--report", "0.1", outbox=server.url, endpoint=tracking_server.endpoint) as one:
            one.until(lambda: one.records[-1].get("outbox", 0) is None)
            server.start()
            tracking_server.until_requests(3)
            one.signal(signal.SIGTERM)
            assert one.end() == 0
    assert sorted(tracking_server.targets) == [f"/track/?c=2&p=1&g={n}&ga=1" for n in range(1, 4)]


def test_a_redis_that_cannot_be_reached_is_named_without_its_password() -> None:
    with refused_port() as port:
        for task in (["status"], ["dead"], ["replay", "--all"], ["purge", "--dead", "--yes"]):
            done = command("outbox", *task, outbox=f"redis://me:password@127.0.0.1:{port}/0")
            assert (done.returncode, done.stdout) == (2, "")
            assert done.stderr.startswith(
                f"convert-middleware: The outbox 'redis://127.0.0.1:{port}/0' failed"
            )
            assert done.stderr.count("\n") == 1
