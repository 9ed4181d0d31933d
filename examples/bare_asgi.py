"""Tracking in a bare ASGI application, without any framework: ``uvicorn examples.bare_asgi:app``.

Without ``CONVERT_ENDPOINT`` it reports to a collector on this machine, never to Convert.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from convert_middleware import ConvertMiddleware, current

Message = MutableMapping[str, Any]


def greeting() -> str:
    """Decide deep inside the application; no request object is handed around."""
    convert = current()
    variation = convert.experiment(11, convert.experiments.get(11, 12))
    return "Welcome back." if 331 in convert.goals else f"Hello, variation {variation}."


async def site(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        await send({"type": "websocket.close"})  # before it is accepted: the browser gets a 403
        return
    if scope["type"] != "http":
        raise NotImplementedError(f"This site does not speak {scope['type']}.")
    body = greeting().encode()
    if scope["path"] == "/hello":
        current().goal(331)
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


app = ConvertMiddleware(
    site,
    project_id="1",
    customer_id="2",
    secret_key=os.environ.get("CONVERT_SECRET_KEY", "only for trying things out"),
    endpoint=os.environ.get("CONVERT_ENDPOINT", "http://127.0.0.1:8070/track/"),
)
