"""A site whose hits wait in a file: they outlive its processes, and all its workers share them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from convert_middleware.wire import decode
from tests.servers import TrackingServer, refused_port

from .process import Site

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VISITORS = 60
IN_THE_FILE = 0.3  # seconds; after a tenth of a second a hit has to be in the file


def visit(site: Site, goals: Sequence[int]) -> None:
    """Have a new visitor reach each goal."""

    def one(goal: int) -> None:
        with site.visitor() as browser:
            assert browser.get(f"/reach/{goal}").text == "True"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, goals))


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
    outbox = f"sqlite:///{tmp_path}/outbox.db"
    goals = range(1, VISITORS + 1)
    with refused_port() as port:
        endpoint = f"http://127.0.0.1:{port}/track/"
        with Site(endpoint, "--workers", "2", outbox=outbox) as site:
            visit(site, goals)
            time.sleep(IN_THE_FILE)
            site.kill()
        with TrackingServer(port=port) as server, Site(endpoint, outbox=outbox) as site:
            site.address()
            deadline = time.monotonic() + 20.0
            while len(server.targets) < VISITORS and time.monotonic() < deadline:
                time.sleep(0.05)
            site.stop()

            assert goals_of(server) == list(goals)
