"""What every sender must do; each one that joins the project joins ``SENDERS``."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpx
import httpx2
import pytest

from convert_middleware.delivery import ClientSender, HttpxSender, Sender
from convert_middleware.delivery.policy import Outcome, Result
from convert_middleware.delivery.senders.httptools_sender import HttptoolsSender
from convert_middleware.delivery.senders.pyreqwest_sender import PyreqwestSender
from tests.servers import (
    Authority,
    Behaviour,
    TrackingServer,
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
from tests.servers.behaviour import message

if TYPE_CHECKING:
    from tests.servers.listener import Peer

LOOKED_AT: Final = 64 * 1024  # bytes
QUERY: Final = "c=2&p=1&g=331&ga=1&t=35%7Cab12345%7C1599.99%7C10"


@dataclass(frozen=True)
class Kind:
    """A kind of sender, and how to make one for an endpoint."""

    name: str
    make: Callable[[str], Sender]

    def __str__(self) -> str:
        return self.name


SENDERS: Final = [
    Kind("httpx", lambda endpoint: HttpxSender(endpoint, "httpx")),
    Kind("httpx2", lambda endpoint: HttpxSender(endpoint, "httpx2")),
    Kind("httptools", HttptoolsSender),
    Kind("pyreqwest", PyreqwestSender),
    Kind("client of httpx", lambda endpoint: ClientSender(endpoint, httpx.AsyncClient)),
    Kind("client of httpx2", lambda endpoint: ClientSender(endpoint, httpx2.AsyncClient)),
]
every_sender = pytest.mark.parametrize("kind", SENDERS, ids=str)


@asynccontextmanager
async def opened(kind: Kind, endpoint: str) -> AsyncIterator[Sender]:
    sender = kind.make(endpoint)
    await sender.open()
    try:
        yield sender
    finally:
        await sender.close()


def send(kind: Kind, endpoint: str, times: int = 1) -> list[Outcome]:
    """Send the same request some times, one after the other."""
    return send_texts(kind, endpoint, *[QUERY] * times)


def send_texts(kind: Kind, endpoint: str, *texts: str) -> list[Outcome]:
    """Send query strings one after the other."""

    async def story() -> list[Outcome]:
        async with opened(kind, endpoint) as sender:
            return [await sender.send(text) for text in texts]

    return asyncio.run(story())


ANSWERS: Final[Sequence[tuple[Behaviour, Result]]] = [
    (answer(200), Result.DELIVERED),
    (answer(204), Result.DELIVERED),
    (early_hints(), Result.DELIVERED),
    (captive_portal(), Result.DELIVERED),
    (set_cookie(), Result.DELIVERED),
    (wrong_clock(), Result.DELIVERED),
    (gzip_bomb(), Result.DELIVERED),
    (endless(), Result.DELIVERED),
    (broken_chunks(), Result.DELIVERED),
    (answer_and_close(announced=True), Result.DELIVERED),
    (bot(), Result.REJECTED),
    (redirect(status=301), Result.REJECTED),
    (redirect(), Result.REJECTED),
    (answer(404), Result.REJECTED),
    (answer(410), Result.REJECTED),
    (answer(403), Result.UNAUTHORISED),
    (answer(503), Result.REFUSED),
    (answer(504), Result.AMBIGUOUS),
    (reset(), Result.AMBIGUOUS),
    (close(), Result.AMBIGUOUS),
    (broken_head(), Result.AMBIGUOUS),
    (garbage(), Result.AMBIGUOUS),
]


@every_sender
@pytest.mark.parametrize(("behaviour", "result"), ANSWERS, ids=str)
def test_each_answer_has_its_class_and_the_next_request_works(
    kind: Kind, behaviour: Behaviour, result: Result, tracking_server: TrackingServer
) -> None:
    tracking_server.script(behaviour)

    first, second = send(kind, tracking_server.endpoint, 2)

    assert first.result is result
    assert second.result is Result.DELIVERED
    assert tracking_server.targets == [f"/track/?{QUERY}"] * 2
    assert QUERY not in repr(first)


@every_sender
def test_the_request_says_who_sends_it_and_nothing_of_a_visitor(
    kind: Kind, tracking_server: TrackingServer
) -> None:
    tracking_server.script(set_cookie(), answer(503), answer(200))
    send(kind, tracking_server.endpoint, 3)

    for seen in tracking_server.requests:
        headers = {name.lower(): value for name, value in seen.headers}
        assert (seen.method, seen.body) == ("GET", b"")
        assert headers.pop("user-agent").startswith("ConvertAgent/")
        assert headers.pop("host") == f"127.0.0.1:{tracking_server.port}"
        assert headers.pop("accept-encoding") == "identity"
        assert set(headers) <= {"accept", "connection"}


@every_sender
def test_connections_are_kept_and_used_again(kind: Kind, tracking_server: TrackingServer) -> None:
    send(kind, tracking_server.endpoint, 5)

    assert tracking_server.connections == 1


@every_sender
def test_a_retry_after_is_handed_on(kind: Kind, tracking_server: TrackingServer) -> None:
    tracking_server.script(answer(503, {"Retry-After": "7"}), answer(503, {"Retry-After": "garbage"}))

    assert [outcome.retry_after for outcome in send(kind, tracking_server.endpoint, 2)] == [7.0, None]


@every_sender
def test_a_retry_after_that_is_no_text_says_nothing_and_the_status_counts(
    kind: Kind, tracking_server: TrackingServer
) -> None:
    odd = {"Retry-After": "\xb2\xff"}
    tracking_server.script(answer(200, odd), answer(503, odd))

    outcomes = send(kind, tracking_server.endpoint, 2)

    assert [outcome.result for outcome in outcomes] == [Result.DELIVERED, Result.REFUSED]
    assert outcomes[1].retry_after is None


@every_sender
def test_a_refused_connection_sent_nothing(kind: Kind) -> None:
    with refused_port() as port:
        (outcome,) = send(kind, f"http://127.0.0.1:{port}/track/")

    assert outcome.result is Result.NOT_SENT


@every_sender
def test_a_host_that_has_no_address_was_sent_nothing(kind: Kind) -> None:
    (outcome,) = send(kind, "http://nowhere.invalid/track/")

    assert outcome.result is Result.NOT_SENT


@every_sender
@pytest.mark.parametrize("flaw", ["unknown authority", "expired", "another host"])
def test_a_failed_handshake_sent_nothing(
    kind: Kind, flaw: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = authority.server()
    if flaw != "unknown authority":
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        context = authority.expired_server() if flaw == "expired" else authority.server_of_another_host()
    with TrackingServer(tls=context) as server:
        (outcome,) = send(kind, server.endpoint)

        assert outcome.result is Result.NOT_SENT
        assert server.requests == []


@every_sender
def test_the_certificates_of_the_environment_are_trusted(
    kind: Kind, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with TrackingServer(tls=authority.server()) as server:
        outcomes = send(kind, server.endpoint, 2)

    assert [outcome.result for outcome in outcomes] == [Result.DELIVERED] * 2
    assert server.connections == 1


@every_sender
def test_a_connection_that_breaks_unread_was_at_most_sent_once(
    kind: Kind, tracking_server: TrackingServer
) -> None:
    tracking_server.script(answer(), reset_on_accept())
    first, second, third = send(kind, tracking_server.endpoint, 3)

    assert (first.result, third.result) == (Result.DELIVERED, Result.DELIVERED)
    assert second.result is Result.AMBIGUOUS
    assert len(tracking_server.requests) == 2


@every_sender
def test_an_attempt_that_is_cancelled_at_any_moment_spoils_no_later_one(
    kind: Kind, tracking_server: TrackingServer
) -> None:
    tracking_server.default = lambda seen: stall() if "stall" in seen.target else answer()

    async def story() -> list[Outcome]:
        async with opened(kind, tracking_server.endpoint) as sender:
            for moment in range(12):
                attempts = [asyncio.ensure_future(sender.send("stall")) for _ in range(3)]
                await asyncio.sleep(moment * 0.0004)  # how far they get is what differs
                for each in attempts:
                    each.cancel()
                await asyncio.gather(*attempts, return_exceptions=True)
            async with asyncio.timeout(5):
                return list(await asyncio.gather(*[sender.send(QUERY) for _ in range(8)]))

    assert {outcome.result for outcome in asyncio.run(story())} == {Result.DELIVERED}
    tracking_server.until(lambda: tracking_server.open == 0)


@every_sender
def test_each_hit_goes_to_the_server_of_its_own_project(kind: Kind, tracking_server: TrackingServer) -> None:
    with TrackingServer() as other:
        projects = [tracking_server.port, other.port]
        texts = [f"c=2&p={project}&g={goal}&ga=1" for goal in range(1, 4) for project in projects]
        outcomes = send_texts(kind, "http://127.0.0.1:{project_id}/of/{project_id}/", *texts)

        assert [outcome.result for outcome in outcomes] == [Result.DELIVERED] * 6
        for number, server in enumerate((tracking_server, other)):
            assert server.targets == [f"/of/{server.port}/?{text}" for text in texts[number::2]]
            assert server.connections == 1


@every_sender
@pytest.mark.parametrize(
    "text",
    ["", "n=1", "p=1&c=2", "c=2&p=", "c=2&p=x&g=1", "c=2&p=1.evil.example", "c=2&p=1/&g=1", "c=2&p=1\n&g=1"],
)
def test_what_names_no_project_is_rejected_unsent_where_the_endpoint_asks_for_one(
    kind: Kind, text: str, tracking_server: TrackingServer
) -> None:
    endpoint = f"{tracking_server.origin}/{{project_id}}/"
    outcomes = send_texts(kind, endpoint, "c=2&p=1", text, "c=2&p=1&g=1&ga=1", text)

    assert [outcome.result for outcome in outcomes] == [Result.DELIVERED, Result.REJECTED] * 2
    assert {outcome.reason for outcome in outcomes[1::2]} == {"names no project"}
    assert tracking_server.targets == ["/1/?c=2&p=1", "/1/?c=2&p=1&g=1&ga=1"]


@every_sender
def test_hits_of_very_many_projects_arrive_through_a_bounded_number_of_connections(
    kind: Kind, tracking_server: TrackingServer
) -> None:
    endpoint = f"{tracking_server.origin}/{{project_id}}/"

    async def story() -> int:
        async with opened(kind, endpoint) as sender:
            for project in range(1, 301):
                assert (await sender.send(f"c=2&p={project}&g=1&ga=1")).result is Result.DELIVERED
            await tracking_server.becomes(lambda: tracking_server.open <= 33)
            return len(set(tracking_server.targets))

    assert asyncio.run(story()) == 300


@every_sender
def test_no_log_of_the_clients_shows_the_url_of_any_project(
    kind: Kind, tracking_server: TrackingServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    endpoint = f"{tracking_server.origin}/{{project_id}}/"
    send_texts(kind, endpoint, "c=2&p=1&g=331&ga=1", "c=2&p=22&g=331&ga=1")

    assert len(tracking_server.requests) == 2
    assert "g=331" not in caplog.text


def test_a_body_that_drips_does_not_hold_up_the_outcome_for_long(tracking_server: TrackingServer) -> None:
    tracking_server.default = drip(b"x" * 100)

    async def one(kind: Kind) -> Outcome:
        async with opened(kind, tracking_server.endpoint) as sender, asyncio.timeout(8):  # an attempt has 10
            return await sender.send(QUERY)

    async def story() -> list[Outcome]:
        return await asyncio.gather(*map(one, SENDERS))

    assert [outcome.result for outcome in asyncio.run(story())] == [Result.DELIVERED] * len(SENDERS)


@every_sender
def test_a_connection_that_the_server_closed_while_idle_is_not_used_again(
    kind: Kind, tracking_server: TrackingServer
) -> None:
    tracking_server.script(answer_and_close(announced=False))

    async def story() -> Outcome:
        async with opened(kind, tracking_server.endpoint) as sender:
            await sender.send(QUERY)
            await tracking_server.becomes(lambda: tracking_server.open == 0)
            return await sender.send(QUERY)

    assert asyncio.run(story()).result is Result.DELIVERED
    assert len(tracking_server.requests) == 2


@every_sender
def test_of_a_body_without_end_little_more_is_read_than_what_is_looked_at(
    kind: Kind, tracking_server: TrackingServer
) -> None:
    sent = 0

    async def pour(peer: Peer) -> None:
        nonlocal sent
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LOOKED_AT)
        while True:
            await peer.send(bytes(LOOKED_AT))
            sent += LOOKED_AT

    head = message(200, {"Content-Length": str(1 << 30)})
    tracking_server.script(Behaviour("poured", (head, pour)))
    (outcome,) = send(kind, tracking_server.endpoint)
    tracking_server.until(lambda: tracking_server.open == 0)

    assert outcome.result is Result.DELIVERED
    assert sent <= LOOKED_AT + 8 * 1024 * 1024  # what waits in the sockets' buffers was not read
