"""Once the status is known, whatever breaks afterwards changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import httpx
import pytest

from convert_middleware.delivery import ClientSender
from convert_middleware.delivery.policy import Outcome, Result

ENDPOINT: Final = "http://track.example/track/"


class Broken(httpx.AsyncByteStream):
    """A body that breaks, and then breaks again while it is closed."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"the beginning"
        raise self._error

    async def aclose(self) -> None:
        raise self._error


class Answering(httpx.AsyncBaseTransport):
    """A user's transport."""

    def __init__(self, status: int, error: Exception) -> None:
        self._status = status
        self._error = error

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(self._status, headers={"Retry-After": "7"}, stream=Broken(self._error))


@pytest.mark.parametrize("error", [httpx.ReadError("broken"), TimeoutError(), OSError("broken")], ids=repr)
@pytest.mark.parametrize(
    ("status", "result"), [(200, Result.DELIVERED), (503, Result.REFUSED), (404, Result.REJECTED)]
)
def test_a_body_that_breaks_or_lasts_too_long_leaves_the_answer_what_its_status_says(
    status: int, result: Result, error: Exception
) -> None:
    async def story() -> Outcome:
        sender = ClientSender(ENDPOINT, lambda: httpx.AsyncClient(transport=Answering(status, error)))
        await sender.open()
        try:
            return await sender.send("n=1")
        finally:
            await sender.close()

    assert asyncio.run(story()) == Outcome(result, f"status {status}", 7.0)
