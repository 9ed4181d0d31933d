"""Clients that a site makes and hands to us: with habits of their own, none of which may reach Convert."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest

from convert_middleware.delivery import ClientSender
from convert_middleware.delivery.policy import Outcome, Result
from tests.contract.test_senders import QUERY
from tests.servers import TrackingServer, answer, redirect, set_cookie

if TYPE_CHECKING:
    from collections.abc import Callable

every_library = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])


def send(endpoint: str, factory: Callable[[], Any], times: int) -> list[Outcome]:
    async def story() -> list[Outcome]:
        sender = ClientSender(endpoint, factory)
        await sender.open()
        try:
            return [await sender.send(QUERY) for _ in range(times)]
        finally:
            await sender.close()

    return asyncio.run(story())


@every_library
def test_nothing_that_a_client_adds_of_its_own_leaves_and_every_attempt_says_who_sends_it(
    library: Any, tracking_server: TrackingServer
) -> None:
    def factory() -> Any:
        return library.AsyncClient(
            headers={"User-Agent": "site/1.0", "X-Visitor": "secret", "Referer": "https://shop.example/"},
            cookies={"session": "secret"},
            params={"visitor": "secret"},
        )

    tracking_server.script(set_cookie(), answer(503))
    outcomes = send(tracking_server.endpoint, factory, 3)

    assert [each.result for each in outcomes] == [Result.DELIVERED, Result.REFUSED, Result.DELIVERED]
    assert tracking_server.targets == [f"/track/?{QUERY}"] * 3
    for seen in tracking_server.requests:
        assert [value.partition("/")[0] for value in seen.all("User-Agent")] == ["ConvertAgent"]
        for name in ("X-Visitor", "Referer", "Cookie"):
            assert seen.all(name) == []


@every_library
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_client_that_follows_redirects_does_not_follow_ours(
    library: Any, status: int, tracking_server: TrackingServer
) -> None:
    with TrackingServer() as elsewhere:
        tracking_server.script(redirect(elsewhere.endpoint, status))
        outcomes = send(tracking_server.endpoint, lambda: library.AsyncClient(follow_redirects=True), 2)

        assert [each.result for each in outcomes] == [Result.REJECTED, Result.DELIVERED]
        assert elsewhere.requests == []
    assert len(tracking_server.requests) == 2
