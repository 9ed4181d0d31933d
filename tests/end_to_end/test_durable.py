"""A site whose hits wait in a file: they outlive its processes, and all its workers share them."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from convert_middleware.delivery.sqlite_upkeep import SqliteUpkeep
from convert_middleware.wire import decode
from tests.servers import TrackingServer, refused_port

from .process import Site

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VISITORS = 60
PATIENCE = 5.0  # seconds in which hits reach the file, however busy the machine; a worker looks every ten


def visit(site: Site, goals: Sequence[int]) -> None:
    """Have a new visitor reach each goal."""

    def one(goal: int) -> None:
        with site.visitor() as browser:
            assert browser.get(f"/reach/{goal}").text == "True"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, goals))


def held_in(path: Path, until_waiting: int = 0) -> int:
    """Return how many hits somebody holds, once so many hits are in the file."""

    async def look() -> int:
        upkeep = SqliteUpkeep(path)
        try:
            async with asyncio.timeout(PATIENCE):
                while (status := await upkeep.status()).waiting < until_waiting:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.01)
        finally:
            await upkeep.close()
        return status.in_flight

    return asyncio.run(look())


def goals_of(server: TrackingServer) -> list[int]:
    return sorted(goal for target in server.targets for goal in decode(target).goals)


def test_four_workers_on_one_file_send_every_hit_once(
    tracking_server: TrackingServer, tmp_path: Path
) -> None:
    goals = range(1, VISITORS + 1)
    with Site(tracking_server.endpoint, "--workers", "4", outbox=f"sqlite:///{tmp_path}/outbox.db") as site:
        visit(site, goals)
        said = site.stop()

    assert goals_of(tracking_server) == list(goals)
    assert "Traceback" not in said


def test_what_waited_in_killed_workers_is_sent_by_those_that_follow(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    outbox = f"sqlite:///{path}"
    goals = range(1, VISITORS + 1)
    with refused_port() as port:
        endpoint = f"http://127.0.0.1:{port}/track/"
        with Site(endpoint, "--workers", "2", outbox=outbox) as site:
            visit(site, goals)
            held_in(path, until_waiting=VISITORS)
            site.kill()
        held = held_in(path)  # by those that were killed in the midst of another attempt; they may have left
        assert held <= 2
        with TrackingServer(port=port) as server, Site(endpoint, outbox=outbox) as site:
            site.address()
            deadline = time.monotonic() + 20.0
            while len(server.targets) < VISITORS - held and time.monotonic() < deadline:
                time.sleep(0.05)
            site.stop()

            sent = goals_of(server)
            assert len(sent) == len(set(sent)) == VISITORS - held
            assert set(sent) <= set(goals)
