"""Drives an ASGI application by hand: every message that goes in and comes out is in sight."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import anyio

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OURS = "convert_visitor"


@dataclass
class Answer:
    """What an application sent, in order."""

    messages: list[Message] = field(default_factory=list)

    async def take(self, message: Message) -> None:
        """Be the server's ``send``."""
        self.messages.append(message)

    def of(self, kind: str) -> list[Message]:
        return [message for message in self.messages if message["type"] == kind]

    @property
    def start(self) -> Message:
        (message,) = self.of("http.response.start")
        return message

    @property
    def status(self) -> int:
        status = self.start["status"]
        assert isinstance(status, int)
        return status

    @property
    def body(self) -> bytes:
        return b"".join([message.get("body", b"") for message in self.of("http.response.body")])

    def headers(self, name: str) -> list[str]:
        wanted = name.encode()
        return [value.decode("latin-1") for key, value in self.start["headers"] if key.lower() == wanted]

    def cookies(self, name: str = OURS) -> list[str]:
        """Return the Set-Cookie headers of that name."""
        return [header for header in self.headers("set-cookie") if header.startswith(f"{name}=")]

    def cookie(self, name: str = OURS) -> str:
        """Return the one cookie of that name as a Cookie header carries it."""
        (header,) = self.cookies(name)
        return header.partition(";")[0]


def http_scope(
    *, method: str = "GET", path: str = "/", cookie: str | None = None, **more: Any
) -> dict[str, Any]:
    """Return a scope as uvicorn makes them."""
    headers: list[tuple[bytes, bytes]] = [(b"host", b"shop.example")]
    headers += [(key.encode(), value.encode()) for key, value in more.pop("sent", {}).items()]
    if cookie is not None:
        headers.append((b"cookie", cookie.encode("latin-1")))
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("192.0.2.7", 40000),
        "server": ("shop.example", 80),
        "state": {},
    }
    return {**scope, **more}


def websocket_scope(*, path: str = "/", cookie: str | None = None, **more: Any) -> dict[str, Any]:
    scope = http_scope(path=path, cookie=cookie)
    del scope["method"]
    return {
        **scope,
        "type": "websocket",
        "scheme": "ws",
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
        **more,
    }


def receiver(*messages: Message) -> Receive:
    """Return a ``receive`` that gives the messages and then waits for ever, as a browser does."""
    waiting = list(messages)

    async def receive() -> Message:
        if not waiting:
            await anyio.sleep_forever()
        return waiting.pop(0)

    return receive


def one_request() -> Receive:
    return receiver({"type": "http.request", "body": b"", "more_body": False})


async def visit(app: App, **scope: Any) -> Answer:
    """Send one request and return what came back; an exception of the application arrives here."""
    answer = Answer()
    await app(http_scope(**scope), one_request(), answer.take)
    return answer


def ask(app: App, backend: str = "asyncio", **scope: Any) -> Answer:
    """Send one request in an event loop of its own."""

    async def main() -> Answer:
        return await visit(app, **scope)

    return anyio.run(main, backend=backend)


def converse(app: App, *messages: Message, **scope: Any) -> Answer:
    """Open a WebSocket, send the messages, and return what came back."""
    answer = Answer()

    async def main() -> None:
        await app(websocket_scope(**scope), receiver(*messages), answer.take)

    anyio.run(main)
    return answer


def respond(
    *,
    status: int = 200,
    headers: Iterable[tuple[bytes, bytes]] = ((b"content-type", b"text/plain"),),
    body: bytes = b"hello",
) -> Callable[[Send], Awaitable[None]]:
    """Return a function that sends a whole response."""

    async def deliver(send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": body})

    return deliver


def page(record: Callable[[Any], object], **response: Any) -> App:
    """Return an application that records on ``scope["state"]["convert"]`` and then responds."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        record(scope["state"]["convert"])
        await respond(**response)(send)

    return app


def facts(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a message or a scope stays the same when it is copied: everything but the headers."""
    return {key: value for key, value in parameters.items() if key != "headers"}
