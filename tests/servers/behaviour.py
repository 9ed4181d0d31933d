"""What a server can do to a client that sent a request: each behaviour is a list of steps.

A step is bytes to send, a pause, or something to do to the connection. After the last step the connection
stays open for the next request.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Final

from tests.servers.listener import Peer, PeerLeft

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
Step = bytes | Callable[[Peer], Awaitable[None]]

GIF: Final = (  # the customary answer of a tracking endpoint: one transparent pixel
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,"
    b"\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x01D\x00;"
)
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Behaviour:
    """A name for reports, and the steps; ``at_accept`` has none: a new connection is reset unread."""

    name: str
    steps: tuple[Step, ...] = ()
    at_accept: bool = False

    async def play(self, peer: Peer) -> None:
        for step in self.steps:
            if isinstance(step, bytes):
                await peer.send(step)
            else:
                await step(peer)

    def __str__(self) -> str:
        return self.name


async def _finish(peer: Peer) -> None:
    peer.writer.close()
    raise PeerLeft


async def _reset(peer: Peer) -> None:
    peer.reset()
    raise PeerLeft


def _pause(seconds: float | None) -> Step:
    async def pause(peer: Peer) -> None:
        await peer.wait(seconds)

    return pause


def message(status: int, headers: Headers = (), body: bytes = b"") -> bytes:
    """Return an answer's bytes; a Content-Length is added unless the headers frame the body themselves."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    names = {name.lower() for name, _ in pairs}
    if status >= 200 and status not in (204, 304) and not names & {"content-length", "transfer-encoding"}:
        pairs.append(("Content-Length", str(len(body))))
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Odd"
    lines = [f"HTTP/1.1 {status} {phrase}", *[f"{name}: {value}" for name, value in pairs]]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def answer(status: int = 200, headers: Headers = (), body: bytes = b"") -> Behaviour:
    """Answer, and keep the connection open."""
    return Behaviour(f"answer {status}", (message(status, headers, body),))


def after(seconds: float, then: Behaviour | None = None) -> Behaviour:
    """Do something, by default answer 200, after a pause; not if the client leaves before."""
    then = answer() if then is None else then
    return Behaviour(f"{then.name} after {seconds} s", (_pause(seconds), *then.steps))


def stall() -> Behaviour:
    """Never answer; ends when the client leaves or the server stops."""
    return Behaviour("stall", (_pause(None),))


def reset() -> Behaviour:
    """Read the request, then reset the connection."""
    return Behaviour("reset", (_reset,))


def close() -> Behaviour:
    """Read the request, then close without an answer."""
    return Behaviour("close", (_finish,))


def reset_on_accept() -> Behaviour:
    """Reset a new connection unread; one that is open already, with the first byte of its next request."""
    return Behaviour("reset on accept", (_reset,), at_accept=True)


def broken_head() -> Behaviour:
    """Break off within the headers."""
    return Behaviour("broken head", (b"HTTP/1.1 200 OK\r\nContent-Ty", _pause(0.02), _reset))


def garbage() -> Behaviour:
    """Answer in a language that is not HTTP."""
    return Behaviour("garbage", (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", _finish))


def answer_and_close(*, announced: bool, status: int = 200) -> Behaviour:
    """Answer, then close the connection, with or without ``Connection: close``."""
    headers = {"Connection": "close"} if announced else {}
    name = "answer and close" if announced else "answer and close unannounced"
    return Behaviour(name, (message(status, headers), _finish))


def drip(body: bytes = b"dripping", seconds: float = 1.0) -> Behaviour:
    """Answer at once, then send the body a byte at a time."""
    drops = [step for byte in body for step in (_pause(seconds), bytes([byte]))]
    return Behaviour("drip", (message(200, {"Content-Length": str(len(body))}), *drops))


def endless(size: int = 1024 * _MIB) -> Behaviour:
    """Send a body of ``size`` bytes; stops when the client leaves."""

    async def pour(peer: Peer) -> None:
        chunk = bytes(65536)
        for position in range(0, size, len(chunk)):
            await peer.send(chunk[: size - position])

    return Behaviour("endless", (message(200, {"Content-Length": str(size)}), pour))


@cache
def _packed(size: int) -> bytes:
    packer = zlib.compressobj(wbits=31)  # 31: with gzip's own header
    block = bytes(_MIB)
    return b"".join([packer.compress(block) for _ in range(size // _MIB)]) + packer.flush()


def gzip_bomb(size: int = 256 * _MIB) -> Behaviour:
    """Answer with a small body that claims to be gzip and grows to ``size`` bytes."""
    body = _packed(size)
    return Behaviour("gzip bomb", (message(200, {"Content-Encoding": "gzip"}, body),))


def captive_portal() -> Behaviour:
    """Answer as a hotel's network does: 200 and a page."""
    page = b"<!doctype html><title>Welcome</title><form action=/login>Accept the terms</form>"
    return Behaviour("captive portal", (message(200, {"Content-Type": "text/html"}, page),))


def redirect(location: str = "https://elsewhere.example/track/", status: int = 302) -> Behaviour:
    """Send the client elsewhere."""
    return Behaviour(f"redirect {status}", (message(status, {"Location": location}),))


def bot() -> Behaviour:
    """Answer 200 as Convert does to what it takes for a bot (PROTOCOL, section 1, gap 8)."""
    body = b'{"code": "BOT", "message": "ignored"}'
    return Behaviour("bot", (message(200, {"Content-Type": "application/json"}, body),))


def set_cookie(value: str = "tracked=1; Path=/") -> Behaviour:
    """Answer with a cookie."""
    return Behaviour("set cookie", (message(200, {"Set-Cookie": value}),))


def wrong_clock(date: str = "Thu, 01 Jan 1970 00:00:00 GMT", status: int = 200) -> Behaviour:
    """Answer with a Date that is far off."""
    return Behaviour("wrong clock", (message(status, {"Date": date}),))


def early_hints() -> Behaviour:
    """Send an informational answer before the real one."""
    return Behaviour("early hints", (message(103, {"Link": "</a.css>; rel=preload"}) + message(200),))


def broken_chunks() -> Behaviour:
    """Break off in the middle of a chunk."""
    head = message(200, {"Transfer-Encoding": "chunked"})
    return Behaviour("broken chunks", (head + b"5\r\nhello\r\nff\r\nhalf of it", _finish))


EVERY_BEHAVIOUR: Final[dict[str, Callable[[], Behaviour]]] = {
    "answer": answer,
    "after": lambda: after(0.05),
    "stall": stall,
    "reset": reset,
    "close": close,
    "reset_on_accept": reset_on_accept,
    "broken_head": broken_head,
    "garbage": garbage,
    "answer_and_close": lambda: answer_and_close(announced=True),
    "answer_and_close_unannounced": lambda: answer_and_close(announced=False),
    "drip": drip,
    "endless": endless,
    "gzip_bomb": gzip_bomb,
    "captive_portal": captive_portal,
    "redirect_301": lambda: redirect(status=301),
    "redirect_302": redirect,
    "bot": bot,
    "set_cookie": set_cookie,
    "wrong_clock": wrong_clock,
    "early_hints": early_hints,
    "broken_chunks": broken_chunks,
}
