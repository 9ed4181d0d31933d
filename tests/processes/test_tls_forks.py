"""Forks of a process that holds an encrypted connection: both sides of a fork know its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.delivery.test_processes import goals
from tests.processes.program import ended_well
from tests.servers import TrackingServer

if TYPE_CHECKING:
    from tests.servers import Authority

FORK = """
from dataclasses import replace
os.environ["SSL_CERT_FILE"] = {certificates!r}
tracker = Tracker(replace(tracker.settings, sender={sender!r}))
reach(1)
assert tracker.flush(10)  # the connection is open now
{waiting}
for goal in (10, 20, 30):
    child = os.fork()
    if not child:
        {child}
    _, status = os.waitpid(child, 0)
    assert status == 0, status
reach(4)
assert tracker.flush(10)
"""


@pytest.mark.parametrize("sender", ["httpx", "httpx2", "httptools", "pyreqwest"])
@pytest.mark.parametrize("waiting", ["", "reach(2, 3)"], ids=["idle", "in use"])
@pytest.mark.parametrize("child", ["reach(goal); sys.exit(0)", "reach(goal); tracker.flush(10); os._exit(0)"])
def test_a_child_has_a_connection_of_its_own_and_its_parent_keeps_its(
    child: str, waiting: str, sender: str, authority: Authority
) -> None:
    with TrackingServer(tls=authority.server("localhost")) as server:
        script = FORK.format(certificates=str(authority.file), sender=sender, waiting=waiting, child=child)
        ended_well(server, script, endpoint=f"https://localhost:{server.port}/track/")

        own = ["2", "3"] if waiting else []
        assert goals(server) == sorted(["1", "10", "20", "30", "4", *own])
        assert server.malformed == 0
        assert server.failed_handshakes == 0
        if not waiting:
            assert server.connections == 4


@pytest.mark.parametrize("sender", ["httpx", "httptools", "pyreqwest"])
def test_a_child_that_only_ends_leaves_its_parents_connection_alone(
    sender: str, authority: Authority
) -> None:
    with TrackingServer(tls=authority.server("localhost")) as server:
        script = FORK.format(
            certificates=str(authority.file),
            sender=sender,
            waiting="import gc",
            child="gc.collect(); sys.exit(0)",
        )
        ended_well(server, script, endpoint=f"https://localhost:{server.port}/track/")

        assert goals(server) == ["1", "4"]
        assert server.connections == 1
        assert server.malformed == 0
