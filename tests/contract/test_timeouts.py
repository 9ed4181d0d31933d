"""What every sender makes of a server that takes too long, each limit made short for the test."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

import pytest

from convert_middleware.delivery.policy import Result
from convert_middleware.delivery.senders import (
    CONNECT_TIMEOUT,
    TOTAL_TIMEOUT,
    httptools_sender,
    httpx_sender,
    pyreqwest_sender,
)
from tests.contract.test_senders import QUERY, SENDERS, Kind, every_sender, opened, send
from tests.servers import Behaviour, TrackingServer, answer, stall

if TYPE_CHECKING:
    from convert_middleware.delivery.policy import Outcome
    from tests.servers.listener import Peer

SHORT: Final = 0.3  # seconds


@pytest.fixture
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """No attempt lasts ten seconds here."""
    for module in (httpx_sender, httptools_sender, pyreqwest_sender):
        monkeypatch.setattr(module, "TOTAL_TIMEOUT", SHORT)
        monkeypatch.setattr(module, "CONNECT_TIMEOUT", SHORT / 3)
    monkeypatch.setitem(httpx_sender._TIMEOUTS, "connect", SHORT / 3)


async def _wait(peer: Peer) -> None:
    await peer.wait(0.05)


SLOW_HEAD: Final = Behaviour(  # each byte is in time, the whole of it never is
    "slow head", (b"HTTP/1.1 200 OK\r\nX-Slow: ", *(_wait, b"x") * 200)
)


@every_sender
@pytest.mark.parametrize("behaviour", [stall(), SLOW_HEAD], ids=str)
def test_what_is_not_answered_in_time_may_have_been_counted_and_the_next_request_works(
    kind: Kind, behaviour: Behaviour, tracking_server: TrackingServer, impatience: None
) -> None:
    tracking_server.script(behaviour)

    first, second = send(kind, tracking_server.endpoint, 2)

    assert first.result is Result.AMBIGUOUS
    assert second.result is Result.DELIVERED
    assert tracking_server.targets == [f"/track/?{QUERY}"] * 2
    assert QUERY not in repr(first)
    tracking_server.until(lambda: tracking_server.open == 0)


@pytest.mark.parametrize("kind", SENDERS[:4], ids=str)  # a client of the user's has limits of its own
def test_a_handshake_that_is_never_answered_sent_nothing(kind: Kind, impatience: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        (outcome,) = send(kind, f"https://127.0.0.1:{port}/track/")

    assert outcome.result is Result.NOT_SENT


@every_sender
def test_one_request_that_is_never_answered_holds_up_no_other(
    kind: Kind, tracking_server: TrackingServer, impatience: None
) -> None:
    tracking_server.default = lambda seen: stall() if "stall" in seen.target else answer()

    async def story() -> list[Outcome]:
        async with opened(kind, tracking_server.endpoint) as sender:
            stalled = asyncio.ensure_future(sender.send("stall"))
            await tracking_server.becomes(lambda: len(tracking_server.requests) == 1)
            outcomes = [await sender.send(QUERY) for _ in range(3)]
            assert not stalled.done()
            return [*outcomes, await stalled]

    *others, stalled = asyncio.run(story())
    assert {outcome.result for outcome in others} == {Result.DELIVERED}
    assert stalled.result is Result.AMBIGUOUS


def test_an_attempt_lasts_ten_seconds_at_most_and_connecting_three() -> None:
    assert (TOTAL_TIMEOUT, CONNECT_TIMEOUT) == (10.0, 3.0)
    assert httpx_sender._TIMEOUTS == {"connect": 3.0, "read": 10.0, "write": 10.0, "pool": 10.0}
