"""What lives long, or leaves in a server's own way, in real servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from websockets.sync.client import connect

from convert_middleware.wire import decode
from examples.visitors import USER_AGENT

from .servers import FILE, SERVERS, Running, Server

if TYPE_CHECKING:
    from tests.servers import TrackingServer

APP = "tests.matrix.streams_site:app"
_BY_NAME = {server.name: server for server in SERVERS}
_ASGI = [server for server in SERVERS if "starlette_site" in server.frameworks]


def goals(server: TrackingServer) -> list[tuple[int, ...]]:
    """What each hit tells as new, in the order in which they arrived."""
    hits = map(decode, server.targets)
    return [hit.goals[: hit.new_goals] for hit in hits]


@pytest.mark.parametrize("server", _ASGI, ids=lambda server: server.name)
def test_a_goal_amid_events_leaves_when_it_is_flushed_and_one_at_the_end_with_the_end(
    server: Server, tracking_server: TrackingServer
) -> None:
    with Running(server, APP, tracking_server.endpoint) as site, site.visitor() as browser:
        with browser.stream("GET", "/events") as answer:
            lines = (line for line in answer.iter_lines() if line)
            assert [next(lines), next(lines)] == ["data: one", "data: two"]
            (first,) = map(decode, [seen.target for seen in tracking_server.until_requests(1)])
            assert (first.new_exposures, first.goals, first.new_goals) == (1, (331,), 1)

            assert browser.get("/go").text == "on"
            assert next(lines) == "data: three"
        tracking_server.until_requests(2)
        site.stop()

    assert goals(tracking_server) == [(331,), (34,)]


@pytest.mark.parametrize("server", _ASGI, ids=lambda server: server.name)
def test_a_file_arrives_whole_in_the_servers_own_way_and_counts(
    server: Server, tracking_server: TrackingServer
) -> None:
    with Running(server, APP, tracking_server.endpoint) as site, site.visitor() as browser:
        answer = browser.get("/file")
        tracking_server.until_requests(1)
        site.stop()

    assert answer.content == FILE.read_bytes()
    assert answer.headers["x-way"] == ("pathsend" if server.package == "granian" else "body")
    assert goals(tracking_server) == [(33,)]


@pytest.mark.parametrize("server", _ASGI, ids=lambda server: server.name)
def test_a_websocket_carries_the_state_on_its_accept_where_headers_do_and_tells_of_goals_while_it_is_open(
    server: Server, tracking_server: TrackingServer
) -> None:
    with Running(server, APP, tracking_server.endpoint) as site:
        address = site.address().replace("http", "ws", 1)
        with connect(f"{address}/talk", user_agent_header=USER_AGENT, proxy=None) as socket:
            assert socket.response is not None
            headers = socket.response.headers
            socket.send("331")
            assert socket.recv(10) == "noted"
            (first,) = map(decode, [seen.target for seen in tracking_server.until_requests(1)])
            assert (first.new_exposures, first.goals, first.new_goals) == (1, (331,), 1)
        tracking_server.until_requests(2)
        site.stop()

    assert ("x-shop" in headers) is server.accepts_with_headers
    cookies = [line.partition(".")[0] for line in headers.get_all("set-cookie")]
    assert cookies == ["convert_visitor=1"] * server.accepts_with_headers
    assert goals(tracking_server) == [(331,), (34,)]


SENDING = {  # what is said of it: by the site, which listens to Python's function, or by the server itself
    "gunicorn, sync": "sendfile was called",
    "gunicorn, gthread": "sendfile was called",
    "uWSGI": r"GET /file => generated \d+ bytes in \d+ msecs via sendfile",
}


@pytest.mark.parametrize("name", SENDING)
def test_a_wrapped_file_still_leaves_by_sendfile(name: str, tracking_server: TrackingServer) -> None:
    app = "tests.matrix.sendfile_site:app"
    with Running(_BY_NAME[name], app, tracking_server.endpoint) as site, site.visitor() as browser:
        answer = browser.get("/file")
        site.until_said(SENDING[name])
        tracking_server.until_requests(1)
        site.stop()

    assert answer.content == FILE.read_bytes()
    assert goals(tracking_server) == [(33,)]
