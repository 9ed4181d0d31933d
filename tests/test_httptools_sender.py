"""What the httptools sender makes of single bytes, and what it does with its connections."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import pytest

from convert_middleware.delivery.policy import Outcome, Result
from convert_middleware.delivery.senders import connection, httptools_sender
from convert_middleware.delivery.senders.httptools_sender import HttptoolsSender
from convert_middleware.errors import SettingsError
from tests.servers import (
    Authority,
    Behaviour,
    TrackingServer,
    answer,
    answer_and_close,
    drip,
    endless,
    refused_port,
    reset,
    stall,
)
from tests.servers.listener import PeerLeft

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from tests.servers.behaviour import Step
    from tests.servers.listener import Peer

OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@asynccontextmanager
async def opened(endpoint: str) -> AsyncIterator[HttptoolsSender]:
    sender = HttptoolsSender(endpoint)
    await sender.open()
    try:
        yield sender
    finally:
        await sender.close()


def send(endpoint: str, *texts: str) -> list[Outcome]:
    async def story() -> list[Outcome]:
        async with opened(endpoint) as sender:
            return [await sender.send(text) for text in texts]

    return asyncio.run(story())


async def _warm(sender: HttptoolsSender) -> None:
    """Wait until the first connection is open, or cannot be opened."""
    assert sender._warming is not None
    await asyncio.wait([sender._warming])


async def _reset(peer: Peer) -> None:
    peer.reset()
    raise PeerLeft


async def _end(peer: Peer) -> None:
    peer.writer.close()
    raise PeerLeft


async def _breathe(peer: Peer) -> None:
    await peer.wait(0.002)


# --- answers ----------------------------------------------------------------------------------------------


HEAD: Final = b"HTTP/1.1 200 OK\r\n"
CHUNKED: Final = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BUSY: Final = b"HTTP/1.1 503 Busy\r\nretry-AFTER: 7\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n"
SWITCHING: Final = b"HTTP/1.1 101 Switching\r\n"
OLD: Final = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n"
BOT: Final = b'7\r\n{"code"\r\n7\r\n:"BOT"}\r\n0\r\n\r\n'


@pytest.mark.parametrize(
    ("wire", "result", "wait", "again"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, Result.DELIVERED, None, True),
        (b"HTTP/1.1 103 Early\r\nRetry-After: 5\r\n\r\n" * 3 + OK, Result.DELIVERED, None, True),
        (b"HTTP/1.1 103 Early\r\nContent-Length: 9\r\n\r\n" + OK, Result.DELIVERED, None, True),
        (SWITCHING + b"Upgrade: x\r\nConnection: upgrade\r\n\r\nxx", Result.REJECTED, None, False),
        (SWITCHING + b"\r\n" + OK, Result.REJECTED, None, False),
        (BUSY, Result.REFUSED, 7, True),
        (b"HTTP/1.1 204 None\r\n\r\n", Result.DELIVERED, None, True),
        (b"HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n", Result.REJECTED, None, True),
        (OLD + b"\r\nhi", Result.DELIVERED, None, False),
        (OLD + b"Connection: keep-alive\r\n\r\nhi", Result.DELIVERED, None, True),
        (HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi", Result.DELIVERED, None, False),
        (CHUNKED + b"2\r\nhi\r\n0\r\nRetry-After: 3\r\n\r\n", Result.DELIVERED, None, True),
        (CHUNKED + BOT, Result.REJECTED, None, True),
        (CHUNKED + b"zz\r\nhi", Result.DELIVERED, None, False),
        (b"HTTP/1.1 twohundred\r\n\r\n", Result.AMBIGUOUS, None, False),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", Result.AMBIGUOUS, None, False),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Result.AMBIGUOUS, None, False),
    ],
)
def test_an_answer_means_the_same_however_it_arrives(
    wire: bytes, result: Result, wait: float | None, again: bool, tracking_server: TrackingServer
) -> None:
    drops = [step for byte in wire for step in (_breathe, bytes([byte]))]
    tracking_server.script(Behaviour("whole", (wire,)), Behaviour("in single bytes", tuple(drops)))

    first, second, third = send(tracking_server.endpoint, "n=1", "n=2", "n=3")

    assert first == second == Outcome(result, first.reason, wait)
    assert third.result is Result.DELIVERED
    assert tracking_server.connections == (1 if again else 3)
    assert tracking_server.targets == ["/track/?n=1", "/track/?n=2", "/track/?n=3"]


@pytest.mark.parametrize("more", [OK, b"HTTP/1.1 4", b"garbage"])
def test_what_follows_an_answer_unasked_is_never_taken_for_the_next_one(
    more: bytes, tracking_server: TrackingServer
) -> None:
    tracking_server.script(Behaviour("talkative", (OK + more,)), answer(503))

    first, second = send(tracking_server.endpoint, "n=1", "n=2")

    assert (first.result, second.result) == (Result.DELIVERED, Result.REFUSED)
    assert tracking_server.connections == 2


@pytest.mark.parametrize(
    ("body", "result"),
    [(b'{"code": "BOT"}', Result.REJECTED), (b"GIF89a", Result.DELIVERED), (b"", Result.DELIVERED)],
)
def test_a_body_may_end_with_the_connection(
    body: bytes, result: Result, tracking_server: TrackingServer
) -> None:
    tracking_server.script(Behaviour("until the end", (b"HTTP/1.1 200 OK\r\n\r\n" + body, _end)))

    first, second = send(tracking_server.endpoint, "n=1", "n=2")

    assert (first.result, second.result) == (result, Result.DELIVERED)


@pytest.mark.parametrize("ending", [_end, _reset])
def test_before_the_headers_have_ended_nobody_knows_and_from_then_on_everybody_does(
    ending: Step, tracking_server: TrackingServer
) -> None:
    cuts = range(len(OK) + 1)
    tracking_server.script(*[Behaviour(f"cut at {cut}", (OK[:cut], _breathe, ending)) for cut in cuts])

    async def story() -> list[Outcome]:
        async with opened(tracking_server.endpoint) as sender:
            outcomes = []
            for cut in cuts:
                outcomes.append(await sender.send(f"n={cut}"))
                await tracking_server.becomes(lambda: tracking_server.open == 0)
            return outcomes

    known = OK.index(b"\r\n\r\n") + 4
    assert [outcome.result for outcome in asyncio.run(story())] == [
        Result.AMBIGUOUS if cut < known else Result.DELIVERED for cut in cuts
    ]
    assert tracking_server.targets == [f"/track/?n={cut}" for cut in cuts]


def test_headers_without_end_are_not_read_to_the_end(tracking_server: TrackingServer) -> None:
    line = b"X-More: " + b"x" * 1000 + b"\r\n"
    tracking_server.script(
        Behaviour("headers without end", (b"HTTP/1.1 200 OK\r\n", *(line,) * 100, stall().steps[0])),
        Behaviour(
            "hints without end", (*(b"HTTP/1.1 103 Early\r\n" + line + b"\r\n",) * 100, stall().steps[0])
        ),
        Behaviour(
            "one header without end",
            (b"HTTP/1.1 200 OK\r\nX-More: ", *(b"x" * 1000,) * 100, stall().steps[0]),
        ),
    )

    outcomes = send(tracking_server.endpoint, "n=1", "n=2", "n=3", "n=4")

    assert [outcome.result for outcome in outcomes] == [Result.AMBIGUOUS] * 3 + [Result.DELIVERED]
    assert {outcome.reason for outcome in outcomes[:3]} == {"headers too long"}


def test_a_slow_body_is_waited_for_a_little_and_its_connection_given_up(
    tracking_server: TrackingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BODY_TIMEOUT", 0.1)
    tracking_server.script(drip(b"x" * 200, 0.02))

    first, second = send(tracking_server.endpoint, "n=1", "n=2")

    assert first.result is second.result is Result.DELIVERED
    assert tracking_server.connections == 2


def test_a_body_without_end_is_read_in_part_and_its_connection_given_up(
    tracking_server: TrackingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BODY_TIMEOUT", 10.0)
    tracking_server.script(endless())

    async def story() -> None:
        async with opened(tracking_server.endpoint) as sender, asyncio.timeout(2):
            assert (await sender.send("n=1")).result is Result.DELIVERED

    asyncio.run(story())
    tracking_server.until(lambda: tracking_server.open == 0)


@pytest.mark.parametrize("text", ["a b", "a\r\nX: y", "a\r\n\r\nGET / HTTP/1.1", "a\n", "\ta", "€", ""])
def test_what_is_no_query_string_is_no_part_of_a_request(text: str, tracking_server: TrackingServer) -> None:
    outcomes = send(tracking_server.endpoint, text, "n=2")

    assert [outcome.result for outcome in outcomes] == [Result.REJECTED, Result.DELIVERED]
    assert tracking_server.targets == ["/track/?n=2"]


# --- connections ------------------------------------------------------------------------------------------


def test_the_first_connection_is_open_before_the_first_request(tracking_server: TrackingServer) -> None:
    async def story() -> None:
        async with opened(tracking_server.endpoint) as sender:
            await tracking_server.becomes(lambda: tracking_server.open == 1)
            assert (await sender.send("n=1")).result is Result.DELIVERED

    asyncio.run(story())
    assert (tracking_server.connections, len(tracking_server.requests)) == (1, 1)


def test_that_there_is_no_network_yet_costs_nothing_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    async def story(port: int) -> Outcome:
        async with opened(f"http://127.0.0.1:{port}/track/") as sender:
            await _warm(sender)
            with TrackingServer(port=port):
                return await sender.send("n=1")

    with refused_port() as port:
        outcome = asyncio.run(story(port))

    assert outcome.result is Result.DELIVERED
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "encrypted"])
def test_an_idle_connection_is_closed_after_a_while(
    tls: bool, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    monkeypatch.setattr(connection, "KEEP_ALIVE", 0.1)

    async def story(server: TrackingServer) -> None:
        async with opened(server.endpoint) as sender:
            assert (await sender.send("n=1")).result is Result.DELIVERED
            await server.becomes(lambda: server.open == 0)
            assert (await sender.send("n=2")).result is Result.DELIVERED

    with TrackingServer(tls=authority.server() if tls else None) as server:
        asyncio.run(story(server))
        assert server.connections == 2


def test_what_nobody_asked_for_ends_an_idle_connection(tracking_server: TrackingServer) -> None:
    tracking_server.script(Behaviour("talkative", (OK, _breathe, OK)))

    async def story() -> None:
        async with opened(tracking_server.endpoint) as sender:
            await sender.send("n=1")
            await tracking_server.becomes(lambda: tracking_server.open == 0)
            assert (await sender.send("n=2")).result is Result.DELIVERED

    asyncio.run(story())


def test_a_request_is_sent_over_another_connection_where_the_idle_one_was_closed_before(
    tracking_server: TrackingServer,
) -> None:
    async def story() -> list[Outcome]:
        async with opened(tracking_server.endpoint) as sender:
            outcomes = [await sender.send("n=1")]
            (idle,) = sender._idle
            # The socket says no before anybody has looked at it: nothing can have left.
            twin = socket.socket(fileno=os.dup(idle._transport.get_extra_info("socket").fileno()))
            twin.shutdown(socket.SHUT_WR)
            twin.close()
            return [*outcomes, await sender.send("n=2")]

    assert [outcome.result for outcome in asyncio.run(story())] == [Result.DELIVERED] * 2
    assert tracking_server.targets == ["/track/?n=1", "/track/?n=2"]
    assert tracking_server.connections == 2


@pytest.mark.parametrize(
    ("taken", "ending", "result"),
    [
        (0, "timeout", Result.NOT_SENT),
        (0, "reset", Result.NOT_SENT),
        (1, "timeout", Result.AMBIGUOUS),
        (1, "reset", Result.AMBIGUOUS),
    ],
)
def test_a_request_of_which_no_byte_left_is_known_to_be_unsent(
    taken: int, ending: str, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(httptools_sender, "TOTAL_TIMEOUT", 0.3 if ending == "timeout" else 10.0)

    async def story() -> Outcome:
        with socket.create_server(("127.0.0.1", 0)) as heard:
            async with opened(f"http://127.0.0.1:{heard.getsockname()[1]}/track/") as sender:
                peer, _ = await asyncio.to_thread(heard.accept)
                await _warm(sender)
                (idle,) = sender._idle
                full = socket.socket(fileno=os.dup(idle._transport.get_extra_info("socket").fileno()))
                with full, peer:
                    full.setblocking(False)
                    with suppress(BlockingIOError):
                        while True:
                            full.send(bytes(65536))
                    sending = asyncio.ensure_future(sender.send("n=" + "1" * 1000))
                    await asyncio.sleep(0.05)
                    if taken:
                        peer.settimeout(1.0)
                        while idle._transport.get_write_buffer_size():
                            peer.recv(1 << 20)
                            await asyncio.sleep(0)
                    if ending == "reset":
                        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                        peer.close()
                    return await sending

    assert asyncio.run(story()).result is result


def test_a_server_that_closes_after_each_answer_gets_few_requests_to_close_upon(
    tracking_server: TrackingServer,
) -> None:
    tracking_server.default = answer_and_close(announced=False)

    outcomes = send(tracking_server.endpoint, *[f"n={number}" for number in range(50)])

    assert [outcome.result for outcome in outcomes].count(Result.DELIVERED) >= 48
    assert len(set(tracking_server.targets)) == len(tracking_server.requests)


def test_a_cancelled_request_closes_its_connection(tracking_server: TrackingServer) -> None:
    tracking_server.script(stall())

    async def story() -> None:
        async with opened(tracking_server.endpoint) as sender:
            sending = asyncio.ensure_future(sender.send("n=1"))
            await tracking_server.becomes(lambda: len(tracking_server.requests) == 1)
            sending.cancel()
            await asyncio.wait([sending])
            assert sending.cancelled()
            await tracking_server.becomes(lambda: tracking_server.open == 0)
            assert (await sender.send("n=2")).result is Result.DELIVERED

    asyncio.run(story())


def test_no_request_shares_a_connection_with_another(tracking_server: TrackingServer) -> None:
    async def story() -> Sequence[Outcome]:
        async with opened(tracking_server.endpoint) as sender:
            await sender.send("n=0")
            return await asyncio.gather(*[sender.send(f"n={number}") for number in range(1, 16)])

    assert {outcome.result for outcome in asyncio.run(story())} == {Result.DELIVERED}
    assert len(set(tracking_server.targets)) == len(tracking_server.requests) == 16
    assert tracking_server.connections <= 16


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        ("http://a.example/t/", "a.example"),
        ("http://A.example:80/t/", "a.example"),
        ("http://a.example:8080/t/", "a.example:8080"),
        ("https://a.example:443/t/", "a.example"),
        ("https://a.example:80/t/", "a.example:80"),
        ("http://[::1]/t/", "[::1]"),
        ("http://[::1]:8080/t/", "[::1]:8080"),
        ("http://me:secret@a.example/t/", "a.example"),
    ],
)
def test_the_host_is_written_as_it_should_be(endpoint: str, host: str) -> None:
    lines = HttptoolsSender(endpoint)._find(endpoint).after.split(b"\r\n")

    assert f"Host: {host}".encode() in lines


def test_an_endpoint_may_be_an_address_of_ipv6() -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        await reader.read()
        writer.close()

    async def story() -> None:
        async with await asyncio.start_server(serve, "::1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with opened(f"http://[::1]:{port}/track/") as sender:
                assert (await sender.send("n=1")).result is Result.DELIVERED
            assert f"\r\nHost: [::1]:{port}\r\n".encode() in asked[0]

    asyncio.run(story())


# --- the process ------------------------------------------------------------------------------------------

RUNS = """
    import asyncio, gc, sys
    from convert_middleware.delivery.senders.choose import make_sender

    async def main(text):
        asyncio.get_running_loop().slow_callback_duration = 10  # of which certificates take much
        sender = make_sender("httptools", sys.argv[1])()
        await sender.open()
        print((await asyncio.gather(*[sender.send(text) for _ in range(3)]))[0].result)
        await sender.close()

    for number in range(3):
        asyncio.run(main(f"n={number}"))
        gc.collect()
"""


@pytest.mark.parametrize("tls", ["plain", "encrypted", "expired", "closing", "resetting"])
def test_one_loop_after_the_other_leaves_nothing_behind(
    tls: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    context = {"plain": None, "expired": authority.expired_server()}.get(tls, authority.server())
    default = {"closing": answer_and_close(announced=True), "resetting": reset()}.get(tls, answer())
    said = {"expired": "not_sent", "resetting": "ambiguous"}.get(tls, "delivered")
    with TrackingServer(tls=context, default=default) as server:
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(RUNS), server.endpoint],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        server.until(lambda: server.open == 0)

    assert (done.stdout.split(), done.stderr, done.returncode) == ([said] * 3, "", 0)


def test_a_sender_is_closed_in_time_though_servers_do_not_say_goodbye(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with TrackingServer(tls=authority.server(), default=stall()) as server:

        async def story() -> None:
            sender = HttptoolsSender(server.endpoint)
            await sender.open()
            sending = [asyncio.ensure_future(sender.send(f"n={number}")) for number in range(3)]
            await server.becomes(lambda: len(server.requests) == 3)
            async with asyncio.timeout(1.0):
                await sender.close()
            assert {(await each).result for each in sending} == {Result.AMBIGUOUS}

        asyncio.run(story())


def test_a_sender_is_closed_in_time_while_it_connects() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:

        async def story() -> None:
            sender = HttptoolsSender(f"https://127.0.0.1:{silent.getsockname()[1]}/track/")
            await sender.open()
            sending = asyncio.ensure_future(sender.send("n=1"))
            peer, _ = await asyncio.to_thread(silent.accept)
            async with asyncio.timeout(1.0):
                await sender.close()
            assert (await sending).result is Result.NOT_SENT
            peer.close()

        asyncio.run(story())


def test_a_server_that_closes_every_connection_at_once_gets_one_for_each_attempt() -> None:
    """As a load balancer without a backend does; a process that is busy finds every connection closed."""
    accepted = 0

    def turn_away(listener: socket.socket) -> None:
        nonlocal accepted
        with suppress(OSError):
            while True:
                listener.accept()[0].close()
                accepted += 1

    async def busy() -> None:
        while True:
            time.sleep(0.001)  # noqa: ASYNC251 - holds the loop up, as a busy process does
            await asyncio.sleep(0)

    async def story(endpoint: str) -> list[Result]:
        async with opened(endpoint) as sender, asyncio.timeout(5):
            work = asyncio.create_task(busy())
            try:
                return [(await sender.send("c=2&p=1")).result for _ in range(3)]
            finally:
                work.cancel()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=turn_away, args=[listener], daemon=True).start()
        results = asyncio.run(story(f"http://127.0.0.1:{listener.getsockname()[1]}/track/"))
        listener.shutdown(socket.SHUT_RDWR)

    assert set(results) <= {Result.NOT_SENT, Result.AMBIGUOUS}
    assert accepted <= 4  # and one that was open ahead


def test_a_folder_of_certificates_that_is_missing_is_passed_over_and_none_at_all_are_refused(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "trusted"
    (folder / "folder").mkdir(parents=True)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path / 'missing'}{os.pathsep}{folder}")

    async def trusted() -> int:
        async with opened("https://127.0.0.1:9/track/") as sender:
            assert sender._tls is not None
            return len(sender._tls.get_ca_certs())

    with pytest.raises(SettingsError, match="SSL_CERT_DIR"):
        asyncio.run(trusted())
    (folder / "ours.pem").write_bytes(authority.file.read_bytes())
    assert asyncio.run(trusted()) == 1
