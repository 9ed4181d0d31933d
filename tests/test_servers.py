"""The misbehaving server does what it says, seen from a plain socket."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from functools import partial

import anyio
import pytest

from tests.servers import (
    EVERY_BEHAVIOUR,
    Authority,
    Behaviour,
    ForwardProxy,
    Seen,
    TrackingServer,
    after,
    answer,
    answer_and_close,
    bot,
    broken_chunks,
    broken_head,
    captive_portal,
    close,
    drip,
    early_hints,
    endless,
    garbage,
    gzip_bomb,
    redirect,
    refused_port,
    reset,
    reset_on_accept,
    set_cookie,
    stall,
    wrong_clock,
)

GET = b"GET /track/?c=2&p=1 HTTP/1.1\r\nHost: convert.example\r\nX-Odd:  a: b \r\nx-odd: c\r\n\r\n"
LASTING = [
    name for name in EVERY_BEHAVIOUR if name != "reset_on_accept"
]  # that one has no client to speak of
LAST_GET = GET.replace(b"\r\n\r\n", b"\r\nConnection: Close\r\n\r\n")
RESET, END, OPEN = "reset", "end", "still open"


Complete = Callable[[bytes], bool]


def never(_received: bytes) -> bool:
    return False


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def talk(port: int, request: bytes = GET, until: Complete = never) -> tuple[bytes, str]:
    """Send a request and return what came back, and how it ended."""
    try:
        client = connect(port)
    except ConnectionResetError:
        return b"", RESET
    with client:
        return receive(client, request, until)


def receive(client: socket.socket, request: bytes = GET, until: Complete = never) -> tuple[bytes, str]:
    """Do the same on a connection; after a complete answer the end follows at once, or it stays open."""
    received = b""
    try:
        client.sendall(request)
        while True:
            client.settimeout(0.05 if until(received) else 5.0)
            data = client.recv(65536)
            if not data:
                return received, END
            received += data
    except TimeoutError:
        return received, OPEN
    except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):  # TLS: an end without a goodbye
        return received, RESET


@pytest.mark.parametrize(
    ("behaviour", "beginning", "rest", "ending"),
    [
        (
            answer(503, {"Retry-After": "7"}, b"no"),
            b"HTTP/1.1 503 ",
            b"Retry-After: 7\r\nContent-Length: 2\r\n\r\nno",
            OPEN,
        ),
        (answer(204), b"HTTP/1.1 204 No Content\r\n\r\n", b"", OPEN),
        (answer(299), b"HTTP/1.1 299 Odd\r\n", b"", OPEN),
        (after(0.05), b"HTTP/1.1 200 OK\r\n", b"", OPEN),
        (stall(), b"", b"", OPEN),
        (reset(), b"", b"", RESET),
        (close(), b"", b"", END),
        (reset_on_accept(), b"", b"", RESET),
        (broken_head(), b"HTTP/1.1 200 OK\r\n", b"Content-Ty", RESET),
        (garbage(), b"SSH-", b"", END),
        (answer_and_close(announced=True), b"HTTP/1.1 200 OK\r\nConnection: close\r\n", b"", END),
        (answer_and_close(announced=False), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", END),
        (drip(b"drop", 0.01), b"HTTP/1.1 200 OK\r\n", b"drop", OPEN),
        (endless(200_000), b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n", bytes(150_000), OPEN),
        (captive_portal(), b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n", b"Welcome", OPEN),
        (redirect(status=301), b"HTTP/1.1 301 ", b"Location: https://elsewhere.example/track/\r\n", OPEN),
        (bot(), b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n", b'"BOT"', OPEN),
        (set_cookie(), b"HTTP/1.1 200 OK\r\nSet-Cookie: ", b"", OPEN),
        (wrong_clock(), b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970", b"", OPEN),
        (early_hints(), b"HTTP/1.1 103 Early Hints\r\nLink: ", b"\r\n\r\nHTTP/1.1 200 OK\r\n", OPEN),
        (broken_chunks(), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", b"half of it", END),
    ],
    ids=str,
)
def test_each_behaviour_shows_on_the_wire(
    behaviour: Behaviour, beginning: bytes, rest: bytes, ending: str, tracking_server: TrackingServer
) -> None:
    tracking_server.script(behaviour)
    complete = (lambda got: got.startswith(beginning) and rest in got) if ending == OPEN else never
    received, ended = talk(tracking_server.port, until=complete)
    assert received.startswith(beginning)
    assert rest in received
    assert ended == ending
    assert tracking_server.unplayed == 0
    assert len(tracking_server.requests) == (behaviour.name != "reset on accept")


@pytest.mark.parametrize("name", LASTING)
def test_every_behaviour_ends_when_the_client_leaves(name: str, tracking_server: TrackingServer) -> None:
    tracking_server.script(EVERY_BEHAVIOUR[name]())
    with connect(tracking_server.port) as client:
        client.sendall(GET)
        tracking_server.until(lambda: tracking_server.unplayed == 0)
    tracking_server.until(lambda: tracking_server.open == 0)
    assert tracking_server.connections == 1


@pytest.mark.parametrize("name", LASTING)
def test_a_server_stops_in_the_middle_of_any_behaviour(name: str) -> None:
    with TrackingServer(EVERY_BEHAVIOUR[name]()) as server, connect(server.port) as client:
        client.sendall(GET)
        server.until(lambda: server.unplayed == 0)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 2.0


def test_what_was_asked_is_seen_as_it_stood_on_the_wire(tracking_server: TrackingServer) -> None:
    with connect(tracking_server.port) as first, connect(tracking_server.port) as second:
        for client in (first, second, first):
            client.sendall(GET)
            assert client.recv(65536).startswith(b"HTTP/1.1 200 OK\r\nContent-Type: image/gif\r\n")
    requests = tracking_server.requests
    assert [seen.connection for seen in requests] == [1, 2, 1]
    assert [seen.at for seen in requests] == sorted(seen.at for seen in requests)
    assert requests[0].target == tracking_server.targets[0] == "/track/?c=2&p=1"
    assert requests[0].headers == (("Host", "convert.example"), ("X-Odd", "a: b"), ("x-odd", "c"))
    assert requests[0].all("X-ODD") == ["a: b", "c"]


def test_requests_of_which_only_part_arrives_are_counted(tracking_server: TrackingServer) -> None:
    for size in (0, 1, 20, len(GET) - 1):
        with connect(tracking_server.port) as client:
            client.sendall(GET[:size])
    tracking_server.until(lambda: tracking_server.connections == 4 and tracking_server.open == 0)
    assert tracking_server.partial == 3
    assert tracking_server.requests == []


def test_what_is_no_request_is_counted_and_closes_the_connection(tracking_server: TrackingServer) -> None:
    assert talk(tracking_server.port, b"hello\r\n\r\n") == (b"", END)
    tracking_server.until(lambda: tracking_server.open == 0)
    assert (tracking_server.malformed, tracking_server.partial) == (1, 0)


def test_the_script_goes_before_the_default_which_may_look_at_the_request() -> None:
    def default(seen: Seen) -> Behaviour:
        return answer(500 if "bad" in seen.target else 200)

    with TrackingServer(answer(429), default=default) as server, connect(server.port) as client:
        statuses = []
        for target in (b"bad", b"bad", b"good"):
            client.sendall(b"GET /%b HTTP/1.1\r\nContent-Length: 2\r\n\r\nxy" % target)
            statuses.append(client.recv(65536)[9:12])
        assert statuses == [b"429", b"500", b"200"]
        assert {seen.body for seen in server.requests} == {b"xy"}


def test_a_connection_that_asks_to_be_closed_is_closed(tracking_server: TrackingServer) -> None:
    assert talk(tracking_server.port, LAST_GET)[1] == END


def test_reset_on_accept_meets_an_open_connection_at_its_next_request(
    tracking_server: TrackingServer,
) -> None:
    with connect(tracking_server.port) as client:
        client.sendall(GET)
        assert client.recv(65536)
        tracking_server.script(reset_on_accept())
        assert receive(client) == (b"", RESET)
    assert len(tracking_server.requests) == 1
    assert tracking_server.partial == 0


def test_a_default_can_reset_every_connection() -> None:
    with TrackingServer(default=reset_on_accept()) as server:
        assert [talk(server.port)[1] for _ in range(3)] == [RESET] * 3
        assert (server.connections, server.requests) == (3, [])


def test_an_endless_body_stops_when_the_client_leaves(tracking_server: TrackingServer) -> None:
    tracking_server.script(endless())
    with connect(tracking_server.port) as client:
        client.sendall(GET)
        assert b"Content-Length: 1073741824" in client.recv(65536)
    tracking_server.until(lambda: tracking_server.open == 0)


def test_a_gzip_bomb_is_small_on_the_wire_and_grows(tracking_server: TrackingServer) -> None:
    size = 64 * 1024 * 1024
    tracking_server.script(gzip_bomb(size))
    received, _ = talk(tracking_server.port, LAST_GET)
    body = received.partition(b"\r\n\r\n")[2]
    assert len(body) < 100_000
    assert len(zlib.decompress(body, wbits=31)) == size


def test_nobody_listens_on_a_refused_port() -> None:
    with refused_port() as port:
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                connect(port)
        with TrackingServer(port=port) as server:  # and later somebody does
            assert talk(server.port, LAST_GET)[1] == END


def test_a_failing_test_function_is_reported_when_the_server_stops() -> None:
    def default(_seen: Seen) -> Behaviour:
        raise LookupError("no such behaviour")

    with pytest.raises(BaseExceptionGroup) as caught, TrackingServer(default=default) as server:
        talk(server.port)
    assert caught.group_contains(LookupError)


def test_waiting_for_what_does_not_come_ends_with_the_counts(tracking_server: TrackingServer) -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.05 s: <TrackingServer .*'connections': 0"):
        tracking_server.until(lambda: tracking_server.requests, 0.05)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_server_can_be_used_from_any_event_loop(backend: str) -> None:
    async def main() -> None:
        with TrackingServer() as server:
            async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
                await stream.send(GET)
                assert (await stream.receive()).startswith(b"HTTP/1.1 200 OK")
                await server.becomes(lambda: len(server.requests) == 1 and server.open == 1)

    anyio.run(main, backend=backend)


def test_a_server_that_stops_while_connections_come_in_leaves_none_of_them_open() -> None:
    for _ in range(100):
        with TrackingServer() as server:
            clients = [connect(server.port) for _ in range(3)]
        for client in clients:
            client.close()


def test_servers_leave_no_thread_and_no_socket() -> None:
    threads = set(threading.enumerate())
    for _ in range(20):
        with TrackingServer(stall()) as server, connect(server.port) as client:
            client.sendall(GET)
            server.until_requests(1)
    assert set(threading.enumerate()) <= threads  # sockets: an unclosed one is a warning, and so an error


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        (Authority.server, None),
        (Authority.server_of_another_host, "IP address mismatch"),
        (Authority.expired_server, "certificate has expired"),
    ],
)
def test_certificates_are_good_or_bad_as_asked(
    context: Callable[[Authority], ssl.SSLContext], reason: str | None, authority: Authority
) -> None:
    client = ssl.create_default_context(cafile=authority.file)
    with TrackingServer(tls=context(authority)) as server:
        wrap = partial(client.wrap_socket, server_hostname="127.0.0.1")
        if reason is None:
            with wrap(connect(server.port)) as secure:
                secure.sendall(GET)
                assert secure.recv(65536).startswith(b"HTTP/1.1 200 OK")
            assert server.origin == f"https://127.0.0.1:{server.port}"
        else:
            with closing(connect(server.port)) as plain, pytest.raises(ssl.SSLError, match=reason):
                wrap(plain)
            server.until(lambda: server.failed_handshakes == 1)
        assert server.connections == 1
        assert len(server.requests) == (reason is None)


def test_a_server_stops_in_the_middle_of_a_handshake(authority: Authority) -> None:
    with TrackingServer(tls=authority.server()) as server, connect(server.port):
        server.until(lambda: server.open == 1)
        server.stop()


@pytest.mark.parametrize(
    "behaviour", [reset(), close(), broken_chunks(), answer_and_close(announced=True)], ids=str
)
def test_behaviours_work_through_tls(behaviour: Behaviour, authority: Authority) -> None:
    with TrackingServer(behaviour, tls=authority.server()) as server:
        with authority.client().wrap_socket(
            connect(server.port), server_hostname="localhost", suppress_ragged_eofs=False
        ) as client:
            received, ended = receive(client)
        assert ended == (RESET if behaviour.name == "reset" else END)
        assert bool(received) == (len(behaviour.steps) > 1 or isinstance(behaviour.steps[0], bytes))


def test_a_proxy_forwards_plain_requests_and_counts_them(tracking_server: TrackingServer) -> None:
    url = b"http://convert.example/track/?c=2"
    request = b"GET %b HTTP/1.1\r\nHost: convert.example\r\nProxy-Connection: keep-alive\r\n\r\n" % url
    with ForwardProxy(tracking_server.port) as proxy:
        with connect(proxy.port) as client:
            for _ in range(2):
                client.sendall(request)
                assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")
        assert [seen.target for seen in proxy.requests] == [url.decode()] * 2
        assert proxy.url.endswith(f":{proxy.port}")
    assert tracking_server.targets == ["/track/?c=2"] * 2
    assert tracking_server.requests[0].headers == (("Host", "convert.example"),)
    assert tracking_server.connections == 1


def test_a_proxy_tunnels_to_the_one_place_whatever_host_is_named(authority: Authority) -> None:
    with (
        TrackingServer(tls=authority.server("convert.example")) as server,
        ForwardProxy(server.port) as proxy,
    ):
        with connect(proxy.port) as plain:
            plain.sendall(b"CONNECT convert.example:443 HTTP/1.1\r\n\r\n")
            assert plain.recv(65536) == b"HTTP/1.1 200 Connection established\r\n\r\n"
            with authority.client().wrap_socket(plain, server_hostname="convert.example") as client:
                client.sendall(GET)
                assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")
        assert [seen.target for seen in proxy.requests] == ["convert.example:443"]
        assert len(server.requests) == 1


def test_a_proxy_can_refuse_hang_up_and_miss_its_upstream() -> None:
    connect_request = b"CONNECT convert.example:443 HTTP/1.1\r\n\r\n"
    with refused_port() as nowhere, ForwardProxy(nowhere, refuse=403) as proxy:
        received, ended = talk(proxy.port, connect_request, until=lambda got: got.endswith(b"\r\n\r\n"))
        assert received.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert ended == OPEN
        proxy.refuse = None
        assert talk(proxy.port, connect_request)[0].startswith(b"HTTP/1.1 502 ")
        proxy.hang_up = True
        assert talk(proxy.port, connect_request) == (b"", END)
        assert (len(proxy.requests), proxy.upstream_connections) == (3, 0)


def test_a_reset_behind_a_proxy_closes_the_tunnel(tracking_server: TrackingServer) -> None:
    tracking_server.script(reset())
    with ForwardProxy(tracking_server.port) as proxy, connect(proxy.port) as client:
        client.sendall(b"CONNECT convert.example:80 HTTP/1.1\r\n\r\n")
        assert client.recv(65536)
        assert receive(client) == (b"", END)


def test_the_server_is_quick_enough_for_load(tracking_server: TrackingServer) -> None:
    async def ask(times: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", tracking_server.port)
        for _ in range(times):
            writer.write(GET)
            await reader.readexactly(size)
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        await asyncio.gather(*[ask(100) for _ in range(20)])

    size = len(talk(tracking_server.port, LAST_GET)[0])
    asyncio.run(main())
    assert len(tracking_server.requests) == 2001
