"""A site as its author would write it; the options that tests vary come from the environment."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from convert_middleware import ConvertMiddleware, current

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

SECRET = "the shop's own secret, long enough"
logging.basicConfig(level=logging.DEBUG)


async def buy(request: Request) -> Response:
    convert = request.state.convert
    variation = convert.experiment(11, 12)
    convert.goal(331)
    convert.revenue(35, transaction_id="ab12345", value="1599.99", products=10)
    return PlainTextResponse(f"variation {variation}")


def reach(request: Request) -> Response:
    """Record in a thread, as every endpoint that is not async does."""
    return PlainTextResponse(str(current().goal(request.path_params["goal"])))


async def plain(request: Request) -> Response:
    return PlainTextResponse("nothing is recorded here", headers={"Cache-Control": "public, s-maxage=60"})


async def ticks(request: Request) -> Response:
    """Send events for ever; the third one is a goal."""

    async def events() -> AsyncIterator[str]:
        for number in range(1, 1_000_000):
            if number == 3:
                current().goal(331)
            yield f"data: {number}\n\n"
            await anyio.sleep(0.005)

    request.state.convert.experiment(11, 12)
    return StreamingResponse(events(), media_type="text/event-stream")


app = Starlette(
    routes=[
        Route("/buy", buy),
        Route("/reach/{goal}", reach),
        Route("/plain", plain),
        Route("/ticks", ticks),
    ]
)
app.add_middleware(ConvertMiddleware, project_id="1", customer_id="2", secret_key=SECRET)
