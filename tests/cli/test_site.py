"""A site that only fills the outbox, and workers that send for it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from convert_middleware import Settings, Tracker
from convert_middleware.delivery.redis_streams import PREFIX
from convert_middleware.wire import decode
from tests.cli.programs import worker
from tests.end_to_end.process import Site
from tests.redis_server import RedisServer
from tests.tracker.visits import Visit

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import TrackingServer

VISITORS = 24
AN_HOUR_AND_A_BIT = 3700.0  # seconds; longer than a hit is kept


@pytest.fixture(params=["sqlite", "redis"])
def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An outbox that processes share."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/outbox.db"
    else:
        with RedisServer() as server:
            yield server.url


def goals_of(server: TrackingServer) -> list[int]:
    return sorted(goal for target in server.targets for goal in decode(target).goals)


def test_a_site_that_does_not_deliver_has_workers_that_do_and_every_hit_arrives_once(
    outbox: str, tracking_server: TrackingServer
) -> None:
    options = {"outbox": outbox, "endpoint": tracking_server.endpoint}
    with Site("http://127.0.0.1:9/track/", "--workers", "2", outbox=outbox, deliver="false") as site:
        site.address()
        with worker("--json", **options) as one, worker("--json", **options) as other:
            for goal in range(1, VISITORS + 1):
                with site.visitor() as browser:
                    assert browser.get(f"/reach/{goal}").text == "True"
            tracking_server.until_requests(VISITORS)
            for each in (one, other):
                each.signal(signal.SIGTERM)
            assert (one.end(), other.end()) == (0, 0)
        said = site.stop()

    assert goals_of(tracking_server) == list(range(1, VISITORS + 1))
    assert one.records[-1]["delivered"] + other.records[-1]["delivered"] == VISITORS
    assert "Traceback" not in said


def test_what_a_worker_gives_up_is_counted_with_the_visitors_next_request_where_machines_share_a_ledger(
    tracking_server: TrackingServer,
) -> None:
    with RedisServer() as server:
        settings = Settings(
            project_id=1, customer_id=2, secret_key="a long enough secret", outbox=server.url, deliver=False
        )
        with worker("--json", "--report", "0.1", outbox=server.url, endpoint=tracking_server.endpoint) as one:
            early = Tracker(settings, clock=lambda: time.time() - AN_HOUR_AND_A_BIT)
            late = Tracker(settings)
            first = Visit(early)
            first.convert.goal(331)
            cookie = first.respond()
            assert early.flush()
            one.until(lambda: one.records[-1].get("dropped") == {"expired": 1})
            one.until(lambda: server.say("HLEN", f"{{{PREFIX}}}:owed") == ":1")
            second = Visit(late, cookie)
            assert second.convert.goal(33)
            second.respond()
            tracking_server.until_requests(1)
            for tracker in (early, late):
                tracker.close()
            one.signal(signal.SIGTERM)
            assert one.end() == 0

        (hit,) = map(decode, tracking_server.targets)
        assert (hit.goals, hit.new_goals) == ((331, 33), 2)
