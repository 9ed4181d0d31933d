"""A site whose workers are forked from a process that has loaded the application already."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from convert_middleware.wire import decode
from tests.accounts import accounts_in

from .process import PreloadedSite

if TYPE_CHECKING:
    from tests.servers import TrackingServer

VISITORS = 100


def test_four_preloaded_workers_send_every_hit_once(tracking_server: TrackingServer) -> None:
    with PreloadedSite(tracking_server.endpoint) as site:

        def visit(number: int) -> None:
            with site.visitor() as browser:
                assert browser.get(f"/reach/{number}").text == "True"
                assert browser.get(f"/reach/{number}").text == "False"

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(visit, range(1, VISITORS + 1)))
        said = site.stop()

    hits = [decode(target) for target in tracking_server.targets]
    assert sorted(hit.goals for hit in hits) == [(number,) for number in range(1, VISITORS + 1)]
    assert all(hit.new_goals == 1 for hit in hits)
    accounts = accounts_in(said)
    assert len(accounts) > 1  # several workers served
    assert sum(account.delivered for account in accounts) == VISITORS
    assert "Traceback" not in said
