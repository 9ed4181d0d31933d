"""A child that is a site: the same Starlette page, tracked in one way or another, behind uvicorn.

    python -m benchmarks.sites NAME TRACKING_PORT

Every visitor is a new one, so that every response has something to track.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from typing import TYPE_CHECKING, Final

import httpx
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from benchmarks.children import say
from benchmarks.world import questions
from convert_middleware import ConvertMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response

_SECRET: Final = "a secret of at least sixteen bytes"
_AGENT: Final = {"User-Agent": "ConvertAgent/1.0 by-hand"}
_QUERY: Final = "c=100123&p=10025986&e=1004411111-1004422222-1004433333&ea=1&g=1004433333&ga=1"


def bare(_endpoint: str) -> Starlette:
    """Track nothing."""

    async def page(_request: Request) -> Response:
        return PlainTextResponse("hello")

    return Starlette(routes=[Route("/", page)])


def tracked(endpoint: str, sender: str) -> Starlette:
    """Track with this package."""

    async def page(request: Request) -> Response:
        request.state.convert.experiment(1004411111, 1004422222)
        request.state.convert.goal(1004433333)
        return PlainTextResponse("hello")

    site = Starlette(routes=[Route("/", page)])
    site.add_middleware(
        ConvertMiddleware,
        project_id=10025986,
        customer_id=100123,
        secret_key=_SECRET,
        endpoint=endpoint,
        sender=sender,
    )
    return site


def by_hand(endpoint: str) -> Starlette:
    """Track the obvious way: a session, a background task, a client."""

    async def track() -> None:
        async with httpx.AsyncClient() as client:
            await client.get(f"{endpoint}?{_QUERY}", headers=_AGENT)

    return _with_session(BackgroundTask(track))


def by_hand_one_client(endpoint: str) -> Starlette:
    """Track by hand with one client for all."""
    client = httpx.AsyncClient()

    async def track() -> None:
        await client.get(f"{endpoint}?{_QUERY}", headers=_AGENT)

    return _with_session(BackgroundTask(track))


def _with_session(task: BackgroundTask) -> Starlette:
    async def page(request: Request) -> Response:
        request.session["experiments"] = {"1004411111": 1004422222}
        request.session["goals"] = [1004433333]
        return PlainTextResponse("hello", background=task)

    site = Starlette(routes=[Route("/", page)])
    site.add_middleware(SessionMiddleware, secret_key=_SECRET)
    return site


SITES: Final[dict[str, Callable[[str], Starlette]]] = {
    "bare": bare,
    "httptools": lambda endpoint: tracked(endpoint, "httptools"),
    "httpx": lambda endpoint: tracked(endpoint, "httpx"),
    "httpx2": lambda endpoint: tracked(endpoint, "httpx2"),
    "by hand": by_hand,
    "by hand, one client": by_hand_one_client,
}


async def _serve(name: str, tracking_port: int) -> None:
    site = SITES[name](f"http://127.0.0.1:{tracking_port}/track/")
    config = uvicorn.Config(site, loop="uvloop", http="httptools", access_log=False, log_level="warning")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        serving = asyncio.ensure_future(server.serve(sockets=[listening]))
        say({"port": listening.getsockname()[1]})
        async for _ in questions():  # there are none; this ends when the parent goes
            continue
        server.should_exit = True
        await serving


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    uvloop.run(_serve(sys.argv[1], int(sys.argv[2])))
