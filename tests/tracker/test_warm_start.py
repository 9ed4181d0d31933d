"""Before the first hit, in a process that a lifespan started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.delivery.conftest import until
from tests.tracker.test_durable import reach

if TYPE_CHECKING:
    from tests.asgi.conftest import Convert


def test_the_first_hit_finds_a_connection_open_to_its_own_projects_server(convert: Convert) -> None:
    tracker = convert.tracker(endpoint=f"{convert.server.origin}/{{project_id}}/track/", sender="httptools")
    tracker.start()
    until(lambda: convert.server.connections == 1)
    assert convert.server.targets == []

    reach(tracker, 331)
    assert tracker.flush(10.0)
    assert [target.partition("?")[0] for target in convert.server.targets] == ["/1/track/"]
    assert convert.server.connections == 1
